"""Sealing keys: they are created, read and published, and never lost while they are in memory."""

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from devbox_secrets.api.names import KEYS_SECRET, PUBLIC_KEYS_CONFIGMAP, ROTATE_ANNOTATION
from devbox_secrets.controller.key_manager import KeyManager
from devbox_secrets.controller.rules.events import KEYS_LOST, Event
from devbox_secrets.crypto.envelope import KeyPair, PublicKey
from devbox_secrets.errors import Forbidden, Unreachable
from devbox_secrets.kube.key_store import KeyStore
from unit.controller.objects import KEY, OLD_KEY
from unit.kube.fake_api import FakeApi, FakeClient

SECRET = f"/api/v1/namespaces/ours/secrets/{KEYS_SECRET}"
CONFIGMAP = f"/api/v1/namespaces/ours/configmaps/{PUBLIC_KEYS_CONFIGMAP}"


class Keys:
    """The Secret and the ConfigMap, and the operator's view of them."""

    def __init__(self, *keys: KeyPair, rotate_every: timedelta | None = None) -> None:
        self.api = FakeApi()
        self.api.put(SECRET, {"metadata": {}})
        self.api.put(CONFIGMAP, {"metadata": {}})
        self.now = datetime(2026, 2, 1, tzinfo=UTC)
        self.put(*keys)
        self.sealed: list[str] | None = []
        """Sealed values in the cluster, None before they are known."""
        self.events: list[Event] = []
        self.manager = self.another_manager(rotate_every)

    def another_manager(self, rotate_every: timedelta | None = None) -> KeyManager:
        """Return the key manager of a process that has just started."""

        async def record(event: Event) -> None:
            self.events.append(event)

        store = KeyStore(FakeClient(self.api), "ours")
        return KeyManager(store, lambda: self.now, rotate_every, sealed=lambda: self.sealed, record=record)

    def seal(self, key: KeyPair) -> None:
        """Add a value that is sealed with a key."""
        assert self.sealed is not None
        self.sealed.append(f"dbs1.{key.public.id}.x")

    def put(self, *keys: KeyPair, rotate: str | None = None, damaged: KeyPair | None = None) -> None:
        """Write the Secret as someone else would."""
        found = {key.public.id: key.dump() for key in keys} | ({damaged.public.id: b"canary"} if damaged else {})
        annotations = {"metadata": {"annotations": {ROTATE_ANNOTATION: rotate}}} if rotate else {"metadata": {}}
        data = {name: base64.b64encode(raw).decode() for name, raw in found.items()}
        self.api.put(SECRET, {**annotations, "data": data})

    @property
    def stored(self) -> list[KeyPair]:
        data = self.api.objects.get(SECRET, {}).get("data") or {}
        return [KeyPair.load(base64.b64decode(raw)) for raw in data.values()]

    @property
    def public(self) -> dict[str, str]:
        data: dict[str, str] = self.api.objects[CONFIGMAP].get("data") or {}
        return data

    async def writes(self, *, write: bool = True) -> list[str]:
        """Refresh; return the paths that were written."""
        self.api.requests.clear()
        await self.manager.refresh(write=write)
        return self.api.paths("PATCH")


async def test_the_first_key_is_created_and_published() -> None:
    keys = Keys()
    assert await keys.manager.refresh(write=True)
    (key,) = keys.stored
    assert key.created == keys.now
    assert list(keys.manager.keyring) == [key.public.id]
    assert keys.public == {key.public.id: str(key.public), "newest": str(key.public)}


async def test_a_replica_that_may_not_write_creates_and_publishes_no_key() -> None:
    keys = Keys()
    assert await keys.writes(write=False) == []
    assert not keys.manager.keyring
    keys.put(KEY)
    assert await keys.writes(write=False) == []
    assert list(keys.manager.keyring) == [KEY.public.id]


