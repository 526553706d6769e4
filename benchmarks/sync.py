"""How fast AccountSecrets become Ready, compared with the API server's own rate, the floor.

    PYTHONPATH=tests python benchmarks/sync.py

The floor is the same writes by a plain client: the same number of objects of the same size, of a copy of the CRD
that the operator doesn't watch, each with one status write. Half of them run before the operator and half afterwards.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretBytes

from devbox_secrets.api.names import PLURAL
from devbox_secrets.controller.rules.fingerprint import Fingerprint
from devbox_secrets.controller.rules.plan import Entry
from devbox_secrets.controller.rules.status import next_status
from devbox_secrets.crypto.envelope import PublicKey
from harness.controlplane import ControlPlane
from integration.support.chart import get
from support import MERGE, Client, Environment, Request, Server, arguments, environment, say, table
from workload import VALUE, creates, make_accounts, path, sync

_FLOOR = "floor.devbox-secrets.dev"


@dataclass(frozen=True)
class Floor:
    """The duration of a plain client's writes, in seconds."""

    creates: float
    statuses: float


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"count": 10_000, "accounts": 100, "seconds": 600})
    with environment() as here:
        accounts = make_accounts(here.server, "account", it.accounts)
        serve_copy(here.controlplane)
        halves = [accounts[::2], accounts[1::2]]
        each = it.count // it.accounts
        first = floor(here, halves[0], each)
        with here.operator() as running:
            result = sync(here, running, it.count, accounts, it.seconds)
        last = floor(here, halves[1], each)
    while_running = result.create_seconds
    create, status = first.creates + last.creates, first.statuses + last.statuses
    table(
        f"{it.count:,} AccountSecrets in {it.accounts} accounts, from the first create to the last Ready",
        ("", "seconds", "per second"),
        [
            ("only creates", f"{create:.1f}", f"{it.count / create:.0f}"),
            ("only status writes", f"{status:.1f}", f"{it.count / status:.0f}"),
            ("floor: both", f"{create + status:.1f}", f"{it.count / (create + status):.0f}"),
            ("creates while the operator runs", f"{while_running:.1f}", f"{it.count / while_running:.0f}"),
            ("operator", f"{result.seconds:.1f}", f"{it.count / result.seconds:.0f}"),
            ("share of the floor's rate", "", f"{(create + status) / result.seconds:.0%}"),
            ("account Secrets written", "", f"{result.secret_writes:.0f}"),
            ("operator's CPU", f"{result.cpu_seconds:.1f}", ""),
            ("operator's peak memory, MiB", "", f"{result.peak_mib:.0f}"),
        ],
    )


def serve_copy(controlplane: ControlPlane) -> None:
    """Serve AccountSecrets under a second group that nobody watches."""
    name = f"{PLURAL}.{_FLOOR}"
    spec = get(controlplane, "crd", f"{PLURAL}.devbox-secrets.dev")["spec"]
    spec |= {"group": _FLOOR, "names": {"kind": "AccountSecret", "plural": PLURAL}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": spec,
    }
    controlplane.kubectl("create", "--filename=-", input=json.dumps(crd))
    controlplane.kubectl("wait", "--for=condition=Established", f"crd/{name}")


def floor(here: Environment, accounts: Sequence[str], each: int) -> Floor:
    """Create this many AccountSecrets in each account with a plain client, then write their statuses."""
    say(f"the floor: {each * len(accounts):,} creates and as many status writes by a plain client")
    return asyncio.run(_floor(here.server, here.key.public, accounts, each))


async def _floor(server: Server, key: PublicKey, accounts: Sequence[str], each: int) -> Floor:
    requests = creates(key, accounts, each, _FLOOR)
    async with Client.connect(server) as client:
        start = time.perf_counter()
        answers = await client.send_all(requests)
        created = time.perf_counter() - start
        statuses = [_status(answer, key.id) for answer in answers]
        start = time.perf_counter()
        await client.send_all(statuses)
        return Floor(created, time.perf_counter() - start)


def _status(created: bytes, key_id: str) -> Request:
    """Return the status write that the operator would send."""
    body = json.loads(created)
    metadata, variable = body["metadata"], body["spec"]["name"]
    account, name = metadata["namespace"], metadata["name"]
    now = metadata["creationTimestamp"]
    opened = Fingerprint.of(SecretBytes(VALUE))
    entry = Entry(metadata["uid"], account, name, variable, now, metadata["generation"], key_id, opened)
    status = next_status(entry, None, now).model_dump(by_alias=True, exclude_none=True, mode="json")
    patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status}
    return Request("PATCH", path(account, name, _FLOOR) + "/status", json.dumps(patch).encode(), MERGE)


if __name__ == "__main__":
    main()
