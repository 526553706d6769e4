"""How the operator creates, publishes and preserves the sealing keys, on a real API server."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from devbox_secrets.api.names import PUBLIC_KEYS_MAX
from devbox_secrets.controller.key_manager import KeyManager
from devbox_secrets.crypto.envelope import KeyPair
from devbox_secrets.errors import Conflict
from devbox_secrets.kube.client import Client
from devbox_secrets.kube.config import ClientConfig
from devbox_secrets.kube.key_store import KeyStore
from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import NAMESPACE, get, install, until
from integration.support.processes import Operator, operator
from integration.support.sealing_keys import (
    CONFIGMAP,
    add,
    annotate,
    empty,
    is_published,
    new_key,
    newest,
    published,
    put_sealed,
    remove,
    requested,
    seed_forms,
    store,
    stored,
)

Start = Callable[..., AbstractContextManager[Operator]]


@pytest.fixture(scope="module")
def controlplane() -> Iterator[ControlPlane]:
    """A separate control plane, because these tests remove its keys."""
    with ControlPlane.start() as it:
        install(it)
        yield it


@pytest.fixture
def start(controlplane: ControlPlane, tmp_path: Path) -> Start:
    """Return a function that runs an operator that reads its keys frequently, with a separate log."""

    @contextmanager
    def run(**settings: str) -> Iterator[Operator]:
        with operator(controlplane, tmp_path, keys_refresh_seconds="0.1", **settings) as it:
            yield it
            it.component.stop()  # so that it releases the Lease, and the next one needn't wait

    return run


@pytest.fixture
def account(controlplane: ControlPlane, namespace: str) -> Account:
    """A namespace; each test chooses the keys that seal its values."""
    return Account(controlplane, new_key().public, namespace)


def manager(client: Client, rotate_every: timedelta | None = None) -> KeyManager:
    """Return a key manager that runs without an operator, in a cluster without sealed values."""
    store = KeyStore(client, NAMESPACE)
    return KeyManager(store, lambda: datetime.now(UTC), rotate_every, sealed=tuple, record=mock.AsyncMock())


def versions(account: Account, name: str) -> list[str]:
    """Return the resourceVersions of the objects that the operator could have written for an AccountSecret."""
    objects = (("accountsecret", name), ("secret", "devbox-account-secrets"))
    return [get(account.controlplane, *each, "-n", account.name)["metadata"]["resourceVersion"] for each in objects]


def test_the_first_key_is_created_if_there_is_none(controlplane: ControlPlane, start: Start) -> None:
    store(controlplane)
    with start() as it:
        (key_id,) = until("a key exists", lambda: stored(controlplane))
        is_published(controlplane, [key_id])
        assert f"created the first sealing key: {key_id}" in it.log


def test_a_new_key_is_created_when_the_newest_is_too_old(controlplane: ControlPlane, start: Start) -> None:
    old = new_key(minutes=59, seconds=55)
    store(controlplane, old)
    with start(rotate_keys="1h") as it:
        until("a new key is published", lambda: newest(controlplane) not in {"", old.public.id})
        new = newest(controlplane)
        assert stored(controlplane).keys() == published(controlplane).keys() - {"newest"} == {old.public.id, new}
        assert f"created a new sealing key: {new}" in it.log
    assert stored(controlplane)[new].created - old.created >= timedelta(hours=1)


def test_without_a_schedule_an_old_key_stays_the_newest(controlplane: ControlPlane, start: Start) -> None:
    old = new_key(days=5000)
    store(controlplane, old)
    with start(rotate_keys="never"):
        # Before publishing it, the operator decided whether a new one is due.
        is_published(controlplane, [old.public.id])
    assert stored(controlplane).keys() == {old.public.id}


def test_a_new_key_does_not_affect_older_values(controlplane: ControlPlane, account: Account, start: Start) -> None:
    old = new_key(days=1)
    store(controlplane, old)
    name = put_sealed(account, old, "TOKEN", b"before")
    with start() as it:
        account.is_ready(name)
        before = versions(account, name)
        annotate(controlplane, datetime.now(UTC).isoformat())
        until("a new key is published", lambda: newest(controlplane) not in {"", old.public.id})
        is_published(controlplane, stored(controlplane))
        other = put_sealed(account, stored(controlplane)[newest(controlplane)], "OTHER", b"after")
        account.is_ready(other)
        assert account.data() == {"TOKEN": b"before", "OTHER": b"after"}
        assert versions(account, name)[0] == before[0]
    with start() as it:
        until("it has opened both", lambda: it.metric("devbox_secrets_opens_total") == 2)
        until("every account is reconciled", lambda: it.metric("devbox_secrets_workqueue_depth") == 0)
        assert it.metric('devbox_secrets_writes_total{resource="secret"}') == 0


def test_a_rotation_request_creates_one_key_even_if_its_clock_is_ahead(
    controlplane: ControlPlane, start: Start
) -> None:
    store(controlplane, new_key(days=1))
    with start():
        for number in (2, 3):
            annotate(controlplane, (datetime.now(UTC) + timedelta(minutes=3)).isoformat())
            until("the request is done", lambda: not requested(controlplane))
            is_published(controlplane, stored(controlplane))
            assert len(stored(controlplane)) == number
    assert max(key.created for key in stored(controlplane).values()) < datetime.now(UTC)


def test_a_key_dated_in_the_future_is_redated_and_can_be_rotated(controlplane: ControlPlane, start: Start) -> None:
    old, future = new_key(days=1), new_key(days=-10_000)
    store(controlplane, old, future)
    with start():
        dated = partial(_created, controlplane, future)
        until("it's dated now", lambda: dated() < datetime.now(UTC))
        until("it's the newest", lambda: newest(controlplane) == future.public.id)
        annotate(controlplane, datetime.now(UTC).isoformat())
        until("a new key is published", lambda: newest(controlplane) != future.public.id)
    assert _created(controlplane, old) == old.created
    assert stored(controlplane)[newest(controlplane)].created > dated()


def _created(controlplane: ControlPlane, key: KeyPair) -> datetime:
    return stored(controlplane)[key.public.id].created


@pytest.mark.parametrize("since", ["soon", "2099-01-01T00:00:00Z"])
def test_an_invalid_rotation_request_is_reported_once_and_ignored(
    controlplane: ControlPlane, since: str, start: Start
) -> None:
    only = new_key(days=1)
    store(controlplane, only)
    annotate(controlplane, since)
    with start() as it:
        until("it's logged", lambda: "ignoring the annotation" in it.log)
        # After another round: the stored keys are published, and the request was read again.
        second = new_key(days=2)
        add(controlplane, second)
        is_published(controlplane, [only.public.id, second.public.id])
        assert it.log.count("ignoring the annotation") == 1
        assert stored(controlplane).keys() == {only.public.id, second.public.id}
        annotate(controlplane, datetime.now(UTC).isoformat())
        until("a valid request is done", lambda: len(stored(controlplane)) == 3)


def test_two_replicas_create_one_key_for_each_request(controlplane: ControlPlane, tmp_path: Path) -> None:
    store(controlplane, new_key(days=1))
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with operator(controlplane, tmp_path / "one") as one, operator(controlplane, tmp_path / "two") as two:
        for count in (2, 3):
            annotate(controlplane, datetime.now(UTC).isoformat())
            until("a key is published", lambda: len(published(controlplane)) == count + 1)  # noqa: B023 - called in this round
            assert len(stored(controlplane)) == count
        # The next leader must not repeat the request.
        leader, other = sorted((one, two), key=lambda it: it.metric("devbox_secrets_leader"), reverse=True)
        leader.component.kill()
        until("the other one is the leader", lambda: other.metric("devbox_secrets_leader") == 1)
        controlplane.kubectl("patch", *CONFIGMAP, "--type=merge", "-p", '{"data": {"stray": "x"}}')
        until("it has read the keys", lambda: "stray" not in published(controlplane))
    assert len(stored(controlplane)) == 3


async def test_only_one_of_many_concurrent_managers_creates_a_due_key(controlplane: ControlPlane) -> None:
    store(controlplane, new_key(days=91))
    async with Client.connect(ClientConfig(controlplane.kubeconfig)) as client:
        managers = [manager(client, timedelta(days=90)) for _ in range(8)]
        rounds = (each.refresh(write=True) for each in managers)
        outcomes = await asyncio.gather(*rounds, return_exceptions=True)
    assert len(stored(controlplane)) == 2
    is_published(controlplane, stored(controlplane))
    # Of those that published the same keys concurrently, only the first succeeded.
    assert all(isinstance(each, bool | Conflict) for each in outcomes)


async def test_a_follower_keeps_lost_keys_in_memory_and_writes_them_as_leader(
    controlplane: ControlPlane,
) -> None:
    only = new_key(days=1)
    store(controlplane, only)

    async with Client.connect(ClientConfig(controlplane.kubeconfig)) as client:
        keys = manager(client)
        await keys.refresh(write=False)
        empty(controlplane)
        await keys.refresh(write=False)
        assert list(keys.keyring) == [only.public.id]
        assert not keys.stored  # so that nothing is sealed with keys that exist only in memory
        assert stored(controlplane) == {}
        await keys.refresh(write=True)
        assert list(keys.stored) == [only.public.id]
    assert stored(controlplane) == {only.public.id: only}


def test_an_unused_key_can_be_removed_and_added_again(
    controlplane: ControlPlane, account: Account, start: Start
) -> None:
    new, old = new_key(days=1), new_key(days=2)
    store(controlplane, new, old)
    with start():
        is_published(controlplane, [new.public.id, old.public.id])
        remove(controlplane, old)
        is_published(controlplane, [new.public.id])
        account.is_ready(put_sealed(account, old, "TOKEN", b"x"), "UnknownKey")
        assert stored(controlplane).keys() == {new.public.id}
        # And added again, without a restart.
        add(controlplane, old)
        account.is_ready("token")
        account.holds({"TOKEN": b"x"})


def test_a_removed_key_that_is_in_use_is_written_back(
    controlplane: ControlPlane, account: Account, start: Start
) -> None:
    new, old = new_key(days=1), new_key(days=2)
    store(controlplane, new, old)
    with start() as it:
        account.is_ready(put_sealed(account, old, "TOKEN", b"x"))
        remove(controlplane, old)
        until("it's written back", lambda: stored(controlplane) == {key.public.id: key for key in (new, old)})
        assert f"wrote back lost sealing keys from memory: {old.public.id}" in it.log


def test_only_the_newest_of_very_many_keys_are_published_but_all_open_values(
    controlplane: ControlPlane, account: Account, start: Start
) -> None:
    keys = [new_key(hours=number) for number in range(PUBLIC_KEYS_MAX + 5)]
    store(controlplane, *keys)
    with start():
        is_published(controlplane, [key.public.id for key in keys[:PUBLIC_KEYS_MAX]])
        assert newest(controlplane) == keys[0].public.id
        account.is_ready(put_sealed(account, keys[-1], "TOKEN", b"x"))


def test_the_log_shows_no_seed(controlplane: ControlPlane, start: Start) -> None:
    old = new_key(days=100)
    store(controlplane, old)
    with start() as it:
        until("a new key is published", lambda: len(published(controlplane)) == 3)
        keys = stored(controlplane)
        empty(controlplane)
        until("the keys are written back", lambda: stored(controlplane) == keys)
    assert all(key_id in it.log for key_id in keys)
    assert [form for key in keys.values() for form in seed_forms(key) if form in it.log] == []
