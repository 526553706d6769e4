"""The time that injection adds to the creation of a pod, by the policy and by the webhook.

    PYTHONPATH=tests python benchmarks/pods.py

Three API servers run side by side: without the chart, with the chart, and with the chart but without the policy API, so
that it calls one replica of the webhook. The same devboxes and other pods are created on all of them in turns, one at a
time and as a dry run, which is everything except the write to etcd.
"""

import asyncio
import json
import time
from contextlib import AsyncExitStack

from harness.controlplane import ControlPlane
from integration.support.chart import DEVBOX, container, pod
from integration.support.webhook import without_policy
from support import Client, Request, Server, Usage, arguments, environment, milliseconds, say, server, table

_PATH = "/api/v1/namespaces/default/pods?dryRun=All"
_WARM_UP = 200
_PODS = {"devbox": DEVBOX, "other pod": {"app": "other"}}


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"count": 2_000})
    with (
        environment() as here,
        ControlPlane.start() as bare,
        without_policy(log_level="INFO", certificate_refresh_seconds="10") as fallback,
    ):
        controlplanes = {"no chart": bare, "policy": here.controlplane, "webhook": fallback.controlplane}
        say(f"creating {it.count:,} pods of each kind")
        before = Usage.of(fallback.webhook.component.pid).cpu_seconds
        times = asyncio.run(measure({name: server(each) for name, each in controlplanes.items()}, it.count))
        peaks = {name: Usage.of(each.apiserver.pid).peak_mib for name, each in controlplanes.items()}
        webhook = Usage.of(fallback.webhook.component.pid)
    rows = []
    for kind in _PODS:
        least = milliseconds(times["no chart", kind])
        for name in controlplanes:
            p50, p99, _ = figures = milliseconds(times[name, kind])
            added = [f"{float(with_it) - float(without):+.1f}" for with_it, without in zip(figures, least, strict=True)]
            rows.append((f"{kind}, {name}", p50, p99, *added[:2], f"{peaks[name]:.0f}"))
    header = ("", "p50", "p99", "added: p50", "p99", "API server's peak, MiB")
    table(f"Creation of a pod, milliseconds, {it.count:,} of each", header, rows)
    each = (webhook.cpu_seconds - before) / (_WARM_UP + it.count)
    print(f"The webhook used {each * 1e3:.1f} ms of CPU for each devbox, and {webhook.peak_mib:.0f} MiB of memory.\n")


async def measure(servers: dict[str, Server], count: int) -> dict[tuple[str, str], list[float]]:
    """Create each kind of pod on each server in turns, and return the seconds for each."""
    requests = {kind: _request(labels) for kind, labels in _PODS.items()}
    cells = [(server, kind) for kind in requests for server in servers]
    times: dict[tuple[str, str], list[float]] = {cell: [] for cell in cells}
    async with AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(Client.connect(to)) for name, to in servers.items()}
        for number in range(_WARM_UP + count):
            # The order rotates, so that the effects of the previous one are the same for all.
            for cell in cells[number % len(cells) :] + cells[: number % len(cells)]:
                start = time.perf_counter()
                await clients[cell[0]].send(requests[cell[1]])
                times[cell].append(time.perf_counter() - start)
    return {cell: all_of_it[_WARM_UP:] for cell, all_of_it in times.items()}


def _request(labels: dict[str, str]) -> Request:
    return Request("POST", _PATH, json.dumps(pod({"containers": [container("a")]}, labels)).encode())


if __name__ == "__main__":
    main()
