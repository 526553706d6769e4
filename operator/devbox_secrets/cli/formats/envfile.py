"""A .env file's lines: what each sets, or why it can't be sealed.

The grammar is python-dotenv's. No message repeats what a line holds: neither its value, nor the text in the place of
its name, which may be one.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from dotenv.parser import Binding, parse_stream
from pydantic import SecretBytes

from devbox_secrets.api.validation import RESERVED_NAMES, check_value, check_variable, is_reserved
from devbox_secrets.errors import DevboxSecretsError, InvalidName, InvalidValue


@dataclass(frozen=True, slots=True)
class Line:
    """One assignment, which may span several lines. Empty lines and comments are left out."""

    number: int
    variable: str
    """Empty where the text can't be a name."""
    value: SecretBytes
    refusal: str = ""
    """Why it can't be sealed."""


def read(raw: bytes, *, literal: bool) -> list[Line]:
    """Read a file's lines.

    Args:
        raw: the file's content.
        literal: take `${NAME}` in a value as it is; otherwise it's refused, since most readers of such a
            file put another variable's value there.

    Raises:
        InvalidValue: it isn't UTF-8 text.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # From None: the exception in hand carries the values.
        raise InvalidValue(f"the file isn't UTF-8 text: byte {error.start + 1:,} can't be right") from None
    lines = list(_lines(text, literal=literal))
    last = {line.variable: line.number for line in lines}
    return [_once(line, last[line.variable]) for line in lines]


def _lines(text: str, *, literal: bool) -> Iterator[Line]:
    for binding in parse_stream(io.StringIO(text)):
        skipped = re.match(r"\s*", binding.original.string)
        number = binding.original.line + (skipped[0].count("\n") if skipped else 0)
        if binding.error:
            yield Line(number, "", SecretBytes(b""), "it isn't NAME=value; a value with quotes needs both of them")
        elif binding.key is not None:
            yield _line(number, binding, literal=literal)


def _line(number: int, binding: Binding, *, literal: bool) -> Line:
    name, value = binding.key or "", SecretBytes((binding.value or "").encode())
    if binding.value is None:
        return Line(number, "", value, "it has no =, so no value")
    try:
        check_variable(name)
    except InvalidName as error:
        return Line(number, "", value, str(error))
    try:
        check_value(name, value)
    except DevboxSecretsError as error:
        return Line(number, name, value, str(error))
    if is_reserved(name, RESERVED_NAMES):
        return Line(number, name, value, "reserved: it could run code in every devbox, which wouldn't get it")
    if not literal and re.search(r"\$\{[^}]*\}", binding.value):
        return Line(number, name, value, "it refers to another variable with ${…}: write it out, or give --literal")
    return Line(number, name, value)


def _once(line: Line, last: int) -> Line:
    if not line.variable or line.refusal or line.number == last:
        return line
    return Line(line.number, line.variable, line.value, f"line {last} sets it again, and counts")
