"""`devbox-secrets reseal` where a file can't be read or written: the others are resealed, and it's listed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

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


@pytest.mark.parametrize("method", ["read_bytes", "replace"])
def test_a_file_that_can_not_be_read_or_written_holds_back_no_other(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "apiVersion: devbox-secrets.dev/v1alpha1\nkind: AccountSecret\nmetadata: {namespace: team}\n"
        f"spec: {{name: TOKEN, sealed: {OLD.public.seal(SecretBytes(b'x'), account='team', name='TOKEN')}}}\n"
    )
    for name in ("a.yaml", "b.yaml"):
        Path(name).write_text(text)
    original = getattr(Path, method)

    def fails(path: Path, *args: object) -> object:
        if "a.yaml" in path.name:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *args)

    monkeypatch.setattr(Path, method, fails)
    result = CliRunner().invoke(app, ["reseal", "a.yaml", "b.yaml"], env={"COLUMNS": "200"})
    assert result.exit_code == 3
    rows = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    assert rows[1] == ["a.yaml", "refused", "Permission denied"]
    assert rows[2][0] == "b.yaml:4"
    assert {path.name for path in Path().iterdir()} == {"a.yaml", "b.yaml"}
    assert (Path("a.yaml").stat().st_size, Path("b.yaml").read_text().count(NEW.public.id)) == (len(text), 1)
