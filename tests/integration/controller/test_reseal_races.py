"""Changes between the resealer's reads and writes, on a real API server.

The resealer runs in the test's own process, so that each change happens at an exact moment.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.manifest import manifest
from devbox_secrets.api.models import AccountSecret, AccountSecretSpec
from devbox_secrets.api.names import GATEWAY_FIELD_MANAGER, account_secrets_path
from devbox_secrets.controller.cache import Cache
from devbox_secrets.controller.metrics import REGISTRY
from devbox_secrets.controller.resealer import BATCH_SIZE, Resealer
from devbox_secrets.controller.writes import Writer
from devbox_secrets.crypto.envelope import KeyPair, Keyring, key_id_of
from devbox_secrets.errors import CannotOpen
from devbox_secrets.kube.client import Client, Response
from devbox_secrets.kube.config import ClientConfig
from harness.controlplane import ControlPlane
from integration.support.chart import Json, get

OLD, NEW = (KeyPair.generate(datetime(2026, month, 1, tzinfo=UTC)) for month in (1, 2))
KEYS = Keyring([OLD, NEW])
DELAY = 10.0

pytestmark = pytest.mark.usefixtures("crds")


class RacingClient(Client):
    """A client that calls a function just before a write, once, and that counts the writes."""

    before: Callable[[], object] | None = None
    writes = 0

    async def send(self, method: str, path: str, **options: Any) -> Response:  # noqa: ANN401 - as in its parent
        if method == "PATCH":
            self.writes += 1
            race, self.before = self.before, None
            if race:
                race()
        return await super().send(method, path, **options)


class Scenario:
    """An account's AccountSecrets, and a resealer; the test decides when it reads them."""

    def __init__(self, controlplane: ControlPlane, account: str, client: RacingClient) -> None:
        self.controlplane = controlplane
        self.account = account
        self.client = client
        self.cache = Cache()
        self.now = 0.0
        self.resealer = self.another_replica(client)

    def another_replica(self, client: Client) -> Resealer:
        """Return the resealer of another replica that has read the same objects."""
        return Resealer(Writer(client), self.cache, lambda: KEYS, opened, first_delay=DELAY, clock=lambda: self.now)

    def write(self, *values: bytes, key: KeyPair = OLD, how: str = "create") -> None:
        """Write values as the gateway does, named A0, A1 and so on."""
        items = []
        for number, value in enumerate(values):
            sealed = key.public.seal(SecretBytes(value), account=self.account, name=f"A{number}")
            items.append(manifest(self.account, AccountSecretSpec(name=f"A{number}", sealed=sealed)))
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        self.controlplane.kubectl(how, "-f", "-", f"--field-manager={GATEWAY_FIELD_MANAGER}", input=text)

    async def observe(self) -> None:
        listed = await self.client.list_all(account_secrets_path(self.account), AccountSecret.parse)
        self.cache.replace_account_secrets(*listed)

    def found(self) -> list[Json]:
        items: list[Json] = get(self.controlplane, "accountsecrets", "-n", self.account)["items"]
        return items

    def values(self) -> list[tuple[KeyPair, bytes]]:
        """Return each value with the key that it's sealed with."""
        specs = [item["spec"] for item in self.found()]
        return [
            (
                KEYS[key_id_of(spec["sealed"])],
                KEYS.open(spec["sealed"], account=self.account, name=spec["name"]).get_secret_value(),
            )
            for spec in specs
        ]


async def opened(secret: AccountSecret) -> SecretBytes | None:
    try:
        return KEYS.open(secret.spec.sealed, account=secret.namespace, name=secret.spec.name)
    except CannotOpen:
        return None


@pytest.fixture
async def it(controlplane: ControlPlane, namespace: str) -> AsyncIterator[Scenario]:
    async with RacingClient.connect(ClientConfig(controlplane.kubeconfig)) as client:
        yield Scenario(controlplane, namespace, client)


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("devbox_secrets_reseals_total", {"outcome": outcome}) or 0.0


async def test_a_concurrent_update_is_kept_and_resealed_once_it_is_observed(it: Scenario, namespace: str) -> None:
    it.write(b"1")
    await it.observe()
    before = counted("conflict")
    it.client.before = partial(it.write, b"2", how="replace")
    assert await it.resealer.reseal_batch() == set()
    assert it.values() == [(OLD, b"2")]
    assert counted("conflict") == before + 1
    await it.observe()
    it.now += DELAY
    assert await it.resealer.reseal_batch() == {namespace}
    assert it.values() == [(NEW, b"2")]


