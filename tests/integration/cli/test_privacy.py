"""The commands don't reveal a value in their process, output or files."""

import array
import fcntl
import os
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import until
from integration.support.processes import COMMAND, Operator

CANARY = b"canary-in-the-cage"
#: The commands that take a value, each with a function that returns its input.
COMMANDS: dict[str, tuple[list[str], Callable[[bytes], bytes]]] = {
    "seal": (["seal", "TOKEN"], lambda value: value),
    "seal --apply": (["seal", "TOKEN", "--apply", "--force-conflicts"], lambda value: value),
    "seal -o raw": (["seal", "TOKEN", "-o", "raw"], lambda value: value),
    "update": (["update", "TOKEN", "--force-conflicts"], lambda value: value),
    "import": (["import", "-", "--force-conflicts"], lambda value: b"TOKEN=" + value),
    "import --apply": (["import", "-", "--apply", "--force-conflicts"], lambda value: b"TOKEN=" + value),
    "import --output-dir": (["import", "-", "--output-dir", "out"], lambda value: b"TOKEN=" + value),
}


@pytest.fixture
def account(controlplane: ControlPlane, namespace: str, running: Operator) -> Account:
    it = Account.of(controlplane, namespace)
    it.put("TOKEN", b"before")
    return it


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of all files that a command could write: its home, working directory and temporary files."""
    (tmp_path / "tmp").mkdir()
    return tmp_path


def environment(account: Account, home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "KUBECONFIG": str(account.controlplane.kubeconfig),
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        **{f"XDG_{kind}_HOME": str(home / kind) for kind in ("CACHE", "CONFIG", "DATA", "STATE")},
    }


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_value_is_not_visible_during_or_after_a_command(account: Account, home: Path, name: str) -> None:
    arguments, written = COMMANDS[name]
    with subprocess.Popen(
        [COMMAND, *arguments, "-n", account.name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=home, env=environment(account, home),
    ) as process:  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(written(CANARY))
        process.stdin.flush()
        waiting = array.array("i", [1])

        def has_it() -> bool:
            assert process.stdin is not None
            fcntl.ioctl(process.stdin, termios.FIONREAD, waiting)
            return waiting[0] == 0

        until("the command has read the value", has_it)
        about = Path("/proc") / str(process.pid)
        seen = [(about / kind).read_bytes() for kind in ("cmdline", "environ", "comm")]
        seen += process.communicate(timeout=60)
    assert process.returncode == 0, seen[-1]
    assert b"devbox-secrets" in seen[0], "/proc was read after the command had exited"
    seen += [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert all(CANARY not in text for text in seen)


def test_a_rejected_value_is_not_shown(account: Account, home: Path) -> None:
    for arguments in (["seal", "TOKEN", "--apply"], ["update", "TOKEN"], ["import", "-", "--apply"]):
        for value in (CANARY + b"\0", CANARY + b"\xff", CANARY * 10_000):
            done = subprocess.run(
                [COMMAND, *arguments, "-n", account.name], input=b"TOKEN=" * (arguments[0] == "import") + value,
                capture_output=True, cwd=home, env=environment(account, home), check=False,
            )  # fmt: skip
            assert done.returncode in {1, 3}
            assert CANARY not in done.stdout + done.stderr
            assert b"Traceback" not in done.stderr
    assert all(CANARY not in path.read_bytes() for path in home.rglob("*") if path.is_file())
