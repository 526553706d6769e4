"""What a restart costs on a cluster where nothing changed: time, memory, and no write at all.

PYTHONPATH=tests python benchmarks/restart.py
"""

import time

from harness import (
    QUEUE_DEPTH,
    RECONCILED,
    SECRET_WRITES,
    STATUS_WRITES,
    Usage,
    arguments,
    ground,
    say,
    table,
    wait,
    wait_idle,
)
from workload import make_accounts, sync


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"count": 10_000, "accounts": 100, "seconds": 600})
    with ground() as here:
        accounts = make_accounts(here.server, "account", it.accounts)
        with here.operator() as first:
            result = sync(here, first, it.count, accounts, it.seconds)
            first.component.stop()
        say("restarting the operator")
        start = time.perf_counter()
        with here.operator() as second:
            ready = time.perf_counter() - start
            wait(
                "the queue is empty",
                it.seconds,
                lambda: second.metric(RECONCILED) >= it.accounts and not second.metric(QUEUE_DEPTH),
            )
            empty = time.perf_counter() - start
            wait_idle(second.component.pid, it.seconds)
            usage = Usage.of(second.component.pid)
            writes = second.metric(SECRET_WRITES) + second.metric(STATUS_WRITES)
    table(
        f"A restart at {it.count:,} AccountSecrets in {it.accounts} accounts",
        ("", "restarted", "while syncing them"),
        [
            ("seconds until ready", f"{ready:.1f}", ""),
            ("seconds until the queue is empty", f"{empty:.1f}", f"{result.seconds:.1f}"),
            ("CPU seconds until idle", f"{usage.cpu_seconds:.1f}", f"{result.cpu_seconds:.1f}"),
            ("writes", f"{writes:.0f}", f"{result.secret_writes + it.count:.0f}"),
            ("peak memory, MiB", f"{usage.peak_mib:.0f}", f"{result.peak_mib:.0f}"),
        ],
    )


if __name__ == "__main__":
    main()
