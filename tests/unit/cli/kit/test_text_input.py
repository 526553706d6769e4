"""Text from files: removed byte order marks are reported, and errors name the file."""

from pathlib import Path

import pytest

from devbox_secrets.cli.kit.passphrase_input import read_passphrase
from devbox_secrets.cli.kit.text_input import read_text
from devbox_secrets.errors import InvalidPassphrase, InvalidText


def test_a_byte_order_mark_is_removed_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    path.write_bytes("\ufeff\ufeffone\r\n".encode())
    assert read_text(path) == "\ufeffone\r\n"
    assert capsys.readouterr().err == f"devbox-secrets: removed the byte order mark from the start of {path}\n"


@pytest.mark.parametrize(
    ("raw", "problem"),
    [("one".encode("utf-16"), "the text is UTF-16, which"), (b"one\xff", "not UTF-8 text: byte 4 is invalid")],
)
def test_a_binary_file_is_reported_by_name(tmp_path: Path, raw: bytes, problem: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(raw)
    with pytest.raises(InvalidText) as error:
        read_text(path)
    assert str(error.value).startswith(f"{path}: {problem}")


@pytest.mark.parametrize("raw", [b"correct horse battery\n", "\ufeffcorrect horse battery\r\nnot this".encode()])
def test_a_passphrase_does_not_depend_on_how_its_file_was_saved(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(raw)
    assert read_passphrase(path, new=True).get_secret_value() == b"correct horse battery"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_passphrase_in_utf_16_is_rejected(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes("correct horse battery\r\n".encode(encoding))
    with pytest.raises(InvalidText, match="the text is UTF-16"):
        read_passphrase(path, new=False)


def test_a_binary_passphrase_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(b"correct horse \xff battery\n")
    with pytest.raises(InvalidPassphrase, match="isn't UTF-8 text"):
        read_passphrase(path, new=False)
