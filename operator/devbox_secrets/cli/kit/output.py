"""What a command prints: a table for people, YAML or JSON for programs, and a question to confirm."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from devbox_secrets.errors import NotConfirmed

#: In cells of these columns, the first word has a color.
_STYLED = {"LEVEL", "READY", "SYNCED", "VALUE", "WHAT"}
_STYLES = {
    **dict.fromkeys(("yes", "ok", "create", "created", "change", "changed", "resealed"), "green"),
    **dict.fromkeys(("write", "written", "overwrite", "overwritten"), "green"),
    **dict.fromkeys(("no", "error", "refused", "damaged"), "red"),
    **dict.fromkeys(("not", "warning", "older", "none", "skipped", "kept"), "yellow"),
}
#: rich takes half a second for a thousand rows.
_MOST_STYLED_ROWS = 1000
_GAP = 3
#: A column of text isn't wrapped up to this width, as long as the others can become narrower.
_TEXT_WIDTH = 22
#: The narrowest that a column of names may become. Where that isn't enough, the terminal breaks whole rows.
_NAME_WIDTH = 20


class Format(StrEnum):
    """How a result is printed."""

    TEXT = "text"
    YAML = "yaml"
    JSON = "json"


class ObjectFormat(StrEnum):
    """How objects are printed."""

    TEXT = "text"
    WIDE = "wide"
    NAME = "name"
    YAML = "yaml"
    JSON = "json"


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="A table for people, or data for programs.")]
ObjectOutput = Annotated[
    ObjectFormat,
    typer.Option("--output", "-o", help="A table for people, a wider one, names alone, or data for programs."),
]


def show(output: Format | ObjectFormat, data: Any, text: Callable[[], None]) -> None:  # noqa: ANN401 - JSON
    """Print a result: its data, or call what prints it for people."""
    if output in {Format.TEXT, ObjectFormat.WIDE}:
        text()
    else:
        typer.echo(as_text(data, output), nl=False)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, err: bool = False) -> None:
    """Print a table as kubectl does: one line for each row. At a terminal, it's as wide as the terminal.

    There, text that is too wide continues in the next line of its cell. Nothing is ever left out.
    """
    from rich.cells import cell_len

    printed = [[_printable(cell) for cell in row] for row in rows]
    columns = list(zip(headers, *printed, strict=True))
    if (sys.stderr if err else sys.stdout).isatty() and len(printed) <= _MOST_STYLED_ROWS:
        # An empty column would take room from the others.
        columns = [column for column in columns if any(column[1:])] or columns
        if widths := _fitting(columns, shutil.get_terminal_size().columns):
            _print_styled(columns, widths, err=err)
            return
    widths = [max(map(cell_len, column)) for column in columns]
    for row in list(zip(*columns, strict=True))[not any(headers) :]:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        typer.echo((" " * _GAP).join(padded).rstrip(), err=err)


def _fitting(columns: list[tuple[str, ...]], room: int) -> list[int]:
    """Give the columns widths that fit; none if there is too little room.

    Text is wrapped first, then names are broken, then also short texts are wrapped.
    """
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in columns]
    words = [max(cell_len(word) for cell in column for word in cell.split(" ")) for column in columns]
    is_text = [word < width for word, width in zip(words, widths, strict=True)]
    text = [min(width, _TEXT_WIDTH) if it else width for it, width in zip(is_text, widths, strict=True)]
    names = [width if it else min(width, _NAME_WIDTH) for it, width in zip(is_text, text, strict=True)]
    short = [min(width, word) for word, width in zip(words, names, strict=True)]
    room -= _GAP * (len(columns) - 1)
    for least in (text, names, short):
        while sum(widths) > room and widths != least:
            _, widest = max((width, at) for at, width in enumerate(widths) if width > least[at])
            widths[widest] -= 1
    return widths if sum(widths) <= room else []


def _print_styled(columns: list[tuple[str, ...]], widths: list[int], *, err: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    headers = [column[0] for column in columns]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold", show_header=any(headers))
    for header, width in zip(headers, widths, strict=True):
        table.add_column(header, overflow="fold", width=width)
    for row in zip(*(column[1:] for column in columns), strict=True):
        styles = (_STYLES.get(cell.partition(" ")[0].rstrip(":"), "") for cell in row)
        cells = zip(headers, row, styles, strict=True)
        table.add_row(*(Text(cell, style=style if header in _STYLED else "") for header, cell, style in cells))
    Console(highlight=False, stderr=err).print(table)


def note(text: str) -> None:
    """Print a message beside the result, on standard error."""
    typer.echo(f"devbox-secrets: {text}", err=True)


def confirm(question: str, *, yes: bool, unasked: str) -> None:
    """Continue with what can't be undone only if someone says yes: by the option, or at the terminal.

    Raises:
        NotConfirmed: nobody can be asked; `unasked` says which option to give.
        Abort: they said no.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise NotConfirmed(f"there is no terminal to ask at: {unasked}")
    typer.echo(f"{question} [y/N]: ", nl=False, err=True)
    # Not click's own prompt: it writes a space to standard output, where results are.
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise typer.Abort


@contextmanager
def progress(what: str) -> Iterator[Callable[[int], None]]:
    """Show at a terminal how many there were so far, after the first second."""
    shown, total, start = None, 0, time.monotonic()

    def count(more: int) -> None:
        nonlocal shown, total
        total += more
        if shown is None and sys.stderr.isatty() and time.monotonic() - start > 1:
            from rich.console import Console
            from rich.status import Status

            shown = Status(f"{total:,} {what} …", console=Console(stderr=True))
            shown.start()
        elif shown is not None:
            shown.update(f"{total:,} {what} …")

    try:
        yield count
    finally:
        if shown is not None:
            shown.stop()


def _printable(text: str) -> str:
    """Replace control characters, which could steer the terminal: anyone can write a description."""
    return "".join(character if character.isprintable() else " " for character in text)


def age(when: str | None, now: datetime) -> str:
    """Say how long ago a timestamp of Kubernetes is, as kubectl does: 3d, 5h, 12m, 4s."""
    if when is None:
        return ""
    try:
        seconds = max(0, int((now - datetime.fromisoformat(when)).total_seconds()))
    except ValueError:  # such as one of the year 0, which the API server accepts in a pod's status
        return "<unknown>"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def as_text(data: Any, output: str) -> str:  # noqa: ANN401 - JSON
    """Give data as JSON or YAML."""
    if output == Format.JSON:
        return json.dumps(data, indent=2) + "\n"
    import yaml

    # No line is broken: a sealed value stays one word, so that it can be compared.
    text: str = yaml.safe_dump(data, sort_keys=False, width=sys.maxsize)
    return text


def as_manifest(body: dict[str, Any], output: str) -> str:
    """Give an object as JSON or YAML, which starts with `---`, so that several can be appended to one file."""
    return ("---\n" if output == Format.YAML else "") + as_text(body, output)
