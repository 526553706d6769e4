"""A program in its own terminal, in which a test reads and types."""

import os
import pty
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_SECONDS = 30
# Set the controlling terminal and enable Ctrl-C, which is ignored if a shell runs the tests in the background.
_LEADING = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A program in its own terminal; its standard output is a pipe."""

    def __init__(
        self, command: Sequence[str | Path], folder: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self.shown = b""
        self._answered = 0
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LEADING, *command],
            stdin=slave, stdout=subprocess.PIPE, stderr=slave, start_new_session=True, cwd=folder, env=env,
        )  # fmt: skip
        os.close(slave)

    def answer(self, prompt: bytes, typed: bytes) -> None:
        # The prompt's last space appears when the terminal no longer echoes.
        while prompt + b": " not in self.shown[self._answered :]:
            assert self._read(), self.shown
        self._answered = len(self.shown)
        while typed:
            typed = typed[os.write(self._master, typed) :]

    def end(self) -> tuple[int, bytes]:
        stdout, _ = self._process.communicate(timeout=_SECONDS)
        while self._read():
            pass
        return self._process.returncode, stdout

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        os.close(self._master)

    def _read(self) -> bool:
        try:
            assert select.select([self._master], [], [], _SECONDS)[0], self.shown
            more = os.read(self._master, 4096)
        except OSError:  # Linux's error if the other end is closed
            return False
        self.shown += more
        return more != b""
