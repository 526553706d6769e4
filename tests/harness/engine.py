"""The container engine: a running Docker, or our own from the Debian package."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness import firewall
from harness.run import CACHE, ClusterError, is_locked, lock, run, say, step

BUSYBOX = "busybox:1.37"

_HOME = Path("/run/devbox-secrets-engine")
_SOCKET = _HOME / "docker.sock"
_PID = _HOME / "docker.pid"
_LOG = _HOME / "dockerd.log"
_USERS = _HOME / "users.lock"
_CHANGES = _HOME / "changes.lock"

_CAP_SYS_RESOURCE = 24
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_PULL_SECONDS = 600.0


@dataclass(frozen=True)
class Engine:
    """A container engine that responds; `host` is the address of our own engine, None for the user's engine."""

    host: str | None

    @property
    def env(self) -> Mapping[str, str]:
        """The environment in which `docker` and `kind` use this engine."""
        if self.host is None:
            return os.environ
        # Prefer the package's own client: a newer one in PATH may not support an older server.
        return {**os.environ, "DOCKER_HOST": self.host, "PATH": f"/usr/bin:{os.environ['PATH']}"}

    def docker(self, *arguments: str | Path, stdin: str | None = None, timeout: float | None = None) -> str:
        """Return the output of a docker command."""
        return run("docker", *arguments, env=self.env, stdin=stdin, timeout=timeout)

    def has_image(self, name: str) -> bool:
        """Return whether the engine has an image with this name."""
        try:
            self.docker("image", "inspect", name)
        except ClusterError:
            return False
        return True

    def pull(self, image: str) -> bool:
        """Pull an image unless the engine has it; return False if the registry can't be reached."""
        if self.has_image(image):
            return True
        if not self.reaches_registry():
            say(f"{image.partition('@')[0]} cannot be pulled: no registry answers")
            return False
        with step(f"pulling {image}"):
            self.docker("pull", "--quiet", image, timeout=_PULL_SECONDS)
        return True

    def reaches_registry(self) -> bool:
        """Return whether images can be pulled."""
        return _registry_answers(self)

    def answers(self) -> bool:
        """Return whether the engine responds."""
        try:
            self.docker("version", timeout=15)
        except ClusterError:
            return False
        return True


@cache
def _registry_answers(engine: Engine) -> bool:
    try:
        engine.docker("manifest", "inspect", BUSYBOX, timeout=10)
    except ClusterError:
        return False
    return True


_OWN = Engine(f"unix://{_SOCKET}")


@contextmanager
def engine() -> Iterator[Engine]:
    """Yield an engine, and start our own if none runs; it stops with its last user unless a cluster still runs."""
    theirs = Engine(None)
    if theirs.answers():
        yield theirs
        return
    _require_root()
    _HOME.mkdir(mode=0o700, parents=True, exist_ok=True)
    using = ExitStack()
    with lock(_CHANGES):
        if not _OWN.answers():
            _install()
            if theirs.answers():  # with systemd, the Debian package starts its service
                yield theirs
                return
            _start()
        using.enter_context(lock(_USERS, shared=True))
    try:
        yield _OWN
    finally:
        using.close()
        with lock(_CHANGES):
            if not is_locked(_USERS) and not _OWN.docker("ps", "--quiet").strip():
                _stop()


def is_absent() -> bool:
    """Return whether there is no engine and no remains of one, so that there is nothing to clean up."""
    if Engine(None).answers():
        return False
    return os.geteuid() != 0 or not (_PID.exists() or any((_data_root() / "containers").glob("*")))


def _require_root() -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        message = (
            "no container engine answers (`docker version` fails): start Docker, or set DOCKER_HOST, or run this as "
            "root on Debian, where it installs docker.io and starts one of its own"
        )
        raise ClusterError(message)


def _install() -> None:
    if shutil.which("dockerd") and shutil.which("iptables"):
        return
    with step("installing Debian's docker.io"):
        apt_install("docker.io", "iptables")


