"""Runs programs, reports how long steps take, and holds locks that are released when their holder exits."""

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.tools import CACHE

__all__ = ["CACHE", "ClusterError", "is_locked", "lock", "run", "say", "step"]

_STARTED = time.monotonic()
_LINES_OF_A_FAILURE = 25


class ClusterError(Exception):
    """A requirement of the cluster is missing or failed; the message says what to do next."""


def say(text: str) -> None:
    """Print one line of progress with the seconds since the program started."""
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print the start of a step and how many seconds it took."""
    say(f"{title} …")
    started = time.monotonic()
    yield
    say(f"{title}: {time.monotonic() - started:.1f} s")


def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> str:
    """Return a program's standard output.

    Raises:
        ClusterError: it failed or took longer than `timeout` seconds; the message ends with its last lines.
    """
    words = [str(word) for word in command]
    shown = " ".join([*words[:6], "…"] if words[6:] else words)
    try:
        done = subprocess.run(
            words, env=env, cwd=cwd, input=stdin, timeout=timeout, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        message = f"{words[0]}: not found on PATH; install it"
        raise ClusterError(message) from None
    except subprocess.TimeoutExpired:
        message = f"{shown}: no answer after {timeout:.0f} s"
        raise ClusterError(message) from None
    if done.returncode:
        tail = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-_LINES_OF_A_FAILURE:])
        message = f"{shown} failed with exit code {done.returncode}:\n{tail}"
        raise ClusterError(message)
    return done.stdout


@contextmanager
def lock(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait for a lock and hold it; the kernel releases it even when the holder is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run to release {path} …")
            fcntl.flock(file, kind)
        yield


def is_locked(path: Path) -> bool:
    """Return whether a running process holds the lock."""
    if not path.exists():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
