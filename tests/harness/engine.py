"""The container engine: a Docker that runs, or else one of our own from Debian's package; imports only cluster.run."""

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
    """A container engine that answers; `host` is the address of our own one, None for the one the user runs."""

    host: str | None

    @property
    def env(self) -> Mapping[str, str]:
        """The environment in which `docker` and `kind` use this engine."""
        if self.host is None:
            return os.environ
        # The package's own client first: a newer one elsewhere on PATH may refuse to speak to an older server.
        return {**os.environ, "DOCKER_HOST": self.host, "PATH": f"/usr/bin:{os.environ['PATH']}"}

    def docker(self, *arguments: str | Path, stdin: str | None = None, timeout: float | None = None) -> str:
        """Return what a docker command printed."""
        return run("docker", *arguments, env=self.env, stdin=stdin, timeout=timeout)

    def has_image(self, name: str) -> bool:
        """Tell whether the engine holds an image of this name."""
        try:
            self.docker("image", "inspect", name)
        except ClusterError:
            return False
        return True

    def pull(self, image: str) -> bool:
        """Get an image unless the engine holds it; False where its registry cannot be reached."""
        if self.has_image(image):
            return True
        if not self.reaches_registry():
            say(f"{image.partition('@')[0]} cannot be pulled: no registry answers")
            return False
        with step(f"pulling {image}"):
            self.docker("pull", "--quiet", image, timeout=_PULL_SECONDS)
        return True

    def reaches_registry(self) -> bool:
        """Tell whether images can be pulled."""
        return _registry_answers(self)

    def answers(self) -> bool:
        """Tell whether the engine is there."""
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
    """Give an engine, started if none runs; ours stops with its last user, unless a cluster still runs in it."""
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
            if theirs.answers():  # where systemd runs, Debian's package starts its service
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
    """Tell that there is no engine and nothing left of one: then there is nothing to clean up either."""
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
    """Run apt-get; the list of packages is fetched only where it does not know them yet."""
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
            process.returncode = 0  # it outlives this process: Python need not warn that nobody waited for it


def _is_starting() -> bool:
    """Tell whether a killed run's dockerd is on its way; a dead one's note of its pid would hinder the next."""
    if not _PID.exists():
        return False
    command = Path("/proc", _PID.read_text(), "cmdline")  # empty when it has ended and nobody has asked how
    if command.exists() and b"dockerd" in command.read_bytes():
        return True
    _PID.unlink()
    return False


def _launch() -> subprocess.Popen[bytes]:
    firewall.remember(_HOME / "firewall.json")
    config = _HOME / "daemon.json"
    config.write_text(json.dumps(_configuration()))
    with _LOG.open("w") as log:
        # A session of its own: Ctrl-C ends us, and we end it, in that order.
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
    """Return the folder of images and containers: the cache, unless that lies in memory."""
    CACHE.mkdir(parents=True, exist_ok=True)
    kind = run("stat", "--file-system", "--format=%T", CACHE).strip()
    return Path("/var/lib/devbox-secrets-engine") if kind == "tmpfs" else CACHE / "engine"


def has_capability(bit: int) -> bool:
    """Tell whether this process has a capability and may pass it on."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return all(int(fields[name], 16) >> bit & 1 for name in ("CapEff", "CapBnd"))


def _unmount() -> None:
    """Undo the mounts that an engine leaves when it was killed, its images' folder upon itself among them."""
    mounted = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()]
    for path in reversed(mounted):
        if any(path.is_relative_to(ours) for ours in (_HOME, _data_root())):
            run("umount", "--lazy", path)


def _stop() -> None:
    with step("stopping our container engine"):
        # kind leaves its network, and with it a bridge and rules of the firewall.
        _OWN.docker("network", "prune", "--force")
        pid = int(_PID.read_text())
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while _PID.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        firewall.restore(_HOME / "firewall.json")
        _unmount()
        for group in sorted(Path("/sys/fs/cgroup").glob("*/devbox-secrets/**/"), reverse=True):
            with suppress(OSError):  # a container that outlives its engine
                group.rmdir()
