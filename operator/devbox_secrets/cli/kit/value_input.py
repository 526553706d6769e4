"""Reads a value from standard input, a file or a hidden prompt. Never from an argument.

Arguments are in the shell's history and in every list of processes.
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

#: How much of a line a Linux terminal takes before its newline; it drops the rest (N_TTY_BUF_SIZE, termios(3)).
_TERMINAL_LINE_BYTES = 4095
#: Far more than any value, so that an error can name its true size; and a bound for a stream that never ends.
_MOST_BYTES = 1 << 24
#: How many letters may be missing or too many in an option's name.
_TYPO = 2
#: The settings of a command that reads a value: typer takes extra arguments, so that its error doesn't repeat them.
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
        "--keep-newline", help="Keep every byte: the newline at the end of a one-line value, and a byte order mark."
    ),
]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="Accept a value that is empty or only white space.")]


def refuse_more_arguments(ctx: typer.Context) -> None:
    """Refuse what isn't a command's own argument or option; it's only repeated if it's nearly an option's name.

    Anything else may be a value.

    Raises:
        UsageError: there is such an argument.
    """
    known = [name for each in ctx.command.params for name in each.opts if name.startswith("--")]
    for argument in ctx.args:
        name = argument.partition("=")[0]
        if meant := _meant(name, known):
            ctx.fail(f"No such option: {name}. Did you mean {meant}?")
    if ctx.args:
        ctx.fail(
            "only NAME and the options that -h lists can be given; a value never, since the shell's history and"
            " every list of processes show it: use standard input, --from-file or the prompt"
        )


def _meant(name: str, known: list[str]) -> str:
    """Give the option that a name is the beginning of, or but for a letter or two; else nothing."""
    from difflib import get_close_matches

    near = get_close_matches(name, [each for each in known if abs(len(each) - len(name)) <= _TYPO], n=1, cutoff=0.75)
    longer = [each for each in known if each.startswith(name) and len(name) > len("--") + _TYPO]
    return next(iter(near + longer), "")


def read_value(name: str, from_file: Path | None, *, keep_newline: bool, allow_empty: bool) -> "SecretBytes":
    """Read the value of a variable.

    Unless `keep_newline`, the newline at the end of a one-line value is left out, and a byte order mark at its
    beginning. Everything else is kept.

    Raises:
        InvalidText: it's UTF-16.
        InvalidValue: there is nowhere to read it from, it's empty, or a terminal can't take it.
    """
    from pydantic import SecretBytes

    if from_file is None and sys.stdin is None:
        raise InvalidValue(f"standard input is closed: give the value of {name} there or with --from-file")
    if from_file is None and sys.stdin.isatty():
        source, raw = "the prompt", _ask(name, allow_empty=allow_empty)
    else:
        source, raw = _read(from_file)
        refuse_utf16(raw, source)
        raw = raw if keep_newline else _without_newline(without_bom(raw, source, unless="--keep-newline keeps it"))
    # A command whose output is read here fails without a trace: what it gives is empty.
    if not (allow_empty or raw.removeprefix(BOM).strip()):
        what = "only white space" if raw else "nothing"
        raise InvalidValue(
            f"the value of {name} is empty: {source} gave {what}; if that is what you mean, pass --allow-empty"
        )
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
    note("left out the newline at the end (--keep-newline keeps it)")
    return line.removesuffix(b"\r")


def _ask(name: str, *, allow_empty: bool) -> bytes:
    # Without a default, click asks again until something is typed.
    default = "" if allow_empty else None
    try:
        typed: str = typer.prompt(
            f"Value of {name}", default, hide_input=True, confirmation_prompt=True, show_default=False, err=True
        )
        raw = typed.encode()
    except UnicodeError:
        # From None: the exception in hand carries the value.
        raise InvalidValue(f"what was typed as the value of {name} isn't UTF-8 text") from None
    if len(raw) >= _TERMINAL_LINE_BYTES:
        raise InvalidValue(
            f"a terminal cuts a line after {_TERMINAL_LINE_BYTES:,} bytes without a word: give the value of {name}"
            " on standard input or with --from-file"
        )
    return raw
