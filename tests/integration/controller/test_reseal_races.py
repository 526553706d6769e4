"""What happens while values are sealed anew: between the look and the write, on a real API server.

The resealer runs in the test's own process, so that each overtaking comes at its very moment.
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


class Overtaken(Client):
    """A client with which something else happens just before a write, once, and that counts the writes."""

    before: Callable[[], object] | None = None
    writes = 0

    async def send(self, method: str, path: str, **options: Any) -> Response:  # noqa: ANN401 - as its parent has them
        if method == "PATCH":
            self.writes += 1
            happens, self.before = self.before, None
            if happens:
                happens()
        return await super().send(method, path, **options)


class Story:
    """An account's AccountSecrets, and a resealer that hears of them when the test says so."""

    def __init__(self, controlplane: ControlPlane, account: str, client: Overtaken) -> None:
        self.controlplane = controlplane
        self.account = account
        self.client = client
        self.cache = Cache()
        self.now = 0.0
        self.resealer = self.another(client)

    def another(self, client: Client) -> Resealer:
        """Give the resealer of another replica, which knows the same."""
        return Resealer(Writer(client), self.cache, lambda: KEYS, opened, first_delay=DELAY, clock=lambda: self.now)

    def take(self, *values: bytes, key: KeyPair = OLD, how: str = "create") -> None:
        """Have the gateway take values, the first as A0."""
        items = []
        for number, value in enumerate(values):
            sealed = key.public.seal(SecretBytes(value), account=self.account, name=f"A{number}")
            items.append(manifest(self.account, AccountSecretSpec(name=f"A{number}", sealed=sealed)))
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        self.controlplane.kubectl(how, "-f", "-", f"--field-manager={GATEWAY_FIELD_MANAGER}", input=text)

    async def hear(self) -> None:
        listed = await self.client.list_all(account_secrets_path(self.account), AccountSecret.parse)
        self.cache.replace_account_secrets(*listed)

    def found(self) -> list[Json]:
        items: list[Json] = get(self.controlplane, "accountsecrets", "-n", self.account)["items"]
        return items

    def values(self) -> list[tuple[KeyPair, bytes]]:
        """Give each value with the key that it's sealed with."""
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
async def it(controlplane: ControlPlane, namespace: str) -> AsyncIterator[Story]:
    async with Overtaken.connect(ClientConfig(controlplane.kubeconfig)) as client:
        yield Story(controlplane, namespace, client)


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("devbox_secrets_reseals_total", {"outcome": outcome}) or 0.0


async def test_a_value_that_comes_meanwhile_stays_and_moves_on_when_it_was_heard_of(it: Story, namespace: str) -> None:
    it.take(b"1")
    await it.hear()
    before = counted("conflict")
    it.client.before = partial(it.take, b"2", how="replace")
    assert await it.resealer.reseal_batch() == set()
    assert it.values() == [(OLD, b"2")]
    assert counted("conflict") == before + 1
    await it.hear()
    it.now += DELAY
    assert await it.resealer.reseal_batch() == {namespace}
    assert it.values() == [(NEW, b"2")]


async def test_what_is_deleted_meanwhile_does_not_come_back(
    it: Story, controlplane: ControlPlane, namespace: str
) -> None:
    it.take(b"1")
    await it.hear()
    it.client.before = partial(controlplane.kubectl, "delete", "accountsecret", "a0", "-n", namespace)
    assert await it.resealer.reseal_batch() == set()
    assert it.found() == []


async def test_what_is_deleted_and_made_anew_meanwhile_keeps_the_new_value(
    it: Story, controlplane: ControlPlane, namespace: str
) -> None:
    it.take(b"1")
    await it.hear()

    def anew() -> None:
        controlplane.kubectl("delete", "accountsecret", "a0", "-n", namespace)
        it.take(b"2")

    it.client.before = anew
    assert await it.resealer.reseal_batch() == set()
    assert it.values() == [(OLD, b"2")]


async def test_of_two_replicas_that_do_it_at_once_each_value_is_written_by_one(
    it: Story, controlplane: ControlPlane, namespace: str
) -> None:
    values = [str(number).encode() for number in range(8)]
    it.take(*values)
    await it.hear()
    async with Client.connect(ClientConfig(controlplane.kubeconfig)) as other:
        await asyncio.gather(it.resealer.reseal_batch(), it.another(other).reseal_batch())
    assert it.values() == [(NEW, value) for value in values]
    assert {item["metadata"]["generation"] for item in it.found()} == {2}


async def test_a_replica_that_may_not_write_any_more_sends_nothing(it: Story, namespace: str) -> None:
    it.take(b"1", b"2")
    await it.hear()
    assert await it.another(it.client.fenced(lambda: False)).reseal_batch() == set()
    assert it.values() == [(OLD, b"1"), (OLD, b"2")]


async def test_where_there_is_no_answer_one_attempt_is_enough(it: Story, namespace: str) -> None:
    it.take(b"1", b"2", b"3")
    await it.hear()
    cut = it.client.fenced(lambda: False)
    assert await it.another(cut).reseal_batch() == set()
    assert cut.writes == 1


async def test_a_round_is_short_however_many_wait(it: Story, namespace: str) -> None:
    it.take(*[b"x"] * (BATCH_SIZE + 1))
    await it.hear()
    for writes, accounts in ((BATCH_SIZE, {namespace}), (BATCH_SIZE + 1, {namespace}), (BATCH_SIZE + 1, set())):
        assert await it.resealer.reseal_batch() == accounts
        assert it.client.writes == writes
    assert it.values() == [(NEW, b"x")] * (BATCH_SIZE + 1)


async def test_what_is_refused_comes_again_later_each_time_later(
    it: Story, controlplane: ControlPlane, namespace: str
) -> None:
    it.take(b"1")
    await it.hear()
    before = counted("failed")
    async with Overtaken.connect(ClientConfig(controlplane.user_kubeconfig("someone"))) as cluster:
        assert isinstance(cluster, Overtaken)
        resealer = it.another(cluster)
        attempts = []
        for _ in range(80):
            await resealer.reseal_batch()
            attempts.append(cluster.writes)
            it.now += DELAY / 10
    # At once; then after 1, 2 and 4 times the first delay, which is 10 steps of this clock.
    steps = [step for step, (was, now) in enumerate(zip([0, *attempts], attempts, strict=False)) if now > was]
    assert steps == [0, 10, 30, 70]
    assert counted("failed") == before + 4
    assert it.values() == [(OLD, b"1")]


async def test_one_that_was_changed_meanwhile_holds_back_no_other_of_its_account(
    it: Story, controlplane: ControlPlane, namespace: str
) -> None:
    it.take(b"1", b"2")
    await it.hear()
    # Not heard of.
    controlplane.kubectl("label", "accountsecret", "a0", "-n", namespace, "a=b")
    assert await it.resealer.reseal_batch() == {namespace}
    assert it.values() == [(OLD, b"1"), (NEW, b"2")]


async def test_what_has_the_newest_key_or_does_not_open_is_no_work(
    it: Story, controlplane: ControlPlane, namespace: str
) -> None:
    it.take(b"1", key=NEW)
    body = manifest(namespace, AccountSecretSpec(name="B", sealed=sealed_for_another()))
    controlplane.kubectl("create", "-f", "-", f"--field-manager={GATEWAY_FIELD_MANAGER}", input=json.dumps(body))
    await it.hear()
    assert await it.resealer.reseal_batch() == set()
    assert it.client.writes == 0


def sealed_for_another() -> str:
    return OLD.public.seal(SecretBytes(b"x"), account="elsewhere", name="B")
