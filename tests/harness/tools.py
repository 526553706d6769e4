"""The cluster's programs, built with Go at the versions that tools/*/go.mod pin.

`python -m harness.tools [NAME…]` builds them in advance and prints their paths.

With DEVBOX_SECRETS_TOOLS=path, kind, kubectl and helm are taken from PATH if all three exist.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "devbox-secrets"
KUBERNETES = os.environ.get("DEVBOX_SECRETS_KUBERNETES", "1.37")

_PINS = Path(__file__).with_name("tools")
_HEARTBEAT_SECONDS = 30.0
_USERS = ("kind", "kubectl", "helm")
_MINUTES = {"kube-apiserver": 5, "syft": 5, "kube-controller-manager": 2, "coredns": 2, "agent-sandbox-controller": 2}


class ToolError(Exception):
    """A program couldn't be built; the message says what to do."""


@dataclass(frozen=True)
class Tool:
    """A program: its Go package, the package's module, and the folder that pins the module."""

    name: str
    package: str
    module: str
    version: str
    folder: Path

    @property
    def linker_flags(self) -> str:
        """Strip symbols, and set the version for Kubernetes components, because they compare versions."""
        flags = "-s -w"
        if self.module == "k8s.io/kubernetes":
            major, minor, _ = self.version.removeprefix("v").split(".", 2)
            for field, value in (("Version", self.version), ("Major", major), ("Minor", minor)):
                flags += f" -X k8s.io/component-base/version.git{field}={value}"
        return flags


def _main_module(folder: Path) -> str:
    """Return the module that go.mod requires directly."""
    (module,) = re.findall(r"^require (\S+) v", (folder / "go.mod").read_text(), re.MULTILINE)
    return str(module)


def _pinned(folder: Path) -> Iterator[Tool]:
    pins = (folder / "go.mod").read_text()
    requires = dict(re.findall(r"^(?:require |\t)(\S+) (v\S+)", pins, re.MULTILINE))
    if any(folder.glob("*.go")):  # our own program, which wraps a single module
        module = _main_module(folder)
        yield Tool(folder.name, ".", module, requires[module], folder)
    for package in re.findall(r"^(?:tool |\t)([^\s(]+)$", pins, re.MULTILINE):
        module = max((m for m in requires if f"{package}/".startswith(f"{m}/")), key=len)
        name = re.sub(r"/v\d+$", "", package).rsplit("/", 1)[-1]
        # Some main packages have the name of a folder in their module.
        name = folder.name if name in {"cmd", "controller", "server"} else name
        yield Tool(name, package, module, requires[module], folder)


def _all_tools() -> Mapping[str, Tool]:
    folders = sorted(path.parent for path in _PINS.glob("*/go.mod"))
    choices = [f.name.removeprefix("kubernetes-") for f in folders if f.name.startswith("kubernetes-")]
    if KUBERNETES not in choices:
        raise ToolError(f"DEVBOX_SECRETS_KUBERNETES={KUBERNETES}: not pinned; choose from {', '.join(choices)}")
    skipped = {f"kubernetes-{choice}" for choice in choices if choice != KUBERNETES}
    return MappingProxyType({t.name: t for f in folders if f.name not in skipped for t in _pinned(f)})


TOOLS = _all_tools()
KUBERNETES_VERSION = TOOLS["kubectl"].version
"""The Kubernetes release of this run, such as v1.37.2."""


def version(name: str) -> str:
    """Return the pinned version of a program, such as v1.37.2."""
    return _find(name).version


def source(name: str) -> Path:
    """Return the folder of the program's module in Go's module cache, downloaded if need be."""
    it = _find(name)
    return _downloaded(it.folder, it.module)


def files(pin: str) -> Path:
    """Return the folder of a module in Go's module cache; `pin` is the folder whose go.mod requires it."""
    folder = _PINS / pin
    return _downloaded(folder, _main_module(folder))


def _downloaded(folder: Path, module: str) -> Path:
    return Path(json.loads(_go(folder, "mod", "download", "-json", module))["Dir"])


