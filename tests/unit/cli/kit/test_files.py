"""Replacing and creating files, completely or not at all."""

import os
from pathlib import Path

import pytest

from devbox_secrets.cli.kit.files import create_file, replace_file
from devbox_secrets.errors import Conflict


def test_a_replaced_file_keeps_its_mode_its_owner_and_its_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"before")
    file.chmod(0o451)
    link.symlink_to(file)
    owners = []
    monkeypatch.setattr(os, "chown", lambda _, *owner: owners.append(owner))
    original = Path.stat
    fake = os.stat_result((0o100451, 0, 0, 1, 1234, 1235, 6, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda path, **kw: fake if path == file else original(path, **kw))
    replace_file(link, b"after", before=b"before")
    monkeypatch.undo()
    assert (file.read_bytes(), file.stat().st_mode & 0o7777, link.is_symlink()) == (b"after", 0o451, True)
    assert owners == [(1234, 1235)]


def test_a_file_that_changed_in_the_meantime_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"another")
    with pytest.raises(Conflict, match="the file changed in the meantime; run the command again"):
        replace_file(file, b"after", before=b"before")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"another"]


def test_a_full_disk_is_reported_with_the_file_name_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        create_file(tmp_path / "new", b"content")
    assert (caught.value.filename, list(tmp_path.iterdir())) == (str(tmp_path / "new"), [])


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"mine"
