"""The lines of a .env file: the variable that each sets, or why it can't be sealed.

Messages never repeat a line's value, nor the text in place of its name, which may be part of a value.
"""

import re
from dataclasses import dataclass, replace

from pydantic import SecretBytes

from devbox_secrets.api.validation import check_value, check_variable
from devbox_secrets.cli.formats.env_blocks import Block, blocks
from devbox_secrets.errors import DevboxSecretsError, InvalidName, InvalidValue


@dataclass(frozen=True, slots=True)
class Line:
    """One assignment or damaged block, which may span several lines. Empty lines and comments are skipped."""

    first: int
    last: int
    variable: str
    """Empty if the text isn't a valid name."""
    value: SecretBytes
    refusal: str = ""
    """Why it can't be sealed."""
    damaged: bool = False
    """Whether the line can't be parsed, so that other lines may be misread, too."""

    @property
    def place(self) -> str:
        """Return the line numbers: 3, or 3-7."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def read(text: str, *, literal: bool, allow_empty: bool) -> list[Line]:
    """Read a file's lines.

    Args:
        text: the file's content.
        literal: accept `${NAME}` in values; otherwise it is rejected, because most programs would expand it to
            another variable's value.
        allow_empty: accept empty values.
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
        return "the value is empty; set a value, remove the line, or pass --allow-empty"
    if not literal and re.search(r"\$\{[^}]*\}", value):
        return "the value refers to another variable with ${…}; expand it, or pass --literal"
    return ""


def _once(line: Line, last: Line) -> Line:
    if line.refusal or line is last:
        return line
    return replace(line, refusal=f"overridden by line {last.first}")
