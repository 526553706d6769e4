"""The sealing keys' life: made, read, published, and never lost while they are in memory."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from devbox_secrets.api.names import KEYS_SECRET, PUBLIC_KEYS_CONFIGMAP, ROTATE_ANNOTATION
from devbox_secrets.controller.key_manager import KeyManager
from devbox_secrets.crypto.envelope import KeyPair, PublicKey
from devbox_secrets.errors import Forbidden, NotFound, Unreachable
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
        self.manager = KeyManager(KeyStore(FakeClient(self.api), "ours"), lambda: self.now, rotate_every)

    def put(self, *keys: KeyPair, rotate: str | None = None, damaged: KeyPair | None = None) -> None:
        """Have someone else write the Secret."""
        found = {key.public.id: key.dump() for key in keys} | ({damaged.public.id: b"canary"} if damaged else {})
        annotations = {"metadata": {"annotations": {ROTATE_ANNOTATION: rotate}}} if rotate else {"metadata": {}}
        data = {name: base64.b64encode(raw).decode() for name, raw in found.items()}
        self.api.put(SECRET, {**annotations, "data": data})

    @property
    def stored(self) -> list[KeyPair]:
        data = self.api.objects[SECRET].get("data") or {}
        return [KeyPair.load(base64.b64decode(raw)) for raw in data.values()]

    @property
    def public(self) -> dict[str, str]:
        data: dict[str, str] = self.api.objects[CONFIGMAP].get("data") or {}
        return data

    async def writes(self, *, write: bool = True) -> list[str]:
        """Refresh, and give the paths that were written to for that."""
        self.api.requests.clear()
        await self.manager.refresh(write=write)
        return self.api.paths("PATCH")


async def test_the_first_key_is_made_where_there_is_none_and_published() -> None:
    keys = Keys()
    assert await keys.manager.refresh(write=True)
    (key,) = keys.stored
    assert key.created == keys.now
    assert list(keys.manager.keyring) == [key.public.id]
    assert keys.public == {key.public.id: str(key.public), "newest": str(key.public)}


async def test_who_may_not_write_makes_and_publishes_nothing() -> None:
    keys = Keys()
    assert await keys.writes(write=False) == []
    assert not keys.manager.keyring
    keys.put(KEY)
    assert await keys.writes(write=False) == []
    assert list(keys.manager.keyring) == [KEY.public.id]


async def test_a_second_refresh_writes_nothing() -> None:
    keys = Keys(KEY)
    assert await keys.writes() == [CONFIGMAP]
    assert await keys.writes() == []


async def test_new_keys_are_told_once() -> None:
    keys = Keys(OLD_KEY)
    assert [await keys.manager.refresh(write=False) for _ in range(2)] == [True, False]
    keys.put(OLD_KEY, KEY)
    assert [await keys.manager.refresh(write=False) for _ in range(2)] == [True, False]


async def test_new_keys_are_told_although_publishing_them_failed() -> None:
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


async def test_a_key_that_was_removed_is_not_in_use_any_more() -> None:
    keys = Keys(OLD_KEY, KEY)
    await keys.manager.refresh(write=True)
    keys.put(KEY)
    assert not await keys.manager.refresh(write=True)
    assert set(keys.manager.keyring) == {KEY.public.id}
    assert set(keys.public) == {"newest", KEY.public.id}


async def test_the_log_names_keys_that_come_and_go_by_their_ids(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    keys = Keys(OLD_KEY)
    await keys.manager.refresh(write=False)
    keys.put(KEY)
    await keys.manager.refresh(write=False)
    old, new = OLD_KEY.public.id, KEY.public.id
    assert caplog.messages == [
        f"sealing keys: 1, the newest {old}; added: {old}; removed: none",
        f"sealing keys: 1, the newest {new}; added: {new}; removed: {old}",
    ]


async def test_a_change_of_the_secret_that_changes_no_key_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    keys = Keys(KEY)
    await keys.manager.refresh(write=False)
    caplog.clear()
    keys.put(KEY)
    await keys.manager.refresh(write=False)
    assert caplog.messages == []


async def test_a_new_key_is_made_when_the_newest_is_too_old_and_the_old_ones_stay() -> None:
    keys = Keys(KEY, rotate_every=timedelta(days=30))
    keys.now = KEY.created + timedelta(days=30) - timedelta(seconds=1)
    assert not [path for path in await keys.writes() if path == SECRET]
    keys.now += timedelta(seconds=1)
    assert SECRET in await keys.writes()
    assert [key.created for key in keys.stored] == [KEY.created, keys.now]
    assert keys.manager.keyring.newest.created == keys.now


async def test_a_new_key_is_made_when_someone_asks_for_one() -> None:
    keys = Keys()
    keys.put(KEY, rotate="2026-01-31T00:00:00Z")
    await keys.manager.refresh(write=True)
    assert len(keys.stored) == 2
    assert SECRET not in await keys.writes()


async def test_a_request_that_can_not_be_met_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys()
    keys.put(KEY, rotate="some day")
    for _ in range(3):
        await keys.manager.refresh(write=True)
    (line,) = caplog.messages
    assert "devbox-secrets.dev/rotate" in line
    assert "a time with its zone" in line
    assert keys.stored == [KEY]
    keys.put(KEY, rotate="another day")
    await keys.manager.refresh(write=True)
    assert len(caplog.messages) == 2


async def test_a_secret_in_which_no_key_can_be_read_gets_no_other_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys()
    keys.put(damaged=KEY)
    assert await keys.writes() == []
    assert "newest" not in keys.public
    assert f"the sealing key {KEY.public.id} can't be read" in caplog.text
    assert "canary" not in caplog.text


async def test_a_secret_in_which_no_key_can_be_read_gets_one_when_someone_asks() -> None:
    keys = Keys()
    keys.put(rotate="2026-01-31T00:00:00Z", damaged=KEY)
    assert await keys.writes() == [SECRET, CONFIGMAP]
    assert len(keys.manager.keyring) == 1


async def test_keys_that_the_secret_lost_stay_in_use_and_are_written_back(caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys(OLD_KEY, KEY)
    await keys.manager.refresh(write=True)
    caplog.clear()
    keys.put()
    assert not await keys.manager.refresh(write=True)
    assert keys.stored == [OLD_KEY, KEY]
    assert set(keys.manager.keyring) == {OLD_KEY.public.id, KEY.public.id}
    assert keys.manager.stored == keys.manager.keyring
    lost, back = caplog.messages[:2]
    assert "has lost every sealing key" in lost
    assert "wrote the lost sealing keys back from memory" in back


async def test_keys_that_are_only_in_memory_open_but_are_not_sealed_with_nor_published() -> None:
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


async def test_who_writes_the_keys_at_the_same_time_wins_and_is_read(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    keys = Keys()
    keys.api.before["PATCH", SECRET] = lambda: keys.put(KEY)
    assert await keys.manager.refresh(write=True)
    assert keys.stored == [KEY]
    assert set(keys.manager.keyring) == {KEY.public.id}
    assert "someone else changed the sealing keys just now; looking again" in caplog.messages


async def test_keys_that_can_not_be_read_leave_those_in_memory_in_use() -> None:
    keys = Keys(KEY)
    await keys.manager.refresh(write=True)
    keys.api.delete(SECRET)
    with pytest.raises(NotFound):
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
