"""Reads a text file, and tells of what it leaves out."""

from pathlib import Path

from devbox_secrets.cli.formats.text import decode
from devbox_secrets.cli.kit.output import note
from devbox_secrets.errors import InvalidText


def to_text(raw: bytes, source: object) -> str:
    """Read bytes as text, without its byte order mark; `source` says where they are from.

    Raises:
        InvalidText: they aren't UTF-8.
    """
    try:
        text = decode(raw)
    except InvalidText as error:
        raise InvalidText(f"{source}: {error}") from None
    if text.had_bom:
        note(f"left out the byte order mark at the beginning of {source}")
    return text.text


def read_text(path: Path) -> str:
    """Read a file as text, without its byte order mark.

    Raises:
        InvalidText: it isn't UTF-8.
    """
    return to_text(path.read_bytes(), path)
