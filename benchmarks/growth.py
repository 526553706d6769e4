"""How time and memory grow with the number of AccountSecrets, by default with 100 per account.

    PYTHONPATH=tests python benchmarks/growth.py [--largest 30000] [--each 2]

Each size has its own control plane and operator.
"""

from support import Usage, arguments, environment, table
from workload import Synced, make_accounts, sync

_SIZES = (1_000, 3_000, 10_000, 30_000, 50_000)


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"largest": 10_000, "each": 100, "seconds": 1800})
    sizes = [size for size in _SIZES if size <= it.largest]
    rows = [_row(size, size // it.each, *measure(size, size // it.each, it.seconds)) for size in sizes]
    header = (
        "AccountSecrets",
        "accounts",
        "seconds",
        "per 1,000",
        "CPU s",
        "per 1,000",
        "peak MiB",
        "growth per 1,000",
    )
    table("From the first create to the last Ready, by number", header, rows)


def measure(size: int, accounts: int, seconds: float) -> tuple[Synced, float]:
    """Sync this many on a new cluster, and return the results and the idle operator's peak memory in MiB."""
    with environment() as here:
        names = make_accounts(here.server, "account", accounts)
        with here.operator() as running:
            idle = Usage.of(running.component.pid).peak_mib
            return sync(here, running, size, names, seconds), idle


def _row(size: int, accounts: int, it: Synced, idle: float) -> tuple[str, ...]:
    thousands = size / 1_000
    return (
        f"{size:,}",
        f"{accounts:,}",
        f"{it.seconds:.1f}",
        f"{it.seconds / thousands:.2f}",
        f"{it.cpu_seconds:.1f}",
        f"{it.cpu_seconds / thousands:.2f}",
        f"{it.peak_mib:.0f}",
        f"{(it.peak_mib - idle) / thousands:.1f}",
    )


if __name__ == "__main__":
    main()
