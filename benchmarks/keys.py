"""The cost of old sealing keys: an operator with one key compared with many.

    PYTHONPATH=tests python benchmarks/keys.py [--older 200]

Each run has its own control plane. There are two runs for each number of keys, in the order one, many, many, one, and
the table shows their means. The values are sealed with the newest key.
"""

from statistics import mean

from support import arguments, environment, say, table
from workload import Restarted, Synced, make_accounts, restart, sync

_EACH = 100


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"older": 200, "count": 5_000, "seconds": 600})
    runs: dict[int, list[list[float]]] = {0: [], it.older: []}
    for older in (0, it.older, it.older, 0):
        say(f"a run with {1 + older} sealing keys")
        runs[older].append(_figures(*measure(older, it.count, it.seconds)))
    one, many = ([mean(column) for column in zip(*runs[older], strict=True)] for older in (0, it.older))
    table(
        f"{it.count:,} AccountSecrets, {_EACH} in each account",
        ("", "1 key", f"{1 + it.older} keys", "ratio"),
        [(name, f"{a:.1f}", f"{b:.1f}", f"{b / a:.2f}") for name, a, b in zip(_NAMES, one, many, strict=True)],
    )


def measure(older: int, count: int, seconds: float) -> tuple[Synced, Restarted]:
    """Sync AccountSecrets on a new cluster with this many older keys, and restart the operator there."""
    with environment(older) as here:
        accounts = make_accounts(here.server, "account", count // _EACH)
        with here.operator() as running:
            synced = sync(here, running, count, accounts, seconds)
            running.component.stop()
        return synced, restart(here, len(accounts), seconds)


_NAMES = (
    "seconds from the first create to the last Ready",
    "CPU seconds meanwhile",
    "peak memory, MiB",
    "restart: seconds until ready",
    "restart: seconds until the queue is empty",
    "restart: CPU seconds until idle",
    "restart: peak memory, MiB",
)


def _figures(synced: Synced, again: Restarted) -> list[float]:
    return [
        synced.seconds,
        synced.cpu_seconds,
        synced.peak_mib,
        again.ready_seconds,
        again.empty_seconds,
        again.cpu_seconds,
        again.peak_mib,
    ]


if __name__ == "__main__":
    main()
