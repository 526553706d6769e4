"""Child processes and folders that don't outlive the run that created them."""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from harness.tools import CACHE

# The kernel sends the parent-death signal when the *thread* that forked exits, so a thread that lives as
# long as the process starts all children.
_LAUNCHER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")
_POLL_SECONDS = 0.1
_LAST_LINES = 20


class ComponentError(Exception):
    """A component exited or didn't become ready; the message contains its last log lines."""

    def __init__(self, name: str, what: str, log: Path) -> None:
        lines = log.read_text(errors="replace").splitlines()[-_LAST_LINES:] if log.exists() else []
        super().__init__("\n".join([f"{name}: {what}; the last lines of {log}:", *lines]))


class Component:
    """A program of the cluster, which can be started and stopped; its log survives restarts.

    `ready` returns whether the program is ready; `name` is the name of the program.
    """

    def __init__(
        self,
        program: Path,
        arguments: Sequence[str],
        folder: Path,
        ready: Callable[[], bool],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = program.name
        self.log = folder / f"{self.name}.log"
        self._command = [str(program), *arguments]
        self._folder = folder
        self._ready = ready
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running process."""
        return self._running().pid

    def is_running(self) -> bool:
        """Return whether it was started and is still running."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program without waiting until it is ready."""
        with self.log.open("ab") as log:
            self._process = _LAUNCHER.submit(
                subprocess.Popen,
                ["setpriv", "--pdeathsig", "KILL", "--", *self._command],
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the parent, which stops its children in order
            ).result()

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until the program is ready; raise ComponentError if it exits or takes too long."""
        deadline = time.monotonic() + timeout
        while not self._ready():
            code = self._running().poll()
            if code is not None or time.monotonic() > deadline:
                what = f"not ready after {timeout:.0f} s" if code is None else f"exited with {code}"
                raise ComponentError(self.name, what, self.log)
            time.sleep(_POLL_SECONDS)

    def stop(self, timeout: float = 30.0) -> int:
        """Stop the program with SIGTERM and return its exit code; kill it after the timeout."""
        self._running().terminate()
        try:
            return self._running().wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._running().wait()

    def kill(self) -> None:
        """Kill the program with SIGKILL, as in a crash; does nothing if it isn't running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Stop the program, start it again and wait until it is ready."""
        self.stop()
        self.start()
        self.wait_ready()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ComponentError(self.name, "not started yet", self.log)
        return self._process


@contextmanager
def workspace() -> Iterator[Path]:
    """Yield a new private folder, removed at the end; those of killed runs are removed first."""
    base = CACHE / "run"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (base / ".lock").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        for leftover in base.glob("*/"):
            _remove_if_free(leftover)
        folder = Path(tempfile.mkdtemp(dir=base))
        # Only this process holds the lock, so the kernel releases it however the process exits.
        held = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _lock(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_if_free(folder: Path) -> None:
    try:
        held = _lock(folder)
    except BlockingIOError:
        return
    shutil.rmtree(folder, ignore_errors=True)
    os.close(held)
