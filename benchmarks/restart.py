"""The cost of a restart on an unchanged cluster: time, memory, and no writes.

PYTHONPATH=tests python benchmarks/restart.py
"""

from support import arguments, environment, table
from workload import make_accounts, restart, sync


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"count": 10_000, "accounts": 100, "seconds": 600})
    with environment() as here:
        accounts = make_accounts(here.server, "account", it.accounts)
        with here.operator() as first:
            result = sync(here, first, it.count, accounts, it.seconds)
            first.component.stop()
        again = restart(here, it.accounts, it.seconds)
    table(
        f"A restart at {it.count:,} AccountSecrets in {it.accounts} accounts",
        ("", "restart", "first sync"),
        [
            ("seconds until ready", f"{again.ready_seconds:.1f}", ""),
            ("seconds until the queue is empty", f"{again.empty_seconds:.1f}", f"{result.seconds:.1f}"),
            ("CPU seconds until idle", f"{again.cpu_seconds:.1f}", f"{result.cpu_seconds:.1f}"),
            ("writes", f"{again.writes:.0f}", f"{result.secret_writes + it.count:.0f}"),
            ("peak memory, MiB", f"{again.peak_mib:.0f}", f"{result.peak_mib:.0f}"),
        ],
    )


if __name__ == "__main__":
    main()
