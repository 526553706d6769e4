"""The time until an applied value is in the account Secret, with and without other load.

    PYTHONPATH=tests python benchmarks/latency.py

A client applies values in sequence in an account with 100 AccountSecrets, and watches the account Secret. The clock
starts when the request is sent. Another process generates the load.
"""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count, islice, takewhile
from multiprocessing import get_context

from pydantic import SecretBytes

from devbox_secrets.api.manifest import manifest
from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.api.names import ACCOUNT_SECRET
from devbox_secrets.crypto.envelope import PublicKey
from integration.support.chart import Json
from integration.support.processes import Operator
from support import (
    APPLY,
    SYNCED,
    Client,
    Request,
    Server,
    Usage,
    arguments,
    environment,
    milliseconds,
    say,
    table,
    wait,
    wait_idle,
)
from workload import creates, make_accounts, path, send_all, sync, variables

_EACH = 100
_SECONDS_BETWEEN = 0.1
_LONGEST_SECONDS = 60.0


@dataclass(frozen=True)
class Apply:
    """An applied value, and how to recognize it in the account Secret."""

    variable: str
    value: bytes
    request: Request


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"applies": 200, "count": 10_000, "accounts": 100, "seconds": 600})
    with environment() as here:
        accounts = make_accounts(here.server, "account", it.accounts)
        (account,) = make_accounts(here.server, "probe", 1)
        with here.operator() as running:
            sync(here, running, _EACH, [account], it.seconds)
            pid = running.component.pid
            wait_idle(pid, it.seconds)
            say(f"applying {it.applies} values on an idle cluster")
            values = applies(here.key.public, account)
            idle = asyncio.run(measure(here.server, account, islice(values, it.applies), lambda: True))
            before = Usage.of(pid)
            say(f"applying values while {it.count:,} are synced")
            load = creates(here.key.public, accounts, it.count // it.accounts)
            busy = measure_under_load(here.server, running, load, account, values)
            after = Usage.of(pid)
    header = ("other load", "applies", "p50 ms", "p99 ms", "max ms", "peak memory, MiB")
    rows = [
        ("none", f"{len(idle)}", *milliseconds(idle), f"{before.peak_mib:.0f}"),
        (f"{it.count:,} values being synced", f"{len(busy)}", *milliseconds(busy), f"{after.peak_mib:.0f}"),
    ]
    table(f"From one apply in an account of {_EACH} to its account Secret", header, rows)


def applies(key: PublicKey, account: str) -> Iterator[Apply]:
    """Yield different values for one variable of an account."""
    names = variables(_EACH)
    for number in count():
        variable, value = names[number % _EACH], f"value {number}".encode()
        sealed = key.seal(SecretBytes(value), account=account, name=variable)
        body = manifest(account, AccountSecretSpec(name=variable, sealed=sealed))
        where = path(account, body["metadata"]["name"]) + "?fieldManager=benchmark&force=true"
        yield Apply(variable, value, Request("PATCH", where, json.dumps(body).encode(), APPLY))


async def measure(
    server: Server, account: str, values: Iterable[Apply], should_continue: Callable[[], bool]
) -> list[float]:
    """Apply values in sequence, wait for each in the account Secret, and return the durations in seconds."""
    times: list[float] = []
    async with Client.connect(server) as client, asyncio.TaskGroup() as group:
        secrets = client.watch(
            f"/api/v1/namespaces/{account}/secrets?watch=1&fieldSelector=metadata.name={ACCOUNT_SECRET}"
        )
        await anext(secrets)
        for it in takewhile(lambda _: should_continue(), values):
            start = time.perf_counter()
            group.create_task(client.send(it.request))
            async with asyncio.timeout(_LONGEST_SECONDS):
                while not _has_value(await anext(secrets), it):
                    pass
            times.append(time.perf_counter() - start)
            await asyncio.sleep(_SECONDS_BETWEEN)
    return times


def measure_under_load(
    server: Server, running: Operator, load: Sequence[Request], account: str, values: Iterable[Apply]
) -> list[float]:
    """Measure while another process creates AccountSecrets, until all of those are Ready."""
    total = running.metric(SYNCED) + len(load)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        creating = pool.submit(send_all, server, load)
        wait("the load has started", _LONGEST_SECONDS, lambda: running.metric(SYNCED) > total - len(load))
        should_continue = lambda: not creating.done() or running.metric(SYNCED) < total  # noqa: E731
        times = asyncio.run(measure(server, account, values, should_continue))
        creating.result()
    return times


def _has_value(secret: Json, it: Apply) -> bool:
    return base64.b64decode(secret["data"].get(it.variable, "")) == it.value


if __name__ == "__main__":
    main()