async def test_a_key_from_the_future_is_replaced_on_request() -> None:
    keys = Keys()
    ahead = KeyPair.generate(keys.now + timedelta(minutes=20))
    keys.put(ahead, rotate=(ahead.created + timedelta(microseconds=1)).isoformat())
    await keys.manager.refresh(write=True)
    assert keys.manager.keyring.newest.public.id != ahead.public.id
    assert ROTATE_ANNOTATION not in keys.api.objects[SECRET]["metadata"].get("annotations", {})


async def test_a_second_refresh_writes_nothing() -> None:
    keys = Keys(KEY)
    assert await keys.writes() == [CONFIGMAP]
    assert await keys.writes() == []


async def test_new_keys_are_reported_once() -> None:
    keys = Keys(OLD_KEY)
    assert [await keys.manager.refresh(write=False) for _ in range(2)] == [True, False]
    keys.put(OLD_KEY, KEY)
    assert [await keys.manager.refresh(write=False) for _ in range(2)] == [True, False]


async def test_new_keys_are_reported_even_if_publishing_them_failed() -> None:
    keys = Keys(KEY)
    keys.api.fail("PATCH", CONFIGMAP, Unreachable("no"))
    with pytest.raises(Unreachable):
        await keys.manager.refresh(write=True)
    assert await keys.manager.refresh(write=True)


async def test_the_newest_key_is_published_as_such() -> None:
    keys = Keys(OLD_KEY, KEY)
    await keys.manager.refresh(write=True)
    assert PublicKey.parse(keys.public["newest"]) == KEY.public
    assert set(keys.public) == {"newest", KEY.public.id, OLD_KEY.public.id}


async def test_a_removed_key_is_no_longer_used() -> None:
    keys = Keys(OLD_KEY, KEY)
    await keys.manager.refresh(write=True)
    keys.put(KEY)
    assert not await keys.manager.refresh(write=True)
    assert set(keys.manager.keyring) == {KEY.public.id}
    assert set(keys.public) == {"newest", KEY.public.id}