async def test_an_object_deleted_meanwhile_is_not_recreated(
    it: Scenario, controlplane: ControlPlane, namespace: str
) -> None:
    it.write(b"1")
    await it.observe()
    it.client.before = partial(controlplane.kubectl, "delete", "accountsecret", "a0", "-n", namespace)
    assert await it.resealer.reseal_batch() == set()
    assert it.found() == []


async def test_an_object_recreated_meanwhile_keeps_its_new_value(
    it: Scenario, controlplane: ControlPlane, namespace: str
) -> None:
    it.write(b"1")
    await it.observe()

    def recreate() -> None:
        controlplane.kubectl("delete", "accountsecret", "a0", "-n", namespace)
        it.write(b"2")

    it.client.before = recreate
    assert await it.resealer.reseal_batch() == set()
    assert it.values() == [(OLD, b"2")]


async def test_only_one_of_two_concurrent_replicas_writes_each_value(
    it: Scenario, controlplane: ControlPlane, namespace: str
) -> None:
    values = [str(number).encode() for number in range(8)]
    it.write(*values)
    await it.observe()
    async with Client.connect(ClientConfig(controlplane.kubeconfig)) as other:
        await asyncio.gather(it.resealer.reseal_batch(), it.another_replica(other).reseal_batch())
    assert it.values() == [(NEW, value) for value in values]
    assert {item["metadata"]["generation"] for item in it.found()} == {2}


async def test_a_replica_that_is_no_longer_the_leader_writes_nothing(it: Scenario, namespace: str) -> None:
    it.write(b"1", b"2")
    await it.observe()
    assert await it.another_replica(it.client.fenced(lambda: False)).reseal_batch() == set()
    assert it.values() == [(OLD, b"1"), (OLD, b"2")]


async def test_without_a_response_the_batch_ends_after_one_attempt(it: Scenario, namespace: str) -> None:
    it.write(b"1", b"2", b"3")
    await it.observe()
    fenced = it.client.fenced(lambda: False)
    assert await it.another_replica(fenced).reseal_batch() == set()
    assert fenced.writes == 1


async def test_a_batch_has_a_maximum_size(it: Scenario, namespace: str) -> None:
    it.write(*[b"x"] * (BATCH_SIZE + 1))
    await it.observe()
    for writes, accounts in ((BATCH_SIZE, {namespace}), (BATCH_SIZE + 1, {namespace}), (BATCH_SIZE + 1, set())):
        assert await it.resealer.reseal_batch() == accounts
        assert it.client.writes == writes
    assert it.values() == [(NEW, b"x")] * (BATCH_SIZE + 1)


async def test_a_rejected_value_is_retried_with_increasing_delays(
    it: Scenario, controlplane: ControlPlane, namespace: str
) -> None:
    it.write(b"1")
    await it.observe()
    before = counted("failed")
    async with RacingClient.connect(ClientConfig(controlplane.user_kubeconfig("someone"))) as cluster:
        assert isinstance(cluster, RacingClient)
        resealer = it.another_replica(cluster)
        attempts = []
        for _ in range(80):
            await resealer.reseal_batch()
            attempts.append(cluster.writes)
            it.now += DELAY / 10
    # Immediately; then after 1, 2 and 4 times the first delay, which is 10 steps of this clock.
    steps = [step for step, (was, now) in enumerate(zip([0, *attempts], attempts, strict=False)) if now > was]
    assert steps == [0, 10, 30, 70]
    assert counted("failed") == before + 4
    assert it.values() == [(OLD, b"1")]


async def test_a_conflict_blocks_no_other_value_of_the_account(
    it: Scenario, controlplane: ControlPlane, namespace: str
) -> None:
    it.write(b"1", b"2")
    await it.observe()
    # The resealer doesn't observe this.
    controlplane.kubectl("label", "accountsecret", "a0", "-n", namespace, "a=b")
    assert await it.resealer.reseal_batch() == {namespace}
    assert it.values() == [(OLD, b"1"), (NEW, b"2")]


async def test_values_with_the_newest_key_or_that_cannot_be_opened_are_skipped(
    it: Scenario, controlplane: ControlPlane, namespace: str
) -> None:
    it.write(b"1", key=NEW)
    body = manifest(namespace, AccountSecretSpec(name="B", sealed=sealed_for_another()))
    controlplane.kubectl("create", "-f", "-", f"--field-manager={GATEWAY_FIELD_MANAGER}", input=json.dumps(body))
    await it.observe()
    assert await it.resealer.reseal_batch() == set()
    assert it.client.writes == 0


def sealed_for_another() -> str:
    return OLD.public.seal(SecretBytes(b"x"), account="elsewhere", name="B")
