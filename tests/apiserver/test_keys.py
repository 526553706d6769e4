"""The sealing keys as the operator keeps them: made, published, kept safe, on a real API server."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from uuid import uuid4

import pytest

from apiserver.account import Account
from apiserver.chart import MANIFEST, NAMESPACE, get, install, until
from apiserver.product import Operator, operator
from apiserver.sealingkeys import (
    CONFIGMAP,
    SECRET,
    add,
    annotate,
    empty,
    forms,
    is_published,
    made,
    newest,
    published,
    put_sealed,
    remove,
    store,
    stored,
)
from cluster.controlplane import ControlPlane
from devbox_secrets.cluster import Cluster
from devbox_secrets.errors import ClusterError
from devbox_secrets.keyplan import PUBLISHED
from devbox_secrets.keys import KeyStore

Start = Callable[..., AbstractContextManager[Operator]]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane of our own: these tests take its keys away."""
    with ControlPlane.start() as it:
        install(it)
        yield it


@pytest.fixture
def start(plane: ControlPlane, tmp_path: Path) -> Start:
    """Run the operator, which looks at its keys all the time, with a log of its own."""

    @contextmanager
    def run(**settings: str) -> Iterator[Operator]:
        with operator(plane, tmp_path, keys_seconds="0.1", **settings) as it:
            yield it
            it.component.stop()  # so that it gives the Lease back, and the next needn't wait

    return run


@pytest.fixture
def account(plane: ControlPlane) -> Iterator[Account]:
    """A namespace; values are sealed with a key that the test names."""
    name = f"test-{uuid4().hex[:8]}"
    plane.kubectl("create", "namespace", name)
    yield Account(plane, made().public, name)
    plane.kubectl("delete", "accountsecrets", "--all", "-n", name)
    plane.kubectl("delete", "namespace", name, "--wait=false")


def versions(account: Account, name: str) -> list[str]:
    """Give the versions of what the operator could have written for an AccountSecret."""
    objects = (("accountsecret", name), ("secret", "devbox-account-secrets"))
    return [get(account.controlplane, *each, "-n", account.name)["metadata"]["resourceVersion"] for each in objects]


def test_the_first_key_is_made_where_there_is_none(plane: ControlPlane, start: Start) -> None:
    store(plane)
    with start() as it:
        (key_id,) = until("a key is there", lambda: stored(plane))
        is_published(plane, [key_id])
        assert f"made the first sealing key: {key_id}" in it.log


def test_a_key_that_becomes_too_old_is_followed_by_a_new_one(plane: ControlPlane, start: Start) -> None:
    old = made(minutes=59, seconds=55)
    store(plane, old)
    with start(rotate_keys="1h") as it:
        until("a new key is published", lambda: newest(plane) not in {"", old.public.id})
        new = newest(plane)
        assert stored(plane).keys() == published(plane).keys() - {"newest"} == {old.public.id, new}
        assert f"made a new sealing key: {new}" in it.log
    assert stored(plane)[new].created - old.created >= timedelta(hours=1)


def test_without_a_schedule_an_old_key_stays_the_newest(plane: ControlPlane, start: Start) -> None:
    old = made(days=5000)
    store(plane, old)
    with start(rotate_keys="never"):
        # Whether a new one is due was decided before it was published.
        is_published(plane, [old.public.id])
    assert stored(plane).keys() == {old.public.id}


def test_a_new_key_changes_nothing_of_what_was_sealed_before(
    plane: ControlPlane, account: Account, start: Start
) -> None:
    old = made(days=1)
    store(plane, old)
    name = put_sealed(account, old, "TOKEN", b"before")
    with start() as it:
        account.is_ready(name)
        before = versions(account, name)
        annotate(plane, datetime.now(UTC).isoformat())
        until("a new key is published", lambda: newest(plane) not in {"", old.public.id})
        is_published(plane, stored(plane))
        other = put_sealed(account, stored(plane)[newest(plane)], "OTHER", b"after")
        account.is_ready(other)
        assert account.data() == {"TOKEN": b"before", "OTHER": b"after"}
        assert versions(account, name)[0] == before[0]
    with start() as it:
        until("it opened both", lambda: it.metric("devbox_secrets_opens_total") == 2)
        until("every account was looked at", lambda: it.metric("devbox_secrets_queue_depth") == 0)
        assert it.metric('devbox_secrets_writes_total{what="secret"}') == 0


def test_a_request_is_met_by_one_key_even_if_the_clock_of_who_asks_is_ahead(plane: ControlPlane, start: Start) -> None:
    store(plane, made(days=1))
    ahead = datetime.now(UTC) + timedelta(minutes=3)
    with start():
        for number in (2, 3):
            asked = ahead + timedelta(seconds=number)
            annotate(plane, asked.isoformat())
            until("a key meets it", partial(_newest_is_of, plane, asked))
            is_published(plane, stored(plane))
            assert len(stored(plane)) == number


def _newest_is_of(plane: ControlPlane, time: datetime) -> bool:
    return max(key.created for key in stored(plane).values()) == time


@pytest.mark.parametrize("since", ["soon", "2099-01-01T00:00:00Z"])
def test_a_request_that_makes_no_sense_is_told_once_and_harms_nothing(
    plane: ControlPlane, since: str, start: Start
) -> None:
    only = made(days=1)
    store(plane, only)
    annotate(plane, since)
    with start() as it:
        until("it's told", lambda: "asks for no new key" in it.log)
        # A round later: what is stored now is published, and the request was read once more.
        second = made(days=2)
        add(plane, second)
        is_published(plane, [only.public.id, second.public.id])
        assert it.log.count("asks for no new key") == 1
        assert stored(plane).keys() == {only.public.id, second.public.id}
        annotate(plane, datetime.now(UTC).isoformat())
        until("a right one is met", lambda: len(stored(plane)) == 3)


