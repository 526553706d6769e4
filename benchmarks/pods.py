"""What the injection policy adds to the creation of a pod: of a devbox, and of any other pod.

    PYTHONPATH=tests python benchmarks/pods.py

Two API servers run side by side, one with the chart and one without; the same pods are created on
both in turns, one at a time and as a dry run, which is everything but the write to etcd.
"""

import asyncio
import json
import time
from contextlib import AsyncExitStack

from apiserver.chart import DEVBOX, container, pod
from cluster.controlplane import ControlPlane
from harness import Client, Request, Server, Usage, arguments, ground, milliseconds, say, server, table

_PATH = "/api/v1/namespaces/default/pods?dryRun=All"
_WARM_UP = 200
_PODS = {"devbox": DEVBOX, "other pod": {"app": "other"}}


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"count": 2_000})
    with ground() as here, ControlPlane.start() as bare:
        say(f"creating {it.count:,} pods of each kind")
        servers = {"policy": here.server, "none": server(bare)}
        times = asyncio.run(measure(servers, it.count))
        pids = {"policy": here.controlplane.apiserver.pid, "none": bare.apiserver.pid}
        peaks = {name: f"{Usage.of(pid).peak_mib:.0f}" for name, pid in pids.items()}
    figures = {cell: milliseconds(all_of_it) for cell, all_of_it in times.items()}
    rows = []
    for kind in _PODS:
        without, with_it = figures["none", kind], figures["policy", kind]
        added = (f"{float(b) - float(a):+.2f}" for a, b in zip(without[:2], with_it[:2], strict=True))
        rows.append((kind, *without[:2], *with_it[:2], *added))
    rows.append(("API server's peak memory, MiB", peaks["none"], "", peaks["policy"], "", "", ""))
    header = ("", "without: p50", "p99", "with: p50", "p99", "added: p50", "p99")
    table(f"Creation of a pod, milliseconds, {it.count:,} of each", header, rows)


async def measure(servers: dict[str, Server], count: int) -> dict[tuple[str, str], list[float]]:
    """Create every kind of pod on every server in turns; give the seconds of each."""
    requests = {kind: _request(labels) for kind, labels in _PODS.items()}
    cells = [(server, kind) for kind in requests for server in servers]
    times: dict[tuple[str, str], list[float]] = {cell: [] for cell in cells}
    async with AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(Client.connect(to)) for name, to in servers.items()}
        for number in range(_WARM_UP + count):
            # Each in turn is the first, the second …: what the one before leaves behind hits all alike.
            for cell in cells[number % len(cells) :] + cells[: number % len(cells)]:
                start = time.perf_counter()
                await clients[cell[0]].send(requests[cell[1]])
                times[cell].append(time.perf_counter() - start)
    return {cell: all_of_it[_WARM_UP:] for cell, all_of_it in times.items()}


def _request(labels: dict[str, str]) -> Request:
    return Request("POST", _PATH, json.dumps(pod({"containers": [container("a")]}, labels)).encode())


if __name__ == "__main__":
    main()
