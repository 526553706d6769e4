"""Reads text from files and standard input, and tells what it leaves out."""

from pathlib import Path

from devbox_secrets.cli.formats import text
from devbox_secrets.cli.kit.output import note
from devbox_secrets.errors import InvalidText


def read_text(path: Path) -> str:
    """Read a file as text, without its byte order mark.

    Raises:
        InvalidText: it isn't UTF-8.
    """
    return to_text(path.read_bytes(), path)


def to_text(raw: bytes, source: object) -> str:
    """Read bytes as text, without its byte order mark; `source` says where they are from.

    Raises:
        InvalidText: they aren't UTF-8.
    """
    try:
        read = text.decode(raw)
    except InvalidText as error:
        raise InvalidText(f"{source}: {error}") from None
    if read.had_bom:
        _note(source)
    return read.text


def without_bom(raw: bytes, source: object, unless: str = "") -> bytes:
    """Leave out a byte order mark; `unless` says which option keeps it."""
    if raw.startswith(text.BOM):
        _note(source, unless)
    return raw.removeprefix(text.BOM)


def refuse_utf16(raw: bytes, source: object) -> None:
    """Refuse what is surely UTF-16; `source` says where it is from.

    Raises:
        InvalidText: it's UTF-16.
    """
    try:
        text.refuse_utf16(raw)
    except InvalidText as error:
        raise InvalidText(f"{source}: {error}") from None


def _note(source: object, unless: str = "") -> None:
    note(f"left out the byte order mark at the beginning of {source}" + (f" ({unless})" if unless else ""))
