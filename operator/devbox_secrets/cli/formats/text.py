"""Text as people's tools write it: UTF-8, with or without a byte order mark; UTF-16 is named."""

import codecs
from dataclasses import dataclass

from devbox_secrets.errors import InvalidText

#: The byte order mark, as some tools begin a UTF-8 text with it.
BOM = codecs.BOM_UTF8
_BOM = BOM.decode()


@dataclass(frozen=True, slots=True)
class Text:
    """A file's text."""

    text: str
    """Without the byte order mark."""
    had_bom: bool = False

    def encode(self) -> bytes:
        """Give the bytes as the file has them, with its byte order mark."""
        return (_BOM * self.had_bom + self.text).encode()


def decode(raw: bytes) -> Text:
    """Read a file's bytes as UTF-8; line endings stay as they are.

    Raises:
        InvalidText: they are something else. The message holds nothing of them, and no file's name.
    """
    refuse_utf16(raw)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        # From None: the exception in hand carries the bytes.
        raise InvalidText(f"it isn't UTF-8 text: byte {error.start + 1:,} is invalid") from None
    return Text(text.removeprefix(_BOM), text.startswith(_BOM))


def refuse_utf16(raw: bytes) -> None:
    """Refuse what is surely UTF-16, with or without a byte order mark: no valid value starts like it.

    Raises:
        InvalidText: it's UTF-16.
    """
    head = raw[:4]
    # ASCII characters have a NUL each.
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or (
        head[:2].count(0) == 1 and head.count(0) * 2 >= len(head)
    ):
        raise InvalidText(
            "it is UTF-16 text, which PowerShell's > writes: save it as UTF-8, for instance with"
            " Set-Content -Encoding utf8"
        )
