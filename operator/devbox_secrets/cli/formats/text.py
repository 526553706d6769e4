"""Decodes UTF-8 text, with or without a byte order mark; UTF-16 gets a specific error."""

import codecs
from dataclasses import dataclass

from devbox_secrets.errors import InvalidText

#: The byte order mark that some tools write at the start of UTF-8 text.
BOM = codecs.BOM_UTF8
_BOM = BOM.decode()


@dataclass(frozen=True, slots=True)
class Text:
    """A file's text."""

    text: str
    """Without the byte order mark."""
    had_bom: bool = False

    def encode(self) -> bytes:
        """Encode the text, with the byte order mark if the file had one."""
        return (_BOM * self.had_bom + self.text).encode()


def decode(raw: bytes) -> Text:
    """Decode a file's bytes as UTF-8, without changing line endings.

    Raises:
        InvalidText: the bytes aren't UTF-8. The message contains neither them nor a file name.
    """
    refuse_utf16(raw)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        # From None: the original exception contains the bytes.
        raise InvalidText(f"not UTF-8 text: byte {error.start + 1:,} is invalid") from None
    return Text(text.removeprefix(_BOM), text.startswith(_BOM))


def refuse_utf16(raw: bytes) -> None:
    """Reject UTF-16, with or without a byte order mark. No valid value starts like UTF-16.

    Raises:
        InvalidText: the bytes are UTF-16.
    """
    head = raw[:4]
    # In UTF-16, each ASCII character has a NUL byte.
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or (
        head[:2].count(0) == 1 and head.count(0) * 2 >= len(head)
    ):
        raise InvalidText(
            "the text is UTF-16, which PowerShell's > writes; save it as UTF-8, for example with"
            " Set-Content -Encoding utf8"
        )
