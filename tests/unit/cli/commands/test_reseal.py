"""`devbox-secrets reseal`: files that can't be read or written, files that change in the meantime, and the diff."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretBytes
from typer.testing import CliRunner

from devbox_secrets.cli import app
from devbox_secrets.cli.kit.options import ClusterOptions
from devbox_secrets.cli.resources import sealing_keys
from devbox_secrets.crypto.envelope import KeyPair, Keyring

OLD, NEW = (KeyPair(SecretBytes(bytes([number]) * 32), datetime(2026, number, 1, tzinfo=UTC)) for number in (1, 2))


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @asynccontextmanager
    async def connect(_: ClusterOptions) -> AsyncIterator[None]:
        yield

    async def read(*_: object) -> Keyring:
        return Keyring([OLD, NEW])

    monkeypatch.setattr(ClusterOptions, "connect", connect)
    monkeypatch.setattr(sealing_keys, "read", read)
    monkeypatch.chdir(tmp_path)


TEXT = (
    "apiVersion: devbox-secrets.dev/v1beta1\nkind: AccountSecret\nmetadata: {namespace: team}\n"
    f"spec: {{name: TOKEN, sealed: {OLD.public.seal(SecretBytes(b'x'), account='team', name='TOKEN')}}}\n"
)


@pytest.mark.parametrize("method", ["read_bytes", "replace"])
def test_a_file_that_cannot_be_read_or_written_does_not_affect_others(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.yaml", "b.yaml"):
        Path(name).write_text(TEXT)
    original = getattr(Path, method)

    def fails(path: Path, *args: object) -> object:
        if "a.yaml" in path.name:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *args)

    monkeypatch.setattr(Path, method, fails)
    result = CliRunner().invoke(app, ["reseal", "a.yaml", "b.yaml"], env={"COLUMNS": "200"})
    assert result.exit_code == 3
    rows = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    assert rows[1] == ["a.yaml", "failed", "Permission denied"]
    assert rows[2][0] == "b.yaml:4"
    assert {path.name for path in Path().iterdir()} == {"a.yaml", "b.yaml"}
    assert (Path("a.yaml").stat().st_size, Path("b.yaml").read_text().count(NEW.public.id)) == (len(TEXT), 1)


def reseal(*arguments: str) -> tuple[int, str]:
    """Return the exit code and the output."""
    result = CliRunner().invoke(app, ["reseal", *arguments], env={"COLUMNS": "200"})
    return result.exit_code, result.stdout


def test_a_folder_that_cannot_be_read_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b", ".git"):
        Path(folder).mkdir()
        Path(folder, "token.yaml").write_text(TEXT)
    original = os.scandir

    def fails(path: str) -> object:
        if path == "./a":
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(os, "scandir", fails)
    code, output = reseal("./")
    assert code == 3
    assert [line.split()[0] for line in output.splitlines()[1:]] == ["a", "b/token.yaml:4"]
    assert "Permission denied" in output


def test_a_file_that_changes_in_the_meantime_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("token.yaml").write_text(TEXT)
    original = Keyring.open

    def opens(*args: Any, **kwargs: Any) -> SecretBytes:  # noqa: ANN401 - the original's
        Path("token.yaml").write_text("another\n")
        return original(*args, **kwargs)

    monkeypatch.setattr(Keyring, "open", opens)
    code, output = reseal("token.yaml")
    assert (code, output.splitlines()[1].split(maxsplit=2)) == (
        3, ["token.yaml", "failed", "the file changed in the meantime; run the command again"],
    )  # fmt: skip
    assert [path.read_text() for path in Path().iterdir()] == ["another\n"]


def test_the_diff_shows_a_missing_newline_at_the_end() -> None:
    Path("token.yaml").write_text(TEXT.rstrip())
    code, output = reseal("token.yaml", "--dry-run")
    assert (code, output.count("\n\\ No newline at end of file\n")) == (0, 2)
