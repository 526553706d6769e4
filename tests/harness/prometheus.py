"""Prometheus and promtool, from PATH or from the Debian package."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from harness.components import reserved_port
from harness.engine import apt_get
from harness.process import Component
from harness.run import CACHE, ClusterError, lock, run, step

Json = dict[str, Any]
_FOLDER = CACHE / "prometheus"


@cache
def program(name: str) -> Path:
    """Return the path of prometheus or promtool."""
    if found := shutil.which(name):
        return Path(found)
    if shutil.which("apt-get") is None:
        raise ClusterError(f"{name}: not found on PATH; install Prometheus")
    tree = _FOLDER / "tree"
    with lock(_FOLDER / ".lock"):
        if not tree.exists():
            with step("downloading Debian's package prometheus (once)"):
                _unpack("prometheus", tree)
    return tree / "usr" / "bin" / name


def _unpack(package: str, target: Path) -> None:
    """Unpack a Debian package without installing it, which would start its server."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        apt_get("download", package, cwd=Path(folder))
        (archive,) = Path(folder).glob("*.deb")
        run("dpkg-deb", "--extract", archive, Path(folder, "tree"))
        Path(folder, "tree").rename(target)


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - any JSON value
        """Return the data of a response of its API.

        Raises:
            AssertionError: the request failed; the message contains the reason.
        """
        answer: Json = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, trust_env=False).json()
        assert answer["status"] == "success", answer["error"]
        return answer["data"]

    def query(self, expression: str) -> list[Json]:
        """Return the current series of an expression."""
        found: list[Json] = self.get("query", query=expression)["result"]
        return found


@contextmanager
def prometheus(folder: Path, config: Json) -> Iterator[Prometheus]:
    """Run a server with a configuration."""
    (folder / "prometheus.json").write_text(json.dumps(config))
    with reserved_port() as port:
        pass  # the port is free again, so that the server can bind it
    url = f"http://127.0.0.1:{port}"
    arguments = [
        "--config.file=prometheus.json",
        "--storage.tsdb.path=data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    server = Component(program("prometheus"), arguments, folder, lambda: _is_ready(url))
    server.start()
    try:
        server.wait_ready()
        yield Prometheus(url)
    finally:
        server.stop()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False
