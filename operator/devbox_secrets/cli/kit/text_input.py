"""Reads text from files and standard input, and reports what it removes."""

from pathlib import Path

from devbox_secrets.cli.formats import text
from devbox_secrets.cli.kit.output import note
from devbox_secrets.errors import InvalidText


def read_text(path: Path) -> str:
    """Read a file as text, without its byte order mark.

    Raises:
        InvalidText: the file isn't UTF-8.
    """
    return to_text(path.read_bytes(), path)


def to_text(raw: bytes, source: object) -> str:
    """Decode bytes as text, without the byte order mark; `source` names their origin.

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


def without_bom(raw: bytes, source: object, hint: str = "") -> bytes:
    """Remove the byte order mark; `hint` says how to keep it."""
    if raw.startswith(text.BOM):
        _note(source, hint)
    return raw.removeprefix(text.BOM)


def refuse_utf16(raw: bytes, source: object) -> None:
    """Reject UTF-16; `source` names the origin.

    Raises:
        InvalidText: the bytes are UTF-16.
    """
    try:
        text.refuse_utf16(raw)
    except InvalidText as error:
        raise InvalidText(f"{source}: {error}") from None


def _note(source: object, hint: str = "") -> None:
    note(f"removed the byte order mark from the start of {source}" + (f" ({hint})" if hint else ""))