async def test_added_and_removed_keys_are_logged_by_id(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    keys = Keys(OLD_KEY)
    for now in ([OLD_KEY, KEY], [KEY]):
        await keys.manager.refresh(write=False)
        keys.put(*now)
    await keys.manager.refresh(write=False)
    old, new = OLD_KEY.public.id, KEY.public.id
    assert caplog.messages == [
        f"sealing keys: 1 (newest: {old}); added: {old}; removed: none",
        f"sealing keys: 2 (newest: {new}); added: {new}; removed: none",
        f"sealing keys: 1 (newest: {new}); added: none; removed: {old}",
    ]


async def test_a_change_of_the_secret_that_changes_no_key_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    keys = Keys(KEY)
    await keys.manager.refresh(write=False)
    caplog.clear()
    keys.put(KEY)
    await keys.manager.refresh(write=False)
    assert caplog.messages == []


async def test_a_new_key_is_created_when_the_newest_is_too_old_and_the_old_ones_stay() -> None:
    keys = Keys(KEY, rotate_every=timedelta(days=30))
    keys.now = KEY.created + timedelta(days=30) - timedelta(seconds=1)
    assert not [path for path in await keys.writes() if path == SECRET]
    keys.now += timedelta(seconds=1)
    assert SECRET in await keys.writes()
    assert [key.created for key in keys.stored] == [KEY.created, keys.now]
    assert keys.manager.keyring.newest.created == keys.now


async def test_a_new_key_is_created_on_request() -> None:
    keys = Keys()
    keys.put(KEY, rotate="2026-01-31T00:00:00Z")
    await keys.manager.refresh(write=True)
    assert len(keys.stored) == 2
    assert SECRET not in await keys.writes()


async def test_an_invalid_request_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys()
    keys.put(KEY, rotate="some day")
    for _ in range(3):
        await keys.manager.refresh(write=True)
    (line,) = caplog.messages
    assert "devbox-secrets.dev/rotate" in line
    assert "a time with a time zone" in line
    assert keys.stored == [KEY]
    keys.put(KEY, rotate="another day")
    await keys.manager.refresh(write=True)
    assert len(caplog.messages) == 2


async def test_if_no_key_is_readable_none_is_created_without_a_request(caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys()
    keys.put(damaged=KEY)
    assert await keys.writes() == []
    assert "newest" not in keys.public
    assert f"cannot read the sealing key {KEY.public.id}" in caplog.text
    assert "canary" not in caplog.text


async def test_if_no_key_is_readable_one_is_created_on_request() -> None:
    keys = Keys()
    keys.put(rotate="2026-01-31T00:00:00Z", damaged=KEY)
    assert await keys.writes() == [SECRET, CONFIGMAP]
    assert len(keys.manager.keyring) == 1


@pytest.mark.parametrize(
    "way", ["emptied", "deleted", "replaced by an older state", "replaced by other keys", "damaged"]
)
async def test_keys_that_the_secret_lost_stay_in_use_and_are_written_back(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = Keys(OLD_KEY, KEY)
    await keys.manager.refresh(write=True)
    caplog.clear()
    other = KeyPair.generate(keys.now)
    match way:
        case "emptied":
            keys.put()
        case "deleted":
            keys.api.delete(SECRET)
        case "replaced by an older state":
            keys.put(OLD_KEY)
        case "replaced by other keys":
            keys.put(other)
        case _:
            keys.put(OLD_KEY, damaged=KEY)
    await keys.manager.refresh(write=True)
    all_keys = {OLD_KEY, KEY} | ({other} if way == "replaced by other keys" else set())
    assert set(keys.stored) == set(keys.manager.keyring.values()) == all_keys
    assert keys.manager.stored == keys.manager.keyring
    assert keys.public.keys() == {"newest", *keys.manager.keyring}
    lost, back = (line for line in caplog.messages if "lost" in line)
    assert f"the Secret {KEYS_SECRET} has lost sealing keys" in lost
    assert "wrote back lost sealing keys from memory" in back
    assert SECRET not in await keys.writes()


async def test_a_key_that_came_into_use_as_it_was_pruned_is_written_back() -> None:
    keys = Keys(OLD_KEY, KEY)
    await keys.manager.refresh(write=True)
    keys.seal(OLD_KEY)
    keys.put(KEY)
    await keys.manager.refresh(write=True)
    assert set(keys.stored) == {OLD_KEY, KEY}


async def test_at_shutdown_only_lost_keys_are_written() -> None:
    keys = Keys(rotate_every=timedelta(days=1))
    await keys.manager.write_back()
    assert keys.api.paths("PATCH") == []
    keys.put(KEY)
    await keys.manager.refresh(write=False)
    keys.api.delete(SECRET)
    await keys.manager.write_back()
    assert keys.stored == [KEY]
    assert CONFIGMAP not in keys.api.paths("PATCH")


async def test_if_values_need_lost_keys_none_is_created_and_it_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = Keys(KEY, rotate_every=timedelta(days=1))
    await keys.manager.refresh(write=True)
    keys.seal(KEY)
    keys.api.delete(SECRET)
    keys.manager = keys.another_manager(timedelta(days=1))
    caplog.clear()
    for write in (False, True, True):
        await keys.manager.refresh(write=write)
        assert keys.manager.missing
    assert SECRET not in keys.api.objects
    assert keys.public == {}  # so that nothing else is sealed with lost keys
    assert keys.events == [KEYS_LOST]
    (line,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert "devbox-secrets keys restore FILE" in line.message
    keys.put(KEY)
    assert await keys.manager.refresh(write=True)
    assert not keys.manager.missing
    assert "newest" in keys.public


async def test_if_values_need_lost_keys_one_is_created_on_request() -> None:
    keys = Keys()
    keys.seal(KEY)
    keys.put(rotate="2026-01-31T00:00:00Z")
    await keys.manager.refresh(write=True)
    (key,) = keys.stored
    assert PublicKey.parse(keys.public["newest"]) == key.public
    # The request was for one key: no second one is created if this one is lost.
    keys.api.put(SECRET, {**keys.api.objects[SECRET], "data": {}})
    keys.manager = keys.another_manager()
    await keys.manager.refresh(write=True)
    assert keys.manager.missing


async def test_no_first_key_is_created_before_the_values_are_known() -> None:
    keys = Keys()
    keys.sealed = None
    await keys.manager.refresh(write=True)
    assert keys.stored == []
    assert not keys.manager.missing
    keys.sealed = []
    await keys.manager.refresh(write=True)
    assert len(keys.stored) == 1


async def test_a_key_from_the_future_is_dated_now_and_stays_the_newest() -> None:
    keys = Keys()
    future = replace(KEY, created=keys.now + timedelta(days=40_000))
    keys.put(OLD_KEY, future)
    await keys.manager.refresh(write=True)
    assert {key.public.id: key.created for key in keys.stored} == {
        OLD_KEY.public.id: OLD_KEY.created,
        KEY.public.id: keys.now,
    }
    assert PublicKey.parse(keys.public["newest"]) == KEY.public
    assert SECRET not in await keys.writes()


@pytest.mark.parametrize("ahead", [timedelta(seconds=1), timedelta(minutes=4), timedelta(days=40_000)])
async def test_a_request_is_satisfied_although_the_newest_key_is_from_the_future(ahead: timedelta) -> None:
    keys = Keys()
    keys.put(replace(KEY, created=keys.now + ahead), rotate=keys.now.isoformat())
    await keys.manager.refresh(write=True)
    assert len(keys.stored) == 2
    assert keys.manager.keyring.newest.public.id != KEY.public.id
    assert max(key.created for key in keys.stored) - keys.now < timedelta(seconds=1)
    assert SECRET not in await keys.writes()


async def test_a_request_that_the_newest_key_satisfies_is_removed() -> None:
    keys = Keys()
    keys.put(KEY, rotate=KEY.created.isoformat())
    await keys.manager.refresh(write=True)
    assert keys.stored == [KEY]
    assert not keys.api.objects[SECRET]["metadata"]["annotations"]


async def test_keys_that_are_only_in_memory_are_used_to_open_but_not_to_seal() -> None:
    keys = Keys(KEY)
    await keys.manager.refresh(write=True)
    keys.put()
    await keys.manager.refresh(write=False)
    assert set(keys.manager.keyring) == {KEY.public.id}
    assert not keys.manager.stored
    keys.api.fail("PATCH", SECRET, Forbidden("no"))
    with pytest.raises(Forbidden):
        await keys.manager.refresh(write=True)
    assert not keys.manager.stored


async def test_a_concurrent_write_of_the_keys_wins_and_is_read(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    keys = Keys()
    keys.api.before["PATCH", SECRET] = lambda: keys.put(KEY)
    assert await keys.manager.refresh(write=True)
    assert keys.stored == [KEY]
    assert set(keys.manager.keyring) == {KEY.public.id}
    assert "the sealing keys were changed meanwhile; reading them again" in caplog.messages


async def test_if_keys_cannot_be_read_those_in_memory_stay_in_use() -> None:
    keys = Keys(KEY)
    await keys.manager.refresh(write=True)
    keys.api.fail("GET", SECRET, Unreachable("no"))
    with pytest.raises(Unreachable):
        await keys.manager.refresh(write=True)
    assert set(keys.manager.keyring) == {KEY.public.id}


async def test_no_seed_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    keys = Keys()
    await keys.manager.refresh(write=True)
    keys.put()
    await keys.manager.refresh(write=True)
    for key in keys.stored:
        assert key.dump().decode()[-40:-2] not in caplog.text
        assert key.seed.get_secret_value().hex() not in caplog.text