def test_two_replicas_make_one_key_for_each_request(plane: ControlPlane, tmp_path: Path) -> None:
    store(plane, made(days=1))
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with operator(plane, tmp_path / "one") as one, operator(plane, tmp_path / "two") as two:
        for count in (2, 3):
            annotate(plane, datetime.now(UTC).isoformat())
            until("a key is published", lambda: len(published(plane)) == count + 1)  # noqa: B023 - asked in this round
            assert len(stored(plane)) == count
        # Who takes over finds the request met.
        leader, other = sorted((one, two), key=lambda it: it.metric("devbox_secrets_leader"), reverse=True)
        leader.component.kill()
        until("the other took over", lambda: other.metric("devbox_secrets_leader") == 1)
        plane.kubectl("patch", *CONFIGMAP, "--type=merge", "-p", '{"data": {"stray": "x"}}')
        until("it has looked at the keys", lambda: "stray" not in published(plane))
    assert len(stored(plane)) == 3


def test_of_many_who_see_at_once_that_a_key_is_due_one_makes_it(plane: ControlPlane) -> None:
    store(plane, made(days=91))

    async def all_at_once() -> list[bool | BaseException]:
        async with Cluster.connect(plane.kubeconfig) as cluster:
            stores = [KeyStore(cluster, NAMESPACE, lambda: datetime.now(UTC), timedelta(days=90)) for _ in range(8)]
            rounds = (each.refresh(write=True) for each in stores)
            return await asyncio.gather(*rounds, return_exceptions=True)

    outcomes = asyncio.run(all_at_once())
    assert len(stored(plane)) == 2
    is_published(plane, stored(plane))
    # Of those who published the same at the same time one was first.
    refused = [each for each in outcomes if not isinstance(each, bool)]
    assert [each.status for each in refused if isinstance(each, ClusterError)] == [HTTPStatus.CONFLICT] * len(refused)


def test_keys_that_were_all_lost_are_written_back_from_memory(
    plane: ControlPlane, account: Account, start: Start
) -> None:
    keys = made(days=1), made(days=2)
    store(plane, *keys)
    with start() as it:
        is_published(plane, [key.public.id for key in keys])
        empty(plane)
        until("they are back", lambda: stored(plane) == {key.public.id: key for key in keys})
        assert re.search("WARNING.* wrote the lost sealing keys back from memory", it.log)
        account.is_ready(put_sealed(account, keys[1], "TOKEN", b"x"))
        assert published(plane).keys() == {*stored(plane), "newest"}


def test_keys_whose_secret_was_deleted_are_back_once_it_is_applied_again(plane: ControlPlane, start: Start) -> None:
    only = made(days=1)
    store(plane, only)
    with start() as it:
        is_published(plane, [only.public.id])
        plane.kubectl("delete", *SECRET)
        until("it's told", lambda: "the sealing keys can't be read" in it.log)
        plane.kubectl("apply", f"--filename={MANIFEST}")
        until("it is back", lambda: stored(plane) == {only.public.id: only})


def test_a_replica_that_does_not_write_keeps_lost_keys_in_memory_until_it_does(plane: ControlPlane) -> None:
    only = made(days=1)
    store(plane, only)

    async def life() -> None:
        async with Cluster.connect(plane.kubeconfig) as cluster:
            keys = KeyStore(cluster, NAMESPACE, lambda: datetime.now(UTC))
            await keys.refresh(write=False)
            empty(plane)
            await keys.refresh(write=False)
            assert list(keys.keyring) == [only.public.id]
            assert stored(plane) == {}
            await keys.refresh(write=True)

    asyncio.run(life())
    assert stored(plane) == {only.public.id: only}


def test_a_key_that_was_taken_away_alone_is_gone(plane: ControlPlane, account: Account, start: Start) -> None:
    new, old = made(days=1), made(days=2)
    store(plane, new, old)
    with start():
        is_published(plane, [new.public.id, old.public.id])
        remove(plane, old)
        is_published(plane, [new.public.id])
        account.is_ready(put_sealed(account, old, "TOKEN", b"x"), "UnknownKey")
        assert stored(plane).keys() == {new.public.id}
        # And back again, without a restart.
        add(plane, old)
        account.is_ready("token")
        account.holds({"TOKEN": b"x"})


def test_of_very_many_keys_the_newest_are_published_and_all_open(
    plane: ControlPlane, account: Account, start: Start
) -> None:
    keys = [made(hours=number) for number in range(PUBLISHED + 5)]
    store(plane, *keys)
    with start():
        is_published(plane, [key.public.id for key in keys[:PUBLISHED]])
        assert newest(plane) == keys[0].public.id
        account.is_ready(put_sealed(account, keys[-1], "TOKEN", b"x"))


def test_the_log_shows_no_seed(plane: ControlPlane, start: Start) -> None:
    old = made(days=100)
    store(plane, old)
    with start() as it:
        until("a new key is published", lambda: len(published(plane)) == 3)
        keys = stored(plane)
        empty(plane)
        until("they are back", lambda: stored(plane) == keys)
    assert all(key_id in it.log for key_id in keys)
    assert [form for key in keys.values() for form in forms(key) if form in it.log] == []
