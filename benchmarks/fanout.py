"""How fast a changed value reaches all namespaces of a large account, and how this affects other accounts.

    PYTHONPATH=tests python benchmarks/fanout.py [--namespaces 5000]

The floor is a plain client that applies a Secret of the same size in each of the same namespaces.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from pydantic import SecretBytes

from devbox_secrets.api.manifest import manifest
from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.api.names import ACCOUNT_LABEL
from integration.support.chart import Json
from latency import Apply, applies, measure
from support import (
    APPLY,
    MERGE,
    BenchmarkError,
    Client,
    Environment,
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
from workload import make_accounts, path, send_all, sync

_VARIABLE = "TOKEN"
_PROBE_SECRETS = 100


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"namespaces": 1_000, "seconds": 1800})
    with environment() as here:
        (home,), (probe,) = (make_accounts(here.server, name, 1) for name in ("home", "probe"))
        members = make_accounts(here.server, "member", it.namespaces)
        say(f"the floor: {it.namespaces:,} Secrets applied by a plain client")
        send_all(here.server, list(_secrets(members, b"before")))
        alone = send_all(here.server, list(_secrets(members, b"after")))
        send_all(here.server, list(_labels(members, home)))
        with here.operator() as running:
            pid = running.component.pid
            sync(here, running, _PROBE_SECRETS, [probe], it.seconds)
            send_all(here.server, [_apply(here, home, b"before")])
            wait("every namespace has the first value", it.seconds, lambda: _is_reported(here, home), every=0.5)
            wait_idle(pid, it.seconds)
            before = Usage.of(pid)
            say(f"one value changes in {it.namespaces:,} namespaces")
            values = applies(here.key.public, probe)
            seconds, times = asyncio.run(_change(here.server, home, _apply(here, home, b"after"), probe, values))
            after = Usage.of(pid)
    p50, p99, longest = milliseconds(times)
    table(
        f"One value changed in an account of {it.namespaces:,} namespaces",
        ("", "seconds", "per second"),
        [
            ("floor: a plain client's applies", f"{alone:.1f}", f"{it.namespaces / alone:.0f}"),
            ("operator", f"{seconds:.1f}", f"{it.namespaces / seconds:.0f}"),
            ("share of the floor's rate", "", f"{alone / seconds:.0%}"),
            ("operator's CPU", f"{after.cpu_seconds - before.cpu_seconds:.1f}", ""),
            ("operator's peak memory, MiB", "", f"{after.peak_mib:.0f}"),
            (f"another account's {len(times)} applies: p50 ms", "", p50),
            ("p99 ms", "", p99),
            ("max ms", "", longest),
        ],
    )


async def _change(
    server: Server, home: str, apply: Request, probe: str, values: Iterable[Apply]
) -> tuple[float, list[float]]:
    """Change a value, and apply others in another account meanwhile; return the durations in seconds."""
    async with Client.connect(server) as client, asyncio.TaskGroup() as group:
        watch = client.watch(f"{path(home)}?watch=1")
        await anext(watch)
        start = time.perf_counter()
        reported = group.create_task(_reported(watch, start))
        await client.send(apply)
        times = await measure(server, probe, values, lambda: not reported.done())
    return reported.result(), times


async def _reported(watch: AsyncIterator[Json], start: float) -> float:
    """Wait until the status reports a changed value, which is after the last Secret; return the seconds since start."""
    changed = False
    async for found in watch:
        is_current = _is_current(found)
        if changed and is_current:
            return time.perf_counter() - start
        changed |= not is_current
    raise BenchmarkError("the API server ended the watch")


def _apply(here: Environment, account: str, value: bytes) -> Request:
    sealed = here.key.public.seal(SecretBytes(value), account=account, name=_VARIABLE)
    body = manifest(account, AccountSecretSpec(name=_VARIABLE, sealed=sealed))
    where = f"{path(account, body['metadata']['name'])}?fieldManager=benchmark"
    return Request("PATCH", where, json.dumps(body).encode(), APPLY)


def _is_reported(here: Environment, account: str) -> bool:
    (found,) = (here.controlplane.read(path(account)) or {})["items"]
    return _is_current(found)


def _is_current(found: Json) -> bool:
    return bool(found["status"]["observedGeneration"] == found["metadata"]["generation"])


def _secrets(namespaces: Sequence[str], value: bytes) -> Iterator[Request]:
    """Yield requests that apply a Secret like the operator's, with another name."""
    metadata = {"name": "floor", "labels": {"app": "floor"}}
    data = {_VARIABLE: base64.b64encode(value).decode()}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}
    for namespace in namespaces:
        where = f"/api/v1/namespaces/{namespace}/secrets/floor?fieldManager=benchmark&force=true"
        yield Request("PATCH", where, json.dumps(body).encode(), APPLY)


def _labels(namespaces: Sequence[str], account: str) -> Iterator[Request]:
    body = json.dumps({"metadata": {"labels": {ACCOUNT_LABEL: account}}}).encode()
    for namespace in namespaces:
        yield Request("PATCH", f"/api/v1/namespaces/{namespace}", body, MERGE)


if __name__ == "__main__":
    main()
