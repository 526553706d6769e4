"""A program at a terminal of its own, in which a test reads and types."""

import os
import pty
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_SECONDS = 30
# Makes the terminal the process's own, and Ctrl-C heard: a shell that runs the tests in the background has it ignored.
_LEADING = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """The program at a terminal of its own; its standard output goes elsewhere."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self.shown = b""
        self._answered = 0
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LEADING, *command],
            stdin=slave, stdout=subprocess.PIPE, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)

    def answer(self, prompt: bytes, typed: bytes) -> None:
        # Its last space comes when the terminal doesn't echo any more.
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
        except OSError:  # Linux's way to say that no one has the other end open
            return False
        self.shown += more
        return more != b""
