"""A .env file's lines: what each sets, or why it can't be sealed.

No message repeats what a line holds: neither its value, nor the text in the place of its name, which may be one.
"""

import re
from dataclasses import dataclass, replace

from pydantic import SecretBytes

from devbox_secrets.api.validation import check_value, check_variable
from devbox_secrets.cli.formats.env_blocks import Block, blocks
from devbox_secrets.errors import DevboxSecretsError, InvalidName, InvalidValue


@dataclass(frozen=True, slots=True)
class Line:
    """One assignment, or damage; either may span several lines. Empty lines and comments are left out."""

    first: int
    last: int
    variable: str
    """Empty where the text can't be a name."""
    value: SecretBytes
    refusal: str = ""
    """Why it can't be sealed."""
    damaged: bool = False
    """Whether it can't be told what is meant, so that other lines may be misread as well."""

    @property
    def place(self) -> str:
        """Say which lines they are: 3, or 3-7."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def read(text: str, *, literal: bool, allow_empty: bool) -> list[Line]:
    """Read a file's lines.

    Args:
        text: the file's content.
        literal: take `${NAME}` in a value as it is; otherwise it's refused, since most readers of such a
            file put another variable's value there.
        allow_empty: take variables without a value.
    """
    # As Python reads text files, python-dotenv included.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [_line(block, literal=literal, allow_empty=allow_empty) for block in blocks(text)]
    last = {line.variable: line for line in lines}
    return [_once(line, last[line.variable]) for line in lines]


def _line(block: Block, *, literal: bool, allow_empty: bool) -> Line:
    value = SecretBytes(b"" if block.damage else block.value.encode())
    line = Line(block.first, block.last, block.name, value, block.damage, damaged=bool(block.damage))
    try:
        check_variable(block.name)
    except InvalidName as error:
        return replace(line, variable="", refusal=block.damage or str(error))
    if line.damaged:
        return line
    try:
        check_value(block.name, value)
    except DevboxSecretsError as error:
        return replace(line, refusal=str(error), damaged=isinstance(error, InvalidValue))
    return replace(line, refusal=_refusal(block.value, literal=literal, allow_empty=allow_empty))


def _refusal(value: str, *, literal: bool, allow_empty: bool) -> str:
    if not (value.strip() or allow_empty):
        return "it's empty: give it a value, remove the line, or pass --allow-empty"
    if not literal and re.search(r"\$\{[^}]*\}", value):
        return "it refers to another variable with ${…}: write it out, or pass --literal"
    return ""


def _once(line: Line, last: Line) -> Line:
    if not line.variable or line.refusal or line is last:
        return line
    return replace(line, refusal=f"line {last.first} sets it again, and counts")
