"""The throughput of one gateway process, compared with the API server's for the same objects and token.

    PYTHONPATH=tests python benchmarks/gateway.py

A separate process keeps a constant number of requests in flight. Each call of the gateway is compared with the
equivalent request to the API server: creating, updating and reading the same object; for lists, the table that the
gateway requests (20 items) and the whole objects (all items). After the creations, an operator runs until everything is
synced, because the gateway reads fewer fields of objects with a status.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path

import aiohttp
from pydantic import SecretBytes

from devbox_secrets.api.manifest import manifest, object_names
from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.crypto.envelope import PublicKey
from devbox_secrets.gateway.backend.record import creation_annotations
from devbox_secrets.gateway.backend.upstream import TABLE
from integration.support.gateway import bind, gateway, new_account, publish_key, token
from support import MERGE, BenchmarkError, Request, Usage, arguments, environment, milliseconds, say, table
from workload import VALUE, path, restart, variables

_IN_FLIGHT = 16
_PAGE = 20
_SYNC_SECONDS = 120


@dataclass(frozen=True)
class Target:
    """A server and a user; can be passed to another process."""

    url: str
    token: str = field(repr=False)
    ca: Path | None = None


@dataclass(frozen=True)
class Call:
    """Requests to the gateway, and the equivalent requests to the API server."""

    name: str
    ours: Sequence[Request]
    theirs: Sequence[Request]
    headers: Mapping[str, str] = field(default_factory=dict)
    """The headers of each request to the API server."""
    once: bool = False
    """Whether a request can be sent only once."""


@dataclass(frozen=True)
class Measured:
    """The duration of each request, and of all together."""

    times: list[float]
    seconds: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.times) / self.seconds


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"secrets": 1_000, "seconds": 5})
    with environment() as here, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        publish_key(here.controlplane)
        account, other = new_account(here.controlplane), new_account(here.controlplane)
        bind(here.controlplane, other, f"{account}:editor", "edit")
        key = token(here.controlplane, account)
        api = Target(here.controlplane.url, key, here.controlplane.folder / "ca.crt")
        rows = []
        with gateway(here.controlplane, log_level="INFO") as running:
            for call in calls(here.key.public, account, other, it.secrets):
                say(call.name)
                seconds = None if call.once else it.seconds
                before = Usage.of(running.component.pid)
                ours = pool.submit(load, Target(running.url, key), call.ours, {}, seconds).result()
                after = Usage.of(running.component.pid)
                theirs = pool.submit(load, api, call.theirs, call.headers, seconds).result()
                cpu = (after.cpu_seconds - before.cpu_seconds) / len(ours.times)
                if call.once:
                    restart(here, 2, _SYNC_SECONDS)  # as in a cluster, where created objects have a status
                rows.append(
                    (
                        call.name,
                        *figures(ours),
                        f"{cpu * 1e3:.1f}",
                        f"{after.peak_mib:.0f}",
                        *figures(theirs),
                        f"{ours.rate / theirs.rate:.0%}",
                    )
                )
    header = ("", "per second", "p50 ms", "p99 ms", "CPU ms", "MiB", "API server", "p50 ms", "p99 ms", "share")
    table(f"One gateway, compared with the API server, {_IN_FLIGHT} requests in flight", header, rows)


def calls(key: PublicKey, account: str, other: str, count: int) -> Iterator[Call]:
    """Yield the calls, for an account that the first of them fills."""
    names = variables(count)
    own = [path(account, object_names(name)[0]) for name in names]
    value = {"value": VALUE.decode()}
    yield Call(
        "create",
        [_post("/v1/secrets", {"name": name, **value}) for name in names],
        [_post(path(other), _object(key, other, name)) for name in names],
        once=True,
    )
    yield Call(
        "update",
        [_post(f"/v1/secrets/{name}", value) for name in names],
        # Every value is different, or nothing would be written.
        [
            Request("PATCH", at, json.dumps({"spec": _object(key, account, name)["spec"]}).encode(), MERGE)
            for _ in range(3)
            for at, name in zip(own, names, strict=True)
        ],
    )
    yield Call("get", [Request("GET", f"/v1/secrets/{name}") for name in names], [Request("GET", at) for at in own])
    metadata = Request("GET", f"{path(account)}?includeObject=Metadata")
    as_table = {"Accept": TABLE, "Accept-Encoding": "identity"}
    few, all_of_them = (Request("GET", f"/v1/secrets?limit={limit}") for limit in (_PAGE, count))
    yield Call(f"list {_PAGE} of {count:,}; their metadata", [few], [metadata], as_table)
    yield Call(f"list {count:,} of {count:,}; their objects", [all_of_them], [Request("GET", path(account))])


def load(to: Target, requests: Sequence[Request], headers: Mapping[str, str], seconds: float | None) -> Measured:
    """Send requests with this concurrency, once each or repeatedly for some seconds."""
    return asyncio.run(_load(to, requests, headers, seconds))


async def _load(to: Target, requests: Sequence[Request], headers: Mapping[str, str], seconds: float | None) -> Measured:
    times: list[float] = []
    waiting = iter(requests) if seconds is None else cycle(requests)
    context = ssl.create_default_context(cafile=to.ca) if to.ca else True
    start = time.perf_counter()
    async with aiohttp.ClientSession(
        to.url,
        connector=aiohttp.TCPConnector(limit=_IN_FLIGHT, ssl=context),
        headers={"Authorization": f"Bearer {to.token}", **headers},
    ) as session:

        async def sender() -> None:
            for request in waiting:
                begun = time.perf_counter()
                if seconds is not None and begun - start > seconds:
                    return
                await _send(session, request)
                times.append(time.perf_counter() - begun)

        async with asyncio.TaskGroup() as group:
            for _ in range(_IN_FLIGHT):
                group.create_task(sender())
    return Measured(times, time.perf_counter() - start)


async def _send(session: aiohttp.ClientSession, request: Request) -> None:
    headers = {"Content-Type": request.media_type}
    async with session.request(request.method, request.path, data=request.body or None, headers=headers) as answer:
        await answer.read()
        if not answer.ok:
            raise BenchmarkError(f"{request.method} {request.path}: {answer.status}")


def figures(it: Measured) -> tuple[str, str, str]:
    """Return the rate, p50 and p99 for the table."""
    return (f"{it.rate:.0f}", *milliseconds(it.times)[:2])


def _post(where: str, body: object) -> Request:
    return Request("POST", where, json.dumps(body).encode())


def _object(key: PublicKey, account: str, variable: str) -> dict[str, object]:
    sealed = key.seal(SecretBytes(VALUE), account=account, name=variable)
    body = manifest(account, AccountSecretSpec(name=variable, sealed=sealed))
    body["metadata"]["annotations"] = creation_annotations(time.time_ns() // 1_000_000, None)
    return body


if __name__ == "__main__":
    main()
