"""How long a key rotation takes to reach the gateway's values, and its effect on others in the meantime.

    PYTHONPATH=tests python benchmarks/reseal.py

A client applies values in sequence in an account with 100 AccountSecrets, as in latency.py: first on an idle cluster,
then while the operator reseals all values, which look like values from the gateway, with a new key.
"""

import asyncio
import time
from dataclasses import replace
from itertools import islice

from devbox_secrets.api.names import GATEWAY_FIELD_MANAGER
from integration.support.processes import Operator
from integration.support.sealing_keys import rotate
from latency import applies, measure
from support import SECRET_WRITES, SYNCED, Usage, arguments, environment, milliseconds, say, table, wait, wait_idle
from workload import creates, make_accounts, restart, send_all, sync

_EACH = 100


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"applies": 200, "count": 10_000, "accounts": 100, "seconds": 900})
    settings = {"reseal_gateway_values": "true"}
    with environment(0, "--set=gateway.enabled=true") as here:
        accounts = make_accounts(here.server, "account", it.accounts)
        (account,) = make_accounts(here.server, "probe", 1)
        with here.operator(**settings) as running:
            sync(here, running, _EACH, [account], it.seconds)
            say(f"creating {it.count:,} values")
            requests = creates(here.key.public, accounts, it.count // it.accounts)
            send_all(
                here.server,
                [replace(each, path=f"{each.path}?fieldManager={GATEWAY_FIELD_MANAGER}") for each in requests],
            )
            wait("all are Ready", it.seconds, lambda: running.metric(SYNCED) >= it.count + _EACH, every=1)
            pid = running.component.pid
            wait_idle(pid, it.seconds)
            values = applies(here.key.public, account)
            say(f"applying {it.applies} values on an idle cluster")
            idle = asyncio.run(measure(here.server, account, islice(values, it.applies), lambda: True))
            written, before, start = running.metric(SECRET_WRITES), Usage.of(pid), time.perf_counter()
            say("rotating, and applying values meanwhile")
            rotate(here.controlplane)
            busy = asyncio.run(measure(here.server, account, values, lambda: _resealed(running) < it.count))
            took, after = time.perf_counter() - start, Usage.of(pid)
            written = running.metric(SECRET_WRITES) - written - len(busy)
            running.component.stop()
        again = restart(here, it.accounts, it.seconds, **settings)
    header = ("other load", "applies", "p50 ms", "p99 ms", "max ms", "peak memory, MiB")
    rows = [
        ("none", f"{len(idle)}", *milliseconds(idle), f"{before.peak_mib:.0f}"),
        (f"{it.count:,} values being resealed", f"{len(busy)}", *milliseconds(busy), f"{after.peak_mib:.0f}"),
    ]
    table(f"From one apply in an account of {_EACH} to its account Secret", header, rows)
    cpu = after.cpu_seconds - before.cpu_seconds
    print(f"All values were resealed {took:.0f} s after the request for a new key, with {cpu:.0f} s of CPU.")
    print(f"Additional writes of account Secrets: {written:.0f}; writes by a restart afterwards: {again.writes:.0f}.")


def _resealed(running: Operator) -> float:
    return running.metric('devbox_secrets_reseals_total{outcome="resealed"}')


if __name__ == "__main__":
    main()
