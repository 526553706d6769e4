"""`devbox-secrets keys` without a cluster: the backup file, its passphrase, and imported modules."""

import os
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretBytes

from devbox_secrets.cli.kit.passphrase_input import read_passphrase, write_new
from devbox_secrets.crypto.backup import Backup, passphrase_from
from devbox_secrets.crypto.envelope import KeyPair
from devbox_secrets.errors import InvalidPassphrase
from harness.terminal import Terminal
from unit.cli.program import PROGRAM, run

KEY = KeyPair(SecretBytes(b"s" * 32), datetime(2026, 1, 1, tzinfo=UTC))
PASSPHRASE = "canary horse battery staple"  # noqa: S105 - only for tests


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    path = tmp_path / "backup"
    path.write_text(Backup.encrypt([KEY], passphrase_from(PASSPHRASE), KEY.created).dump())
    return path


def test_help_of_keys_imports_no_slow_modules() -> None:
    blocked = ["cryptography", "aiohttp", "asyncio", "yaml"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "from devbox_secrets.cli.commands import keys; sys.argv[0] = 'keys'; keys.commands()"
    )
    result = run(sys.executable, "-c", code, "--help")
    assert result.returncode == 0, result.stderr
    for command in (b"list", b"rotate", b"backup", b"restore", b"prune"):
        assert command in result.stdout


def test_a_wrong_passphrase_is_reported_before_the_cluster_is_contacted(backup: Path) -> None:
    terminal = Terminal([PROGRAM, "keys", "restore", str(backup)])
    terminal.answer(b"Backup passphrase", b"canary horse battery stable\n")
    code, stdout = terminal.end()
    terminal.close()
    assert (code, stdout) == (1, b"")
    assert b"the passphrase is wrong, or the file is damaged\r\n" in terminal.shown
    assert b"canary" not in terminal.shown
    assert b"Traceback" not in terminal.shown


def test_without_a_terminal_the_message_names_the_option(backup: Path) -> None:
    for command in (["restore", str(backup)], ["restore", "-"]):
        result = run(PROGRAM, "keys", *command, given=backup.read_bytes())
        assert (result.returncode, result.stdout) == (1, b"")
        assert result.stderr == (
            b"devbox-secrets: stdin is not a terminal; pass the passphrase with --passphrase-file\n"
        )


@pytest.mark.parametrize(
    "content", [b"canary horse", b"canary horse\n", b"canary horse\r\n", b"canary horse\nand the rest\n"]
)
def test_a_passphrase_is_the_first_line_of_its_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(content)
    assert read_passphrase(path, new=True) == passphrase_from("canary horse")


def test_a_binary_passphrase_file_is_rejected_without_quoting_it(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(b"canary\xff horse\n")
    with pytest.raises(InvalidPassphrase) as caught:
        read_passphrase(path, new=False)
    assert str(caught.value) == "the passphrase isn't UTF-8 text"
    assert caught.value.__suppress_context__


def test_a_new_file_is_only_readable_by_its_owner_with_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_new(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "file").read_text() == "text"


def test_existing_files_and_links_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "file").write_text("before")
    for name in ("link", "file", "."):
        with pytest.raises(FileExistsError, match="already exists; remove it first, or choose another name"):
            write_new(tmp_path / name, "text")
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / "file").read_text() == "before"


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_new(tmp_path / "file", "more than ten bytes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "file").exists()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_a_passphrase_is_in_no_argument_and_no_environment_variable(backup: Path, tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    os.mkfifo(passphrase)
    command = [PROGRAM, "keys", "restore", str(backup), f"--passphrase-file={passphrase}", "--context=nowhere"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        with passphrase.open("w") as pipe:  # opens once the command reads
            shown = [(Path("/proc") / str(process.pid) / name).read_bytes() for name in ("cmdline", "environ")]
            pipe.write(f"{PASSPHRASE}\n")
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"there is no context nowhere" in stderr
    assert all(b"canary" not in text for text in (*shown, stdout, stderr))
