"""Reads a value from standard input, a file or a hidden prompt, but never from an argument.

Arguments end up in the shell's history and in process listings.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devbox_secrets.cli.formats.text import BOM
from devbox_secrets.cli.kit.output import note
from devbox_secrets.cli.kit.text_input import refuse_utf16, without_bom
from devbox_secrets.errors import InvalidValue

if TYPE_CHECKING:
    from pydantic import SecretBytes

#: A Linux terminal drops what is longer than this in a line (N_TTY_BUF_SIZE, termios(3)).
_TERMINAL_LINE_BYTES = 4095
#: Much larger than any value, so that an error can state the actual size; still a limit for an endless stream.
_MOST_BYTES = 1 << 24
#: The largest difference in length between a mistyped option and the suggested one.
_TYPO = 2
_KEEP_HINT = "use --keep-newline to keep it"
#: Settings of commands that read a value: typer accepts extra arguments, so that its error message doesn't repeat them.
TAKES_A_VALUE = {"allow_extra_args": True, "ignore_unknown_options": True}

FromFile = Annotated[
    Path | None,
    typer.Option(
        "--from-file", "-f", metavar="FILE", exists=True, dir_okay=False,
        help="Read the value from this file.",
    ),
]  # fmt: skip
KeepNewline = Annotated[
    bool,
    typer.Option(
        "--keep-newline",
        help="Keep the trailing newline of a one-line value, and a byte order mark; by default, both are removed.",
    ),
]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="Accept a value that is empty or only whitespace.")]


def refuse_more_arguments(ctx: typer.Context) -> None:
    """Reject extra arguments. The message repeats one only if it resembles an option's name.

    Anything else may be a value.

    Raises:
        UsageError: there are extra arguments.
    """
    known = [name for each in ctx.command.params for name in each.opts if name.startswith("--")]
    for argument in ctx.args:
        name = argument.partition("=")[0]
        if meant := _meant(name, known):
            ctx.fail(f"No such option: {name}. Did you mean {meant}?")
    if ctx.args:
        ctx.fail(
            "unexpected arguments. If one of them is the value: pass it on standard input, with --from-file or at"
            " the prompt, since arguments are visible in the shell's history and in process listings"
        )


def _meant(name: str, known: list[str]) -> str:
    """Return the option that a name probably means, by its start or a small difference; otherwise empty."""
    from difflib import get_close_matches

    near = get_close_matches(name, [each for each in known if abs(len(each) - len(name)) <= _TYPO], n=1, cutoff=0.75)
    longer = [each for each in known if each.startswith(name) and len(name) > len("--") + _TYPO]
    return next(iter(near + longer), "")


def read_value(name: str, from_file: Path | None, *, keep_newline: bool, allow_empty: bool) -> "SecretBytes":
    """Read the value of a variable.

    Unless `keep_newline`, the trailing newline of a one-line value and a byte order mark are removed. Everything else
    is kept.

    Raises:
        InvalidText: the value is UTF-16.
        InvalidValue: there is no input, or the value is empty or too long for a terminal.
    """
    from pydantic import SecretBytes

    if from_file is None and sys.stdin is None:
        raise InvalidValue(f"standard input is closed; pass the value of {name} there or with --from-file")
    if from_file is None and sys.stdin.isatty():
        raw = _ask(name, allow_empty=allow_empty)
    else:
        source, raw = _read(from_file)
        refuse_utf16(raw, source)
        raw = raw if keep_newline else _without_newline(without_bom(raw, source, hint=_KEEP_HINT))
    # If a command in a pipe fails, this command only sees empty input.
    if not (allow_empty or raw.removeprefix(BOM).strip()):
        what = "only whitespace" if raw else "empty"
        raise InvalidValue(f"the value of {name} is {what}; pass --allow-empty if this is intended")
    return SecretBytes(raw)


def _read(from_file: Path | None) -> tuple[str, bytes]:
    if from_file is None:
        return "standard input", sys.stdin.buffer.read(_MOST_BYTES)
    with from_file.open("rb") as file:
        return str(from_file), file.read(_MOST_BYTES)


def _without_newline(raw: bytes) -> bytes:
    line, end, rest = raw.partition(b"\n")
    if not end or rest:
        return raw
    note(f"removed the trailing newline ({_KEEP_HINT})")
    return line.removesuffix(b"\r")


def _ask(name: str, *, allow_empty: bool) -> bytes:
    # Without a default, click repeats the prompt until something is typed.
    default = "" if allow_empty else None
    try:
        typed: str = typer.prompt(
            f"Value of {name}", default, hide_input=True, confirmation_prompt=True, show_default=False, err=True
        )
        raw = typed.encode()
    except UnicodeError:
        # From None: the original exception contains the value.
        raise InvalidValue(f"the typed value of {name} isn't UTF-8 text") from None
    if len(raw) >= _TERMINAL_LINE_BYTES:
        raise InvalidValue(
            f"the value of {name} may be truncated: a terminal drops everything after {_TERMINAL_LINE_BYTES:,} bytes;"
            " pass the value on standard input or with --from-file"
        )
    return raw