@cache
def users() -> dict[str, Path]:
    """Return the user's own programs if they should be used, otherwise an empty dict, so that all are built."""
    found = {name: Path(path) for name in _USERS if (path := shutil.which(name))}
    wanted = os.environ.get("DEVBOX_SECRETS_TOOLS") == "path"
    return found if wanted and len(found) == len(_USERS) else {}


@cache
def tool(name: str) -> Path:
    """Return the path of a program: the user's own, or ours, which is built on first use."""
    return users().get(name) or tools(name)[name]


def tools(*names: str) -> dict[str, Path]:
    """Return the paths of several programs; missing ones are built in sequence.

    A single Go build uses all cores, and parallel builds would compile shared packages twice.
    """
    paths = {name: _binary(_find(name)) for name in names}
    missing = [name for name, path in paths.items() if not path.exists()]
    for number, name in enumerate(missing, 1):
        _build(_find(name), paths[name], f"{number}/{len(missing)} " if len(missing) > 1 else "")
    return paths


def _find(name: str) -> Tool:
    try:
        return TOOLS[name]
    except KeyError:
        raise ToolError(f"{name}: no such program; tools/*/go.mod pin {', '.join(sorted(TOOLS))}") from None


def _environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}


@cache
def _go_program() -> str:
    if path := shutil.which("go"):
        return path
    raise ToolError(
        "go: not found on PATH, and the cluster's programs are built with it; install Go from https://go.dev/dl"
    )


def _go(folder: Path, *arguments: str) -> str:
    command = [_go_program(), *arguments]
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise _failure(f"go {' '.join(arguments)} in {folder}", done.stderr or done.stdout)
    return done.stdout


def _failure(what: str, output: str) -> ToolError:
    hint = "; install that Go, or set GOTOOLCHAIN=auto" if "requires go >=" in output else ""
    return ToolError(f"{what} failed: {output.strip()}{hint}")


@cache
def _key(folder: Path) -> str:
    # Run in the folder, so that Go uses the toolchain that its go.mod selects.
    environment: dict[str, Any] = json.loads(_go(folder, "env", "-json", "GOVERSION", "GOOS", "GOARCH"))
    digest = hashlib.sha256(json.dumps(environment, sort_keys=True).encode())
    for path in (folder / "go.mod", folder / "go.sum", *sorted(folder.glob("*.go"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _binary(it: Tool) -> Path:
    return CACHE / "tools" / f"{it.folder.name}-{_key(it.folder)}" / it.name


@contextmanager
def _exclusive() -> Iterator[int]:
    """Hold the lock for all builds, and yield its descriptor."""
    path = CACHE / "tools" / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another process that builds the cluster's programs …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _build(it: Tool, target: Path, progress: str) -> None:
    with _exclusive() as lock:
        if target.exists():
            return
        minutes = _MINUTES.get(it.name, 1)
        estimate = f"about {minutes} minutes" if minutes > 1 else "a minute or less"
        _say(f"{progress}building {it.name} {it.version} ({estimate}, once) …")
        started = time.monotonic()
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{it.name}.part")
        _compile(it, part, lock, started)
        part.replace(target)
        _say(f"… {time.monotonic() - started:.0f} s")


def _compile(it: Tool, part: Path, lock: int, started: float) -> None:
    options = ["-v", "-trimpath", "-buildvcs=false", f"-ldflags={it.linker_flags}", f"-o={part}"]
    tail = deque[str](maxlen=20)
    spoken = started
    # The compiler inherits the lock, so that no other process writes the file if only this process is killed.
    with subprocess.Popen(
        [_go_program(), "build", *options, it.package],
        cwd=it.folder,
        env=_environment(),
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[lock],
    ) as process:
        assert process.stderr is not None
        for packages, line in enumerate(process.stderr, 1):
            tail.append(line)
            if (now := time.monotonic()) - spoken > _HEARTBEAT_SECONDS:
                spoken = now
                _say(f"… {packages} packages compiled, {now - started:.0f} s")
    if process.returncode:
        raise _failure(f"building {it.name} {it.version}", "".join(tail))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Build the programs in the arguments, or all."""
    try:
        for path in tools(*(sys.argv[1:] or TOOLS)).values():
            print(path)
    except ToolError as error:
        _say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