def apt_install(*packages: str) -> None:
    """Install Debian packages."""
    apt_get("install", "--yes", "--no-install-recommends", *packages)


def apt_get(*arguments: str, cwd: Path | None = None) -> None:
    """Run apt-get; update the package lists only if a package is unknown."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "--quiet", *arguments]
    try:
        run(*command, env=env, cwd=cwd)
    except ClusterError:
        run("apt-get", "update", "--quiet", env=env)
        run(*command, env=env, cwd=cwd)


def _start() -> None:
    with step("starting a container engine of our own"):
        process = None if _is_starting() else _launch()
        deadline = time.monotonic() + _START_SECONDS
        while not _OWN.answers():
            if time.monotonic() > deadline or (process is not None and process.poll() is not None):
                tail = "\n".join(_LOG.read_text().splitlines()[-15:])
                message = f"dockerd does not start; the end of {_LOG}:\n{tail}"
                raise ClusterError(message)
            time.sleep(0.1)
        if process is not None:
            process.returncode = 0  # it outlives this process, so suppress Python's warning about an unreaped child


def _is_starting() -> bool:
    """Return whether a dockerd of a killed run is still running; a stale pid file would prevent the next start."""
    if not _PID.exists():
        return False
    command = Path("/proc", _PID.read_text(), "cmdline")  # empty for a zombie process
    if command.exists() and b"dockerd" in command.read_bytes():
        return True
    _PID.unlink()
    return False


def _launch() -> subprocess.Popen[bytes]:
    firewall.remember(_HOME / "firewall.json")
    config = _HOME / "daemon.json"
    config.write_text(json.dumps(_configuration()))
    with _LOG.open("w") as log:
        # A separate session: Ctrl-C stops this process, which then stops the engine.
        return subprocess.Popen(["dockerd", "--config-file", config], stdout=log, stderr=log, start_new_session=True)


def _configuration() -> dict[str, object]:
    data = _data_root()
    data.mkdir(parents=True, exist_ok=True)
    configuration: dict[str, object] = {
        "data-root": str(data),
        "exec-root": str(_HOME / "exec"),
        "pidfile": str(_PID),
        "hosts": [_OWN.host],
        "cgroup-parent": "/devbox-secrets",
        "shutdown-timeout": 5,
    }
    if not has_capability(_CAP_SYS_RESOURCE):
        say("this machine lacks CAP_SYS_RESOURCE: containers run without it")
        wrapper = _HOME / "runtime"
        program = Path(__file__).with_name("runtime.py")
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -IS {shlex.quote(str(program))} "$@"\n')
        wrapper.chmod(0o755)
        configuration["runtimes"] = {"devbox-secrets": {"path": str(wrapper)}}
        configuration["default-runtime"] = "devbox-secrets"
    return configuration


def _data_root() -> Path:
    """Return the folder of images and containers: the cache, unless it is in memory."""
    CACHE.mkdir(parents=True, exist_ok=True)
    kind = run("stat", "--file-system", "--format=%T", CACHE).strip()
    return Path("/var/lib/devbox-secrets-engine") if kind == "tmpfs" else CACHE / "engine"


def has_capability(bit: int) -> bool:
    """Return whether this process has a capability and can pass it on."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return all(int(fields[name], 16) >> bit & 1 for name in ("CapEff", "CapBnd"))


def _unmount() -> None:
    """Unmount what a killed engine left mounted, including the bind mount of its image folder."""
    mounted = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()]
    for path in reversed(mounted):
        if any(path.is_relative_to(ours) for ours in (_HOME, _data_root())):
            run("umount", "--lazy", path)


def _stop() -> None:
    with step("stopping our container engine"):
        # kind leaves its network, including a bridge and firewall rules.
        _OWN.docker("network", "prune", "--force")
        pid = int(_PID.read_text())
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while _PID.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        firewall.restore(_HOME / "firewall.json")
        _unmount()
        for group in sorted(Path("/sys/fs/cgroup").glob("*/devbox-secrets/**/"), reverse=True):
            with suppress(OSError):  # a container that outlived its engine
                group.rmdir()
