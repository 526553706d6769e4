"""Accounts with many AccountSecrets, as requests that are created before the clock starts."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import SecretBytes

from devbox_secrets.api.manifest import manifest
from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.api.names import GROUP, PLURAL, VERSION
from devbox_secrets.crypto.envelope import PublicKey
from integration.support.processes import Operator
from support import (
    PENDING,
    QUEUE_DEPTH,
    RECONCILED,
    SECRET_WRITES,
    STATUS_WRITES,
    SYNCED,
    BenchmarkError,
    Client,
    Environment,
    Request,
    Server,
    Usage,
    say,
    wait,
    wait_idle,
)

#: The length of a typical token.
VALUE = b"github_pat_0123456789abcdefghijklmnopqrstuvwxyz"
_PAGE = 500


@dataclass(frozen=True)
class Synced:
    """The results of syncing AccountSecrets, from the first create to the last Ready."""

    create_seconds: float
    seconds: float
    cpu_seconds: float
    peak_mib: float
    secret_writes: float


@dataclass(frozen=True)
class Restarted:
    """The results of starting the operator on a cluster with AccountSecrets."""

    ready_seconds: float
    empty_seconds: float
    """Until every account was reconciled."""
    cpu_seconds: float
    peak_mib: float
    writes: float


def path(account: str, name: str = "", group: str = GROUP) -> str:
    """Return the URL path of an account's AccountSecrets, or of one of them."""
    collection = f"/apis/{group}/{VERSION}/namespaces/{account}/{PLURAL}"
    return f"{collection}/{name}" if name else collection


def variables(count: int) -> list[str]:
    """Return the names of an account's variables."""
    return [f"VARIABLE_{number}" for number in range(count)]


def creates(key: PublicKey, accounts: Sequence[str], each: int, group: str = GROUP) -> list[Request]:
    """Return the requests that create AccountSecrets, with those of one account spread out."""
    return list(_creates(key, accounts, each, group))


def _creates(key: PublicKey, accounts: Sequence[str], each: int, group: str) -> Iterator[Request]:
    for variable in variables(each):
        for account in accounts:
            sealed = key.seal(SecretBytes(VALUE), account=account, name=variable)
            body = manifest(account, AccountSecretSpec(name=variable, sealed=sealed))
            body["apiVersion"] = f"{group}/{VERSION}"
            yield Request("POST", path(account, group=group), json.dumps(body).encode())


def make_accounts(server: Server, prefix: str, count: int) -> list[str]:
    """Create namespaces, and wait until the cluster's own controllers are done with them."""
    names = [f"{prefix}-{number}" for number in range(count)]
    bodies = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]
    send_all(server, [Request("POST", "/api/v1/namespaces", json.dumps(body).encode()) for body in bodies])
    # Its controllers are limited to some 20 requests per second.
    wait("every namespace is set up", 60 + count / 5, lambda: asyncio.run(_set_up(server)) >= set(names))
    return names


async def _set_up(server: Server) -> set[str]:
    """Return the namespaces that already have their default service account and ConfigMap."""
    async with Client.connect(server) as client:
        lists = [(await client.get(f"/api/v1/{kind}"))["items"] for kind in ("serviceaccounts", "configmaps")]
    accounts, configs = ({item["metadata"]["namespace"] for item in items} for items in lists)
    return accounts & configs


def send_all(server: Server, requests: Sequence[Request]) -> float:
    """Send requests as fast as the API server accepts them, and return the duration in seconds."""
    return asyncio.run(_send_all(server, requests))


async def _send_all(server: Server, requests: Sequence[Request]) -> float:
    async with Client.connect(server) as client:
        start = time.perf_counter()
        await client.send_all(requests)
        return time.perf_counter() - start


def sync(environment: Environment, it: Operator, count: int, accounts: Sequence[str], seconds: float) -> Synced:
    """Create AccountSecrets while the operator runs, and wait until all are Ready."""
    say(f"sealing {count:,} values")
    requests = creates(environment.key.public, accounts, count // len(accounts))
    before = Usage.of(it.component.pid)
    say(f"creating {len(requests):,} AccountSecrets in {len(accounts)} accounts")
    start = time.perf_counter()
    created = send_all(environment.server, requests)
    wait("every AccountSecret is Ready", seconds, lambda: it.metric(SYNCED) >= len(requests))
    took = time.perf_counter() - start
    after = Usage.of(it.component.pid)
    ready = asyncio.run(_count_ready(environment.server))
    if ready != len(requests):
        raise BenchmarkError(f"the operator counts {len(requests):,} that are Ready, the API server {ready:,}")
    cpu = after.cpu_seconds - before.cpu_seconds
    return Synced(created, took, cpu, after.peak_mib, it.metric(SECRET_WRITES))


def restart(environment: Environment, accounts: int, seconds: float, **settings: str) -> Restarted:
    """Start the operator, and wait until everything is reconciled and it is idle."""
    say("restarting the operator")
    start = time.perf_counter()
    with environment.operator(**settings) as it:
        ready = time.perf_counter() - start
        wait(
            "the queue is empty",
            seconds,
            lambda: it.metric(RECONCILED) >= accounts and not it.metric(QUEUE_DEPTH) and not it.metric(PENDING),
        )
        empty = time.perf_counter() - start
        wait_idle(it.component.pid, seconds)
        usage = Usage.of(it.component.pid)
        writes = it.metric(SECRET_WRITES) + it.metric(STATUS_WRITES)
    return Restarted(ready, empty, usage.cpu_seconds, usage.peak_mib, writes)


async def _count_ready(server: Server) -> int:
    count: int = 0
    more = ""
    async with Client.connect(server) as client:
        while True:
            page = await client.get(f"/apis/{GROUP}/{VERSION}/{PLURAL}?limit={_PAGE}&continue={more}")
            conditions = [c for item in page["items"] for c in item.get("status", {}).get("conditions", [])]
            count += sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
            more = page["metadata"].get("continue", "")
            if not more:
                return count
