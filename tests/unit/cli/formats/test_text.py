"""The encodings of text files: which are accepted, and the errors for the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbox_secrets.cli.formats.text import Text, decode
from devbox_secrets.errors import InvalidText

UTF16 = "the text is UTF-16, which PowerShell's > writes; save it as UTF-8, for example with Set-Content -Encoding utf8"


@pytest.mark.parametrize(
    ("raw", "text", "had_bom"),
    [
        (b"", "", False),
        (b"\xef\xbb\xbf", "", True),
        (b"\xef\xbb\xbfa\r\n", "a\r\n", True),
        (b"\xef\xbb\xbf\xef\xbb\xbfa", "\ufeffa", True),
        (b"a\xef\xbb\xbf", "a\ufeff", False),
        (b"a\0b", "a\0b", False),
    ],
)
def test_one_byte_order_mark_is_removed(raw: bytes, text: str, had_bom: bool) -> None:
    assert decode(raw) == Text(text, had_bom)
    assert decode(raw).encode() == raw


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["a", "A=1\r\n", "apiVersion: v1\n", "ab\u4e2d\u6587"])
def test_utf_16_is_recognized(text: str, encoding: str) -> None:
    with pytest.raises(InvalidText) as error:
        decode(text.encode(encoding))
    assert str(error.value) == UTF16


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"\xfe\xff"])
def test_an_empty_utf_16_file_is_recognized(raw: bytes) -> None:
    with pytest.raises(InvalidText, match="the text is UTF-16"):
        decode(raw)


def test_binary_input_is_reported_only_by_its_position() -> None:
    with pytest.raises(InvalidText) as error:
        decode(b"canary\xff")
    assert str(error.value) == "not UTF-8 text: byte 7 is invalid"
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


@given(st.binary())
def test_any_bytes_are_text_or_rejected(raw: bytes) -> None:
    try:
        assert decode(raw).encode() == raw
    except InvalidText:
        assert b"\0" in raw[:4] or raw.decode(errors="replace").encode() != raw
