"""The sealing keys as the operator keeps them: made, published, kept safe, on a real API server."""

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
    """A control plane of our own: these tests take its keys away."""
    with ControlPlane.start() as it:
        install(it)
        yield it


@pytest.fixture
def start(controlplane: ControlPlane, tmp_path: Path) -> Start:
    """Run the operator, which looks at its keys all the time, with a log of its own."""

    @contextmanager
    def run(**settings: str) -> Iterator[Operator]:
        with operator(controlplane, tmp_path, keys_refresh_seconds="0.1", **settings) as it:
            yield it
            it.component.stop()  # so that it gives the Lease back, and the next needn't wait

    return run


@pytest.fixture
def account(controlplane: ControlPlane, namespace: str) -> Account:
    """A namespace; each value is sealed with the key that the test names."""
    return Account(controlplane, new_key().public, namespace)


def manager(client: Client, rotate_every: timedelta | None = None) -> KeyManager:
    """Manage the keys without an operator, in a cluster where nothing is sealed."""
    store = KeyStore(client, NAMESPACE)
    return KeyManager(store, lambda: datetime.now(UTC), rotate_every, sealed=tuple, record=mock.AsyncMock())


def versions(account: Account, name: str) -> list[str]:
    """Give the versions of what the operator could have written for an AccountSecret."""
    objects = (("accountsecret", name), ("secret", "devbox-account-secrets"))
    return [get(account.controlplane, *each, "-n", account.name)["metadata"]["resourceVersion"] for each in objects]


def test_the_first_key_is_made_where_there_is_none(controlplane: ControlPlane, start: Start) -> None:
    store(controlplane)
    with start() as it:
        (key_id,) = until("a key is there", lambda: stored(controlplane))
        is_published(controlplane, [key_id])
        assert f"created the first sealing key: {key_id}" in it.log


def test_a_key_that_becomes_too_old_is_followed_by_a_new_one(controlplane: ControlPlane, start: Start) -> None:
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
        # Whether a new one is due was decided before it was published.
        is_published(controlplane, [old.public.id])
    assert stored(controlplane).keys() == {old.public.id}


def test_a_new_key_changes_nothing_of_what_was_sealed_before(
    controlplane: ControlPlane, account: Account, start: Start
) -> None:
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
        until("it opened both", lambda: it.metric("devbox_secrets_opens_total") == 2)
        until("every account was looked at", lambda: it.metric("devbox_secrets_workqueue_depth") == 0)
        assert it.metric('devbox_secrets_writes_total{resource="secret"}') == 0


def test_a_request_is_met_by_one_key_and_goes_even_if_it_comes_from_a_clock_ahead(
    controlplane: ControlPlane, start: Start
) -> None:
    store(controlplane, new_key(days=1))
    with start():
        for number in (2, 3):
            annotate(controlplane, (datetime.now(UTC) + timedelta(minutes=3)).isoformat())
            until("the request is met", lambda: not requested(controlplane))
            is_published(controlplane, stored(controlplane))
            assert len(stored(controlplane)) == number
    assert max(key.created for key in stored(controlplane).values()) < datetime.now(UTC)


def test_a_key_that_a_clock_ahead_had_made_is_dated_now_and_followed_by_others(
    controlplane: ControlPlane, start: Start
) -> None:
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
def test_a_request_that_makes_no_sense_is_told_once_and_harms_nothing(
    controlplane: ControlPlane, since: str, start: Start
) -> None:
    only = new_key(days=1)
    store(controlplane, only)
    annotate(controlplane, since)
    with start() as it:
        until("it's told", lambda: "ignoring the annotation" in it.log)
        # A round later: what is stored now is published, and the request was read once more.
        second = new_key(days=2)
        add(controlplane, second)
        is_published(controlplane, [only.public.id, second.public.id])
        assert it.log.count("ignoring the annotation") == 1
        assert stored(controlplane).keys() == {only.public.id, second.public.id}
        annotate(controlplane, datetime.now(UTC).isoformat())
        until("a right one is met", lambda: len(stored(controlplane)) == 3)


def test_two_replicas_make_one_key_for_each_request(controlplane: ControlPlane, tmp_path: Path) -> None:
    store(controlplane, new_key(days=1))
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with operator(controlplane, tmp_path / "one") as one, operator(controlplane, tmp_path / "two") as two:
        for count in (2, 3):
            annotate(controlplane, datetime.now(UTC).isoformat())
            until("a key is published", lambda: len(published(controlplane)) == count + 1)  # noqa: B023 - asked in this round
            assert len(stored(controlplane)) == count
        # Who takes over finds the request met.
        leader, other = sorted((one, two), key=lambda it: it.metric("devbox_secrets_leader"), reverse=True)
        leader.component.kill()
        until("the other took over", lambda: other.metric("devbox_secrets_leader") == 1)
        controlplane.kubectl("patch", *CONFIGMAP, "--type=merge", "-p", '{"data": {"stray": "x"}}')
        until("it has looked at the keys", lambda: "stray" not in published(controlplane))
    assert len(stored(controlplane)) == 3


async def test_of_many_who_see_at_once_that_a_key_is_due_one_makes_it(controlplane: ControlPlane) -> None:
    store(controlplane, new_key(days=91))
    async with Client.connect(ClientConfig(controlplane.kubeconfig)) as client:
        managers = [manager(client, timedelta(days=90)) for _ in range(8)]
        rounds = (each.refresh(write=True) for each in managers)
        outcomes = await asyncio.gather(*rounds, return_exceptions=True)
    assert len(stored(controlplane)) == 2
    is_published(controlplane, stored(controlplane))
    # Of those who published the same at the same time one was first.
    assert all(isinstance(each, bool | Conflict) for each in outcomes)


async def test_a_replica_that_does_not_write_keeps_lost_keys_in_memory_until_it_does(
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
        assert not keys.stored  # so that nothing is sealed with what memory alone holds
        assert stored(controlplane) == {}
        await keys.refresh(write=True)
        assert list(keys.stored) == [only.public.id]
    assert stored(controlplane) == {only.public.id: only}


def test_a_key_that_was_taken_away_alone_is_gone(controlplane: ControlPlane, account: Account, start: Start) -> None:
    new, old = new_key(days=1), new_key(days=2)
    store(controlplane, new, old)
    with start():
        is_published(controlplane, [new.public.id, old.public.id])
        remove(controlplane, old)
        is_published(controlplane, [new.public.id])
        account.is_ready(put_sealed(account, old, "TOKEN", b"x"), "UnknownKey")
        assert stored(controlplane).keys() == {new.public.id}
        # And back again, without a restart.
        add(controlplane, old)
        account.is_ready("token")
        account.holds({"TOKEN": b"x"})


def test_a_key_that_is_used_is_written_back_when_it_was_taken_away(
    controlplane: ControlPlane, account: Account, start: Start
) -> None:
    new, old = new_key(days=1), new_key(days=2)
    store(controlplane, new, old)
    with start() as it:
        account.is_ready(put_sealed(account, old, "TOKEN", b"x"))
        remove(controlplane, old)
        until("it's back", lambda: stored(controlplane) == {key.public.id: key for key in (new, old)})
        assert f"wrote back lost sealing keys from memory: {old.public.id}" in it.log


def test_of_very_many_keys_the_newest_are_published_and_all_open(
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
        until("they are back", lambda: stored(controlplane) == keys)
    assert all(key_id in it.log for key_id in keys)
    assert [form for key in keys.values() for form in seed_forms(key) if form in it.log] == []
