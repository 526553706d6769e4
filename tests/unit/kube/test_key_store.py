"""The stored sealing keys: how they are read, written and published, and which can be used."""

import base64
from datetime import UTC, datetime
from unittest import mock

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.names import KEYS_SECRET, PUBLIC_KEYS_CONFIGMAP, ROTATE_ANNOTATION
from devbox_secrets.crypto.envelope import KeyPair
from devbox_secrets.errors import Conflict, NotFound
from devbox_secrets.kube.client import Response
from devbox_secrets.kube.key_store import KeyStore, StoredKeys, usable_keys
from unit.kube.fake_api import FakeApi, FakeClient

ONE, TWO = (KeyPair(SecretBytes(bytes([seed] * 32)), datetime(2026, 1, seed, tzinfo=UTC)) for seed in (1, 2))


def stored(*keys: KeyPair) -> dict[str, SecretBytes]:
    return {key.public.id: SecretBytes(key.dump()) for key in keys}


def test_every_key_is_read_back() -> None:
    assert usable_keys(stored(ONE, TWO)) == [ONE, TWO]
    assert usable_keys({}) == []


TIMELESS = ONE.dump().replace(b"+00:00", b"")  # can't be compared with another key's time


@pytest.mark.parametrize(
    "damaged", [b"", b"{}", b"canary", b"\xff", ONE.dump()[:-9], b'{"canary": "canary"}', TIMELESS]
)
def test_only_a_damaged_key_is_skipped_and_the_log_does_not_show_it(
    damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    entries = {**stored(TWO), ONE.public.id: SecretBytes(damaged)}
    assert usable_keys(entries) == [TWO]
    (line,) = caplog.messages
    assert ONE.public.id in line
    assert "cannot read" in line
    assert "canary" not in caplog.text
    assert ONE.dump().decode()[-30:-10] not in caplog.text


def test_a_key_stored_under_another_id_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    assert usable_keys({ONE.public.id: SecretBytes(TWO.dump())}) == []
    (line,) = caplog.messages
    assert ONE.public.id in line
    assert TWO.public.id in line
    assert TWO.dump().decode()[-30:-10] not in caplog.text


SECRET = f"/api/v1/namespaces/ours/secrets/{KEYS_SECRET}"
CONFIGMAP = f"/api/v1/namespaces/ours/configmaps/{PUBLIC_KEYS_CONFIGMAP}"


@pytest.fixture
def api() -> FakeApi:
    """Return an API server with both objects, empty."""
    api = FakeApi()
    api.put(SECRET, {"metadata": {"name": KEYS_SECRET}})
    api.put(CONFIGMAP, {"metadata": {"name": PUBLIC_KEYS_CONFIGMAP}})
    return api


@pytest.fixture
def store(api: FakeApi) -> KeyStore:
    return KeyStore(FakeClient(api), "ours")


def put(api: FakeApi, *keys: KeyPair) -> None:
    data = {key.public.id: base64.b64encode(key.dump()).decode() for key in keys}
    api.put(SECRET, {"metadata": {}, "data": data})


async def test_an_empty_secret_has_no_keys(store: KeyStore) -> None:
    found = await store.read()
    assert (dict(found.entries), found.rotate) == ({}, None)
    assert not found.keyring()


async def test_the_stored_keys_are_read_with_the_rotation_request_and_the_version(
    api: FakeApi, store: KeyStore
) -> None:
    put(api, ONE, TWO)
    await store.request_rotation("2026-01-01T00:00:00Z")
    found = await store.read()
    assert set(found.keyring().values()) == {ONE, TWO}
    assert found.rotate == "2026-01-01T00:00:00Z"
    assert found.resource_version == api.objects[SECRET]["metadata"]["resourceVersion"]


async def test_keys_can_be_added_and_removed_without_changing_others(api: FakeApi, store: KeyStore) -> None:
    put(api, ONE)
    await store.write(await store.read(), stored(TWO))
    assert set((await store.read()).keyring().values()) == {ONE, TWO}
    await store.write(await store.read(), {ONE.public.id: None})
    assert list((await store.read()).keyring().values()) == [TWO]


async def test_removed_keys_are_recorded_until_they_are_added_again(api: FakeApi, store: KeyStore) -> None:
    put(api, ONE, TWO)
    await store.write(await store.read(), {ONE.public.id: None})
    assert (await store.read()).pruned == {ONE.public.id}
    await store.write(await store.read(), {TWO.public.id: None})
    assert (await store.read()).pruned == {ONE.public.id, TWO.public.id}
    await store.write(await store.read(), stored(ONE))
    assert (await store.read()).pruned == {TWO.public.id}
    await store.write(await store.read(), stored(TWO))
    assert (await store.read()).pruned == set()


async def test_writing_keys_does_not_overwrite_a_concurrent_write(api: FakeApi, store: KeyStore) -> None:
    found = await store.read()
    put(api, ONE)
    with pytest.raises(Conflict):
        await store.write(found, stored(TWO))
    assert list((await store.read()).keyring().values()) == [ONE]


async def test_without_a_secret_there_are_no_keys(api: FakeApi, store: KeyStore) -> None:
    api.delete(SECRET)
    assert await store.read() == StoredKeys({}, "")


async def test_writing_keys_creates_a_missing_secret(api: FakeApi, store: KeyStore) -> None:
    api.delete(SECRET)
    await store.write(await store.read(), stored(ONE))
    assert list((await store.read()).keyring().values()) == [ONE]
    assert api.objects[SECRET]["type"] == "Opaque"


async def test_keys_that_someone_else_creates_at_the_same_time_are_a_conflict(api: FakeApi, store: KeyStore) -> None:
    api.delete(SECRET)
    found = await store.read()
    # Server-side apply keeps what another field manager wrote.
    created = {"metadata": {"resourceVersion": "7"}, "data": {ONE.public.id: "eA=="}}
    with mock.patch.object(FakeApi, "handle", return_value=Response(200, created)) as handle, pytest.raises(Conflict):
        await store.write(found, stored(TWO))
    assert handle.call_count == 1


async def test_a_secret_that_is_deleted_at_the_same_time_is_a_conflict(api: FakeApi, store: KeyStore) -> None:
    found = await store.read()
    api.delete(SECRET)
    with pytest.raises(Conflict):
        await store.write(found, stored(ONE))
    assert SECRET not in api.objects


@pytest.mark.parametrize("exists", [True, False])
async def test_requesting_a_rotation_changes_nothing_else(api: FakeApi, store: KeyStore, exists: bool) -> None:
    put(api, ONE)
    data = api.objects[SECRET]["data"] if exists else None
    if not exists:
        api.delete(SECRET)
    await store.request_rotation("2026-01-01T00:00:00Z")
    assert api.objects[SECRET].get("data") == data
    assert api.objects[SECRET]["metadata"]["annotations"] == {ROTATE_ANNOTATION: "2026-01-01T00:00:00Z"}


async def test_a_request_is_removed_by_the_write_of_the_requested_key(api: FakeApi, store: KeyStore) -> None:
    await store.request_rotation("2026-01-01T00:00:00Z")
    await store.write(await store.read(), stored(ONE), answered=True)
    found = await store.read()
    assert (found.rotate, list(found.keyring().values())) == (None, [ONE])


async def test_the_newest_public_key_is_also_published_under_its_own_name(store: KeyStore) -> None:
    assert await store.read_public() == {}
    await store.publish([TWO.public, ONE.public])
    assert await store.read_public() == {
        TWO.public.id: str(TWO.public),
        ONE.public.id: str(ONE.public),
        "newest": str(TWO.public),
    }


async def test_unchanged_public_keys_are_not_written_again(api: FakeApi, store: KeyStore) -> None:
    await store.publish([ONE.public])
    await store.publish([ONE.public])
    assert api.paths("PATCH") == [CONFIGMAP]


async def test_a_public_key_that_is_no_longer_published_is_removed(store: KeyStore) -> None:
    await store.publish([TWO.public, ONE.public])
    await store.publish([TWO.public])
    assert set(await store.read_public()) == {TWO.public.id, "newest"}


async def test_publishing_does_not_overwrite_a_concurrent_write(api: FakeApi, store: KeyStore) -> None:
    api.before["PATCH", CONFIGMAP] = lambda: api.put(CONFIGMAP, {"metadata": {}, "data": {"theirs": "x"}})
    with pytest.raises(Conflict):
        await store.publish([ONE.public])
    assert await store.read_public() == {"theirs": "x"}


async def test_without_keys_nothing_is_published(api: FakeApi, store: KeyStore) -> None:
    await store.publish([ONE.public])
    await store.publish([])
    assert await store.read_public() == {}


async def test_publishing_without_the_configmap_is_an_error(api: FakeApi, store: KeyStore) -> None:
    api.delete(CONFIGMAP)
    with pytest.raises(NotFound):
        await store.publish([ONE.public])


async def test_no_stored_key_is_printed(api: FakeApi, store: KeyStore) -> None:
    put(api, ONE)
    assert ONE.dump().decode()[-30:-10] not in repr(await store.read())
