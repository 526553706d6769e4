"""Sealing keys: which are listed, which can be removed, and how they are pruned, restored and rotated."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.names import ALL_ACCOUNT_SECRETS_PATH, KEYS_SECRET, PUBLIC_KEYS_CONFIGMAP, ROTATE_ANNOTATION
from devbox_secrets.cli.resources import sealing_keys
from devbox_secrets.cli.resources.sealing_keys import (
    KeyRow,
    KeyState,
    just_replaced,
    overview,
    removable,
    why_not_removable,
)
from devbox_secrets.crypto.envelope import KeyPair, Keyring
from devbox_secrets.errors import Forbidden, KeyInUse, NotFound
from devbox_secrets.kube.key_store import KeyStore
from unit.kube.fake_api import FakeApi, FakeClient

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def keyring(count: int) -> Keyring:
    return Keyring(KeyPair(SecretBytes(bytes([number] * 32)), ago(number)) for number in range(count))


THREE = keyring(3)
NEW, MIDDLE, OLD = (key.public.id for key in THREE.newest_first())
UNKNOWN = "0123456789abcdef"
CREATED = {key_id: key.created for key_id, key in THREE.items()}
USED = {MIDDLE: ["team-a/token", "team-b/token"]}


def test_keys_are_listed_newest_first_with_the_number_of_uses() -> None:
    assert overview(NEW, CREATED, (), USED) == [
        KeyRow(NEW, KeyState.NEWEST, ago(0), 0),
        KeyRow(MIDDLE, KeyState.OLDER, ago(1), 2),
        KeyRow(OLD, KeyState.OLDER, ago(2), 0),
    ]


def test_a_missing_key_that_is_in_use_is_listed_last() -> None:
    rows = overview(NEW, {NEW: ago(0)}, (), {UNKNOWN: ["team-a/token"], NEW: ["team-a/other"]})
    assert rows == [KeyRow(NEW, KeyState.NEWEST, ago(0), 1), KeyRow(UNKNOWN, KeyState.MISSING, None, 1)]


def test_a_damaged_key_is_listed_even_if_it_is_unused() -> None:
    rows = overview(NEW, {NEW: ago(0)}, {MIDDLE, UNKNOWN}, USED)
    assert rows[1:] == sorted(
        [KeyRow(MIDDLE, KeyState.DAMAGED, None, 2), KeyRow(UNKNOWN, KeyState.DAMAGED, None, 0)], key=lambda row: row.id
    )


def test_unknown_uses_and_creation_times_are_left_empty() -> None:
    rows = overview(NEW, dict.fromkeys((OLD, NEW)), (), None)
    assert rows == [KeyRow(NEW, KeyState.NEWEST, None, None), KeyRow(OLD, KeyState.OLDER, None, None)]
    assert overview(None, {}, (), {}) == []


def test_unused_keys_can_be_removed_but_never_the_newest() -> None:
    now = ago(-1)
    assert removable(THREE, {}, now) == [MIDDLE, OLD]
    assert removable(THREE, USED, now) == [OLD]
    assert removable(THREE, {MIDDLE: ["a/b"], OLD: ["a/c"], NEW: []}, now) == []
    assert removable(Keyring(()), USED, now) == []


@pytest.mark.parametrize(("seconds", "stays"), [(0, True), (29, True), (-400, True), (31, False)])
def test_the_previous_newest_key_is_kept_for_30_seconds(seconds: float, *, stays: bool) -> None:
    now = ago(0) + timedelta(seconds=seconds)
    assert just_replaced(THREE, now) == ({MIDDLE} if stays else set())
    assert (MIDDLE in removable(THREE, {}, now)) is not stays
    problem = why_not_removable(MIDDLE, THREE, NEW, {}, just_replaced(THREE, now))
    assert problem == (
        f"{MIDDLE} was the newest key until just now, and a gateway may still seal with it; wait 30 seconds"
        if stays
        else None
    )


def why(key_id: str, used: dict[str, list[str]] | None = None) -> str | None:
    return why_not_removable(key_id, [NEW, MIDDLE, OLD, UNKNOWN], NEW, used or {})


def test_an_unused_key_can_be_removed_even_if_it_is_damaged() -> None:
    assert why(OLD, USED) is None
    assert why(UNKNOWN) is None


def test_an_unknown_key_is_reported() -> None:
    assert why("fedcba9876543210") == (
        "there is no sealing key fedcba9876543210; list the keys with: devbox-secrets keys list"
    )


def test_the_newest_key_cannot_be_removed() -> None:
    assert why(NEW) == (
        f"{NEW} is the newest key, which seals new values; create another first: devbox-secrets keys rotate"
    )


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (1, "is in use by 1 AccountSecret: a/00;"),
        (2, "is in use by 2 AccountSecrets: a/00, a/01;"),
        (10, "is in use by 10 AccountSecrets: a/00, a/01, a/02, a/03, a/04, a/05, a/06, a/07, a/08, a/09;"),
        (12, "a/09 and 2 more; reseal values in files with devbox-secrets reseal"),
    ],
)
def test_a_key_in_use_is_kept_and_its_users_are_named(count: int, message: str) -> None:
    assert message in str(why(MIDDLE, {MIDDLE: [f"a/{number:02}" for number in reversed(range(count))]}))


# --- In the cluster

SECRET = f"/api/v1/namespaces/ours/secrets/{KEYS_SECRET}"
CONFIGMAP = f"/api/v1/namespaces/ours/configmaps/{PUBLIC_KEYS_CONFIGMAP}"


@pytest.fixture
def api() -> FakeApi:
    """Return an API server with three keys."""
    api = FakeApi()
    data = {key_id: base64.b64encode(key.dump()).decode() for key_id, key in THREE.items()}
    api.put(SECRET, {"metadata": {"name": KEYS_SECRET}, "data": data})
    api.put(CONFIGMAP, {"metadata": {"name": PUBLIC_KEYS_CONFIGMAP}})
    return api


def use(api: FakeApi, key_id: str) -> None:
    """Create an AccountSecret that is sealed with a key."""
    path = ALL_ACCOUNT_SECRETS_PATH.replace("accountsecrets", "namespaces/team/accountsecrets/token")
    metadata = {"namespace": "team", "name": "token", "generation": 1}
    api.put(path, {"metadata": metadata, "spec": {"name": "TOKEN", "sealed": f"dbs1.{key_id}.x"}})


async def test_pruned_keys_are_removed_and_recorded(api: FakeApi) -> None:
    await sealing_keys.prune(FakeClient(api), "ours", [MIDDLE, OLD])
    stored = await KeyStore(FakeClient(api), "ours").read()
    assert set(stored.entries) == {NEW}
    assert stored.pruned == {MIDDLE, OLD}


async def test_a_key_that_comes_into_use_just_before_its_removal_is_restored(api: FakeApi) -> None:
    before = api.objects[SECRET]["data"]
    api.before["PATCH", SECRET] = lambda: use(api, OLD)
    with pytest.raises(KeyInUse) as caught:
        await sealing_keys.prune(FakeClient(api), "ours", [MIDDLE, OLD])
    assert str(caught.value).startswith(
        f"restored keys that came into use in the meantime: {OLD} is in use by 1 AccountSecret: team/"
    )
    assert api.objects[SECRET]["data"] == {key_id: before[key_id] for key_id in (NEW, OLD)}
    assert (await KeyStore(FakeClient(api), "ours").read()).pruned == {MIDDLE}


async def test_a_restore_creates_the_secret(api: FakeApi) -> None:
    api.delete(SECRET)
    assert await sealing_keys.restore(FakeClient(api), "ours", [THREE[OLD]]) == [OLD]
    assert list((await KeyStore(FakeClient(api), "ours").read()).keyring()) == [OLD]


async def test_a_missing_permission_to_create_the_secret_is_reported(api: FakeApi) -> None:
    api.delete(SECRET)
    api.fail("PATCH", SECRET, Forbidden("403"))
    with pytest.raises(Forbidden, match=f"you need permission to create and patch the Secret {KEYS_SECRET} in ours"):
        await sealing_keys.restore(FakeClient(api), "ours", [THREE[OLD]])


async def test_nothing_is_restored_without_an_installation(api: FakeApi) -> None:
    api.delete(SECRET)
    api.delete(CONFIGMAP)
    with pytest.raises(NotFound, match="isn't installed in the namespace ours; install it"):
        await sealing_keys.restore(FakeClient(api), "ours", [THREE[OLD]])
    assert SECRET not in api.objects


async def test_without_the_public_keys_the_installation_may_be_elsewhere(api: FakeApi) -> None:
    api.fail("GET", CONFIGMAP, Forbidden("403"))
    with pytest.raises(Forbidden, match="403; if devbox-secrets is in another namespace, pass --operator-namespace"):
        await sealing_keys.newest_public(FakeClient(api), "ours")
    api.delete(CONFIGMAP)
    with pytest.raises(NotFound, match="isn't installed in the namespace ours; install it, or pass"):
        await sealing_keys.newest_public(FakeClient(api), "ours")


async def test_a_server_that_is_no_api_server_says_nothing_about_the_installation(api: FakeApi) -> None:
    api.fail("GET", CONFIGMAP, NotFound("GET /x: 404 no reason given"))
    with pytest.raises(NotFound, match=r"^GET /x: 404 no reason given; check server in the kubeconfig$"):
        await sealing_keys.newest_public(FakeClient(api), "ours")


async def test_keys_are_not_listed_without_the_crd(api: FakeApi) -> None:
    api.fail("GET", ALL_ACCOUNT_SECRETS_PATH, NotFound("404"))
    with pytest.raises(NotFound, match="the cluster has no AccountSecrets resource; install devbox-secrets"):
        await sealing_keys.visible(FakeClient(api), "ours")


async def test_a_new_key_can_be_requested_without_a_secret(api: FakeApi) -> None:
    api.delete(SECRET)
    assert await sealing_keys.rotate(FakeClient(api), "ours", None) is None
    assert ROTATE_ANNOTATION in api.objects[SECRET]["metadata"]["annotations"]


@pytest.mark.parametrize(("ahead", "later"), [(timedelta(minutes=7), True), (timedelta(days=2), False)])
async def test_a_key_created_by_a_clock_slightly_ahead_is_replaced(
    api: FakeApi, ahead: timedelta, *, later: bool
) -> None:
    key = KeyPair.generate(datetime.now(UTC) + ahead)
    api.put(SECRET, {"data": {key.public.id: base64.b64encode(key.dump()).decode()}})
    await sealing_keys.rotate(FakeClient(api), "ours", None)
    since = datetime.fromisoformat(api.objects[SECRET]["metadata"]["annotations"][ROTATE_ANNOTATION])
    assert (since > key.created) is later


async def test_a_new_key_can_be_requested_without_permission_to_read_the_keys(api: FakeApi) -> None:
    api.fail("GET", SECRET, Forbidden("403"))
    await sealing_keys.rotate(FakeClient(api), "ours", None)
    assert ROTATE_ANNOTATION in api.objects[SECRET]["metadata"]["annotations"]


async def test_without_a_secret_keys_in_use_are_listed_as_missing(api: FakeApi) -> None:
    api.delete(SECRET)
    use(api, OLD)
    assert (await sealing_keys.visible(FakeClient(api), "ours")).rows == [KeyRow(OLD, KeyState.MISSING, None, 1)]
