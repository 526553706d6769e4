"""What all benchmarks use: a control plane with the chart, a plain client, and tables.

Everything runs on one machine and shares its cores, so only the ratios within a run are meaningful.
"""

import argparse
import asyncio
import base64
import json
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path

import aiohttp

from devbox_secrets.crypto.envelope import KeyPair
from harness.components import write_private
from harness.controlplane import ControlPlane
from harness.table import lines
from integration.support.chart import NAMESPACE, Json, install
from integration.support.processes import Operator, operator

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
SYNCED = 'devbox_secrets_accountsecrets{reason="Synced"}'
PENDING = 'devbox_secrets_accountsecrets{reason="Pending"}'
SECRET_WRITES = 'devbox_secrets_writes_total{resource="secret"}'  # noqa: S105 - a metric's name
STATUS_WRITES = 'devbox_secrets_writes_total{resource="status"}'
QUEUE_DEPTH = "devbox_secrets_workqueue_depth"
RECONCILED = "devbox_secrets_reconcile_duration_seconds_count"

TABLES = "DEVBOX_SECRETS_BENCHMARK_TABLES"

_CONNECTIONS = 32
_POLL_SECONDS = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """A benchmark didn't finish; the message says where it stopped."""


@dataclass(frozen=True)
class Request:
    """A request, created before the clock starts."""

    method: str
    path: str
    body: bytes = b""
    media_type: str = "application/json"


@dataclass(frozen=True)
class Server:
    """An API server's address and its administrator's credentials; can be passed to another process."""

    url: str
    ca: Path
    certificate: Path


@dataclass(frozen=True)
class Environment:
    """A control plane with the chart installed, and the sealing key of its operator."""

    controlplane: ControlPlane
    key: KeyPair

    @property
    def server(self) -> Server:
        """The API server's address and credentials, for a plain client."""
        return server(self.controlplane)

    @contextmanager
    def operator(self, folder: str = "", **settings: str) -> Iterator[Operator]:
        """Run the operator with its default settings unless others are given; a second one needs a folder."""
        usual = {"log_level": "INFO", "keys_refresh_seconds": "15"}
        with operator(self.controlplane, self.controlplane.folder / folder, **usual | settings) as it:
            yield it


class Client:
    """A minimal client, so that its rate is the API server's own rate."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    @classmethod
    @asynccontextmanager
    async def connect(cls, to: Server) -> AsyncIterator["Client"]:
        """Connect with a bounded number of connections."""
        context = ssl.create_default_context(cafile=to.ca)
        context.load_cert_chain(to.certificate)
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=context)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield cls(session, to.url)

    async def send(self, request: Request) -> bytes:
        """Send a request and return the response's body."""
        async with self._session.request(
            request.method,
            self._url + request.path,
            data=request.body or None,
            headers={"Content-Type": request.media_type},
        ) as answer:
            body = await answer.read()
            if not answer.ok:
                raise BenchmarkError(f"{request.method} {request.path}: {answer.status} {body.decode()}")
            return body

    async def send_all(self, requests: Sequence[Request]) -> list[bytes]:
        """Send requests in order, as fast as the API server accepts them, and return the responses."""
        answers = [b""] * len(requests)
        waiting = iter(enumerate(requests))

        async def sender() -> None:
            for number, request in waiting:
                answers[number] = await self.send(request)

        async with asyncio.TaskGroup() as group:
            for _ in range(_CONNECTIONS):
                group.create_task(sender())
        return answers

    async def get(self, path: str) -> Json:
        """Return the object at a path."""
        found: Json = json.loads(await self.send(Request("GET", path)))
        return found

    async def watch(self, path: str) -> AsyncIterator[Json]:
        """Yield the objects of a watch's events."""
        async with self._session.get(self._url + path, timeout=aiohttp.ClientTimeout(), read_bufsize=1 << 24) as events:
            async for line in events.content:
                found: Json = json.loads(line)["object"]
                yield found


@contextmanager
def environment(older_keys: int = 0, *values: str) -> Iterator[Environment]:
    """Start a control plane with the chart, and a key so that values can be sealed immediately.

    `values` are arguments for the chart, such as --set.
    """
    say("starting a control plane")
    with ControlPlane.start() as controlplane:
        install(controlplane, *values)
        now = datetime.now(UTC)
        keys = [KeyPair.generate(now - timedelta(days=number)) for number in range(1 + older_keys)]
        key = keys[0]
        data = {each.public.id: base64.b64encode(each.dump()).decode() for each in keys}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "devbox-secrets-keys"}, "data": data}
        create = ("create", f"--namespace={NAMESPACE}", "--filename=-")
        controlplane.kubectl(*create, input=json.dumps(secret))
        yield Environment(controlplane, key)


def server(controlplane: ControlPlane) -> Server:
    """Return the address and credentials of a control plane's API server."""
    pair = controlplane.authority.client("benchmark", "system:masters")
    path = write_private(controlplane.folder / "benchmark.pem", pair.certificate + pair.key)
    return Server(controlplane.url, controlplane.folder / "ca.crt", path)


@dataclass(frozen=True)
class Usage:
    """The resource usage of a process so far."""

    cpu_seconds: float
    peak_mib: float

    @classmethod
    def of(cls, pid: int) -> "Usage":
        """Read the usage from /proc (proc(5): utime and stime; VmHWM)."""
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]
        return cls((int(stat[11]) + int(stat[12])) / _TICKS, int(peak) / 1024)


def wait(awaited: str, seconds: float, ask: Callable[[], bool], every: float = _POLL_SECONDS) -> None:
    """Poll until `ask` returns true.

    Raises:
        BenchmarkError: it took longer than the timeout.
    """
    deadline = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"waited {seconds:.0f} s, but not: {awaited}")
        time.sleep(every)


def wait_idle(pid: int, seconds: float) -> None:
    """Wait until a process is idle for a second."""
    history = [Usage.of(pid).cpu_seconds]

    def idle() -> bool:
        history.append(Usage.of(pid).cpu_seconds)
        second = history[-round(1 / _POLL_SECONDS) :]
        return len(second) * _POLL_SECONDS >= 1 and second[-1] - second[0] <= 0.05  # noqa: PLR2004 - 5 %

    wait(f"process {pid} is idle", seconds, idle)


def milliseconds(times: Sequence[float]) -> tuple[str, str, str]:
    """Return the p50, p99 and maximum of durations in seconds, for a table."""
    if not times:
        raise BenchmarkError("nothing was measured; try larger sizes")
    ordered = sorted(times)
    quantiles = (ordered[ceil(len(times) * part) - 1] for part in (0.50, 0.99, 1))
    p50, p99, longest = (f"{seconds * 1e3:.1f}" for seconds in quantiles)
    return p50, p99, longest


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a benchmark's table: the first column is text, the others are numbers.

    If the environment variable TABLES names a file, the title, the header and the rows are written there as JSON.
    """
    if file := os.environ.get(TABLES):
        Path(file).write_text(json.dumps([[title], header, *rows]))
    rule = ["-" * max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print("", title, *lines([header, rule, *rows]), "", sep="\n", flush=True)


def say(what: str) -> None:
    """Print progress on stderr."""
    print(f"{Path(sys.argv[0]).stem}: {what} …", file=sys.stderr, flush=True)


def arguments(text: str | None, sizes: Mapping[str, int]) -> argparse.Namespace:
    """Parse a benchmark's sizes from the command line: --NAME NUMBER, each with a default."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default:,}")
    return parser.parse_args()
