"""Output of commands: tables for people, YAML or JSON for programs, messages and prompts."""

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

#: The first word of a cell is colored in these columns.
_STYLED = {"LEVEL", "READY", "RESULT", "SYNCED", "VALUE"}
_STYLES = {
    **dict.fromkeys(("yes", "ok", "create", "created", "change", "changed", "resealed"), "green"),
    **dict.fromkeys(("write", "written", "overwrite", "overwritten"), "green"),
    **dict.fromkeys(("no", "error", "rejected", "failed", "damaged"), "red"),
    **dict.fromkeys(("not", "warning", "older", "none", "skipped", "kept"), "yellow"),
}
#: rich takes half a second for a thousand rows.
_MOST_STYLED_ROWS = 1000
_GAP = 3
#: A text column isn't made narrower than this while other columns can be.
_TEXT_WIDTH = 22
#: The minimum width of a column of names. If that isn't enough, the terminal wraps whole rows.
_NAME_WIDTH = 20


class Format(StrEnum):
    """Output formats of a result."""

    TEXT = "text"
    YAML = "yaml"
    JSON = "json"


class ObjectFormat(StrEnum):
    """Output formats of objects."""

    TEXT = "text"
    WIDE = "wide"
    NAME = "name"
    YAML = "yaml"
    JSON = "json"


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="Output format.")]
ObjectOutput = Annotated[
    ObjectFormat,
    typer.Option("--output", "-o", help="Output format; wide adds columns, name prints only names."),
]


def show(output: Format | ObjectFormat, data: Any, text: Callable[[], None]) -> None:  # noqa: ANN401 - JSON
    """Print a result as data, or call `text` to print it for people."""
    if output in {Format.TEXT, ObjectFormat.WIDE}:
        text()
    else:
        typer.echo(as_text(data, output), nl=False)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, err: bool = False) -> None:
    """Print a table as kubectl does, one line per row. In a terminal, fit it to the terminal's width.

    There, long text wraps inside its cell; it is never truncated.
    """
    from rich.cells import cell_len

    printed = [[_printable(cell) for cell in row] for row in rows]
    columns = list(zip(headers, *printed, strict=True))
    if (sys.stderr if err else sys.stdout).isatty() and len(printed) <= _MOST_STYLED_ROWS:
        # Leave the space of empty columns to the others.
        columns = [column for column in columns if any(column[1:])] or columns
        if widths := _fitting(columns, shutil.get_terminal_size().columns):
            _print_styled(columns, widths, err=err)
            return
    widths = [max(map(cell_len, column)) for column in columns]
    for row in list(zip(*columns, strict=True))[not any(headers) :]:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        typer.echo((" " * _GAP).join(padded).rstrip(), err=err)


def _fitting(columns: list[tuple[str, ...]], room: int) -> list[int]:
    """Return column widths that fit; an empty list if there is too little room.

    Text columns are narrowed first, then columns of names, then short texts.
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
    """Print a message on standard error."""
    typer.echo(f"devbox-secrets: {text}", err=True)


def confirm(question: str, *, yes: bool, unasked: str) -> None:
    """Ask before an action that can't be undone, unless `yes`.

    Raises:
        NotConfirmed: standard input isn't a terminal; `unasked` says which option to pass.
        Abort: the answer was no.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise NotConfirmed(f"stdin is not a terminal; {unasked}")
    typer.echo(f"{question} [y/N]: ", nl=False, err=True)
    # Not click's prompt: it writes a space to standard output, which is for results.
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise typer.Abort


@contextmanager
def progress(what: str) -> Iterator[Callable[[int], None]]:
    """Show a running count in a terminal, after the first second."""
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
    """Replace control characters, which could control the terminal: descriptions are untrusted input."""
    return "".join(character if character.isprintable() else " " for character in text)


def age(when: str | None, now: datetime) -> str:
    """Return the age of a Kubernetes timestamp as kubectl prints it: 3d, 5h, 12m, 4s."""
    if when is None:
        return ""
    try:
        seconds = max(0, int((now - datetime.fromisoformat(when)).total_seconds()))
    except ValueError:  # such as year 0, which the API server accepts in a pod's status
        return "<unknown>"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def as_text(data: Any, output: str) -> str:  # noqa: ANN401 - JSON
    """Return data as JSON or YAML."""
    if output == Format.JSON:
        return json.dumps(data, indent=2) + "\n"
    import yaml

    # Don't wrap lines: a sealed value stays one word, so that it can be compared.
    text: str = yaml.safe_dump(data, sort_keys=False, width=sys.maxsize)
    return text


def as_manifest(body: dict[str, Any], output: str) -> str:
    """Return an object as JSON or YAML. YAML starts with `---`, so that manifests can be appended to one file."""
    return ("---\n" if output == Format.YAML else "") + as_text(body, output)
