"""Reads a value from standard input, a file or a hidden prompt. Never from an argument.

Arguments are in the shell's history and in every list of processes.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devbox_secrets.errors import InvalidValue

if TYPE_CHECKING:
    from pydantic import SecretBytes

#: How much of a line a Linux terminal takes before its newline; it drops the rest (N_TTY_BUF_SIZE, termios(3)).
_TERMINAL_LINE_BYTES = 4095
#: Far more than any value, so that an error can name its true size; and a bound for a stream that never ends.
_MOST_BYTES = 1 << 24
#: The settings of a command that reads a value: typer takes extra arguments, so that its error doesn't repeat them.
TAKES_A_VALUE = {"allow_extra_args": True, "ignore_unknown_options": True}

FromFile = Annotated[
    Path | None,
    typer.Option(
        "--from-file", "-f", metavar="FILE", exists=True, dir_okay=False,
        help="Read the value from this file.",
    ),
]  # fmt: skip
Exact = Annotated[bool, typer.Option("--exact", help="Keep a newline at the end of a one-line value.")]


def refuse_more_arguments(ctx: typer.Context) -> None:
    """Refuse arguments beyond a command's own, without repeating them: one may be a value.

    Raises:
        InvalidValue: there are some.
    """
    if ctx.args:
        raise InvalidValue(
            f"only NAME and the options that `devbox-secrets {ctx.info_name} -h` lists can be given; a value never,"
            " since the shell's history and every list of processes show it: use standard input, --from-file or"
            " the prompt"
        )


def read_value(name: str, from_file: Path | None, *, exact: bool) -> "SecretBytes":
    """Read the value of a variable.

    Raises:
        InvalidValue: there is nowhere to read it from, or what was typed can't be right.
    """
    from pydantic import SecretBytes

    if from_file is not None:
        with from_file.open("rb") as file:
            raw = file.read(_MOST_BYTES)
    elif sys.stdin is None:
        raise InvalidValue(f"standard input is closed: give the value of {name} there or with --from-file")
    elif sys.stdin.isatty():
        return SecretBytes(_ask(name))
    else:
        raw = sys.stdin.buffer.read(_MOST_BYTES)
    line, end, rest = raw.partition(b"\n")
    if exact or not end or rest:
        return SecretBytes(raw)
    typer.echo("devbox-secrets: left out the newline at the end (--exact keeps it)", err=True)
    return SecretBytes(line.removesuffix(b"\r"))


def _ask(name: str) -> bytes:
    try:
        typed: str = typer.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True, err=True)
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
