"""The operator's peak memory with objects of the maximum size.

    PYTHONPATH=tests python benchmarks/memory.py [--count 5000] [--namespaces 100]

It measures two clusters in sequence: an account with many AccountSecrets of the maximum size, most of which don't fit
in its Secret; and an account with 1 MiB of values in many namespaces.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence

from pydantic import SecretBytes

from devbox_secrets.api.manifest import manifest
from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.api.names import ACCOUNT_LABEL
from devbox_secrets.api.validation import SECRET_MAX_BYTES, VARIABLE_MAX_BYTES
from devbox_secrets.crypto.envelope import PublicKey
from support import Client, Environment, Request, arguments, environment, say, table
from workload import Restarted, make_accounts, path, restart, variables

#: 172 kB when sealed.
_VALUE_BYTES = VARIABLE_MAX_BYTES - 32
_ACCOUNT = "account-0"
_AT_ONCE = 50


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"count": 5_000, "namespaces": 100, "seconds": 1800})
    rows = [
        _row(f"{it.count:,} AccountSecrets of 172 kB", *measure(it.count, 0, it.seconds)),
        _row(f"1 MiB in {it.namespaces} namespaces", *measure(_full_account(), it.namespaces, it.seconds)),
    ]
    header = ("", "first start: s", "peak MiB", "restart: ready s", "queue empty s", "peak MiB", "writes")
    table("The operator with objects of the maximum size", header, rows)


def _full_account() -> int:
    return SECRET_MAX_BYTES // _VALUE_BYTES


def measure(count: int, members: int, seconds: float) -> tuple[Restarted, Restarted]:
    """Fill an account while no operator runs, start the operator, and restart it when it is done."""
    with environment() as here:
        make_accounts(here.server, "account", 1)
        boxes = make_accounts(here.server, "box", members)
        for box in boxes:
            here.controlplane.kubectl("label", "namespace", box, f"{ACCOUNT_LABEL}={_ACCOUNT}")
        say(f"creating {count:,} AccountSecrets of 172 kB")
        asyncio.run(_create(here, count))
        return restart(here, 1, seconds), restart(here, 1, seconds)


async def _create(here: Environment, count: int) -> None:
    async with Client.connect(here.server) as client:
        names = variables(count)
        for first in range(0, count, _AT_ONCE):  # all requests at the same time would need a gigabyte in this process
            await client.send_all(list(_creates(here.key.public, names[first : first + _AT_ONCE])))


def _creates(key: PublicKey, names: Sequence[str]) -> Iterator[Request]:
    for name in names:
        sealed = key.seal(SecretBytes(b"x" * _VALUE_BYTES), account=_ACCOUNT, name=name)
        body = manifest(_ACCOUNT, AccountSecretSpec(name=name, sealed=sealed))
        yield Request("POST", path(_ACCOUNT), json.dumps(body).encode())


def _row(what: str, first: Restarted, again: Restarted) -> tuple[str, ...]:
    return (
        what,
        f"{first.empty_seconds:.1f}",
        f"{first.peak_mib:.0f}",
        f"{again.ready_seconds:.1f}",
        f"{again.empty_seconds:.1f}",
        f"{again.peak_mib:.0f}",
        f"{again.writes:.0f}",
    )


if __name__ == "__main__":
    main()
