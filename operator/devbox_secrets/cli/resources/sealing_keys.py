"""Management of the sealing keys in the cluster, with the caller's own permissions."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import TypeVar

from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.api.names import ALL_ACCOUNT_SECRETS_PATH, KEYS_SECRET, PUBLIC_KEYS_CONFIGMAP, PUBLIC_KEYS_MAX
from devbox_secrets.cli.kit.options import not_installed
from devbox_secrets.cli.resources.account_secrets import crd_installed
from devbox_secrets.crypto.envelope import KeyPair, Keyring, PublicKey
from devbox_secrets.errors import Conflict, Forbidden, InvalidKey, KeyInUse, NotFound
from devbox_secrets.kube.client import Body, Client
from devbox_secrets.kube.key_store import KeyStore, StoredKeys

T = TypeVar("T")
_SECRET = f"the Secret {KEYS_SECRET}"
_CONFIGMAP = f"the ConfigMap {PUBLIC_KEYS_CONFIGMAP}"
_POLL_SECONDS = 0.5
_ATTEMPTS = 5
#: The number of AccountSecrets that a message names.
_NAMED = 10
#: How long a key stays after its successor was created: a gateway seals with it for up to 15 seconds.
_REPLACED_FOR = timedelta(seconds=30)
#: How far the operator's clock may be ahead of ours.
_CLOCK_SKEW = timedelta(hours=1)


class KeyState(StrEnum):
    """The state of a sealing key."""

    NEWEST = "newest"
    """New values are sealed with it."""
    OLDER = "older"
    """It opens existing values."""
    DAMAGED = "damaged"
    """It is stored, but can't be read."""
    MISSING = "missing"
    """AccountSecrets are sealed with it, but it isn't stored."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A row in the list of sealing keys."""

    id: str
    state: KeyState
    created: datetime | None
    used_by: int | None
    """How many AccountSecrets are sealed with it; None if the caller can't list them."""


@dataclass(frozen=True, slots=True)
class VisibleKeys:
    """The keys that the caller can see, and messages about what they can't."""

    rows: Sequence[KeyRow]
    unseen: Sequence[str]


async def visible(client: Client, namespace: str) -> VisibleKeys:
    """List the keys; a caller who can't read the Secret gets the information in the public keys."""
    store = KeyStore(client, namespace)
    unseen = []
    used = await _if_allowed(_used(client))
    if used is None:
        unseen.append("the counts are unknown: you don't have permission to list AccountSecrets in all namespaces")
    stored = await _if_allowed(_read(store, namespace))
    if stored is not None:
        keyring = stored.keyring()
        created = {key_id: key.created for key_id, key in keyring.items()}
        return VisibleKeys(overview(_newest(keyring), created, stored.entries.keys() - created.keys(), used), unseen)
    unseen.append(
        f"only the newest {PUBLIC_KEYS_MAX} keys are shown, without creation times: you don't have permission to get"
        f" {_SECRET} in {namespace}"
    )
    with _permission("get", namespace, _CONFIGMAP):
        public = await store.read_public()
    newest = PublicKey.parse(public["newest"]).id if "newest" in public else None
    return VisibleKeys(overview(newest, dict.fromkeys(public.keys() - {"newest"}), (), used), unseen)


async def newest_public(client: Client, namespace: str) -> PublicKey:
    """Read the newest public key.

    Raises:
        InvalidKey: no key exists yet.
        APIError: the public keys can't be read.
    """
    with _permission("get", namespace, _CONFIGMAP):
        keys = await KeyStore(client, namespace).read_public()
    if "newest" not in keys:
        raise _no_key_yet(namespace)
    return PublicKey.parse(keys["newest"])


async def read(client: Client, namespace: str) -> Keyring:
    """Read all usable keys.

    Raises:
        InvalidKey: there are none.
    """
    keyring = (await _read(KeyStore(client, namespace), namespace)).keyring()
    if not keyring:
        raise _no_key_yet(namespace)
    return keyring


async def rotate(client: Client, namespace: str, seconds: float | None) -> str | None:
    """Request a new key from the operator and return its id; None after a timeout, or without waiting."""
    store = KeyStore(client, namespace)
    with _permission("get", namespace, _CONFIGMAP):
        before = (await store.read_public()).get("newest")
    since = datetime.now(UTC)
    stored = await _if_allowed(store.read())
    # If the operator's clock is ahead of ours, its newest key is newer than now, and must be replaced anyway.
    if stored and (keyring := stored.keyring()) and since <= keyring.newest.created < since + _CLOCK_SKEW:
        since = keyring.newest.created + timedelta(microseconds=1)
    with _permission("patch", namespace):
        await store.request_rotation(since.isoformat())
    if seconds is None:
        return None
    try:
        async with asyncio.timeout(seconds):
            return await _other_than(before, store)
    except TimeoutError:
        return None


async def restore(client: Client, namespace: str, keys: Sequence[KeyPair]) -> list[str]:
    """Add missing keys, replace damaged ones, and return their ids."""

    async def missing(stored: StoredKeys) -> dict[str, SecretBytes | None]:
        usable = stored.keyring()
        return {key.public.id: SecretBytes(key.dump()) for key in keys if key.public.id not in usable}

    return list(await _write(client, namespace, missing))


async def choose(client: Client, namespace: str, wanted: Sequence[str]) -> dict[str, datetime | None]:
    """Return the wanted keys, or all unused ones, each with its creation time if known.

    Raises:
        KeyInUse: a wanted key can't be removed; the message says why.
    """
    stored = await _read(KeyStore(client, namespace), namespace)
    used = await _used(client)
    now = datetime.now(UTC)
    _check_removable(wanted, stored, used, now)
    keyring = stored.keyring()
    chosen = dict.fromkeys(wanted) or removable(keyring, used, now)
    return {key_id: keyring[key_id].created if key_id in keyring else None for key_id in chosen}


async def prune(client: Client, namespace: str, chosen: Sequence[str]) -> None:
    """Remove keys that are still unused.

    Raises:
        KeyInUse: a key is in use by now; the message names it, and it isn't removed.
    """

    async def removals(stored: StoredKeys) -> dict[str, SecretBytes | None]:
        _check_removable(chosen, stored, await _used(client), datetime.now(UTC))
        return dict.fromkeys(chosen)

    removed = await _write(client, namespace, removals)
    # An AccountSecret may have been created between the check and the write, because no write covers both objects.
    # So check again after the write, while the keys are still in memory. Unpublishing a key first isn't enough: anyone
    # with a copy of the public key can still seal with it. An AccountSecret created before the write is seen here; one
    # created later was never opened, and its status says so. If this process exits too early, the operator, which
    # also has the keys in memory, writes back the keys in use.
    used = await _used(client)
    needed = {key_id: removed[key_id] for key_id in chosen if used.get(key_id)}
    if not needed:
        return

    async def back(stored: StoredKeys) -> dict[str, SecretBytes | None]:
        return {key_id: raw for key_id, raw in needed.items() if key_id not in stored.entries}

    await _write(client, namespace, back)
    reasons = [str(why_not_removable(key_id, needed, None, used)) for key_id in needed]
    raise KeyInUse("restored keys that came into use in the meantime: " + "\n".join(reasons))


def overview(
    newest: str | None,
    created: Mapping[str, datetime | None],
    damaged: Collection[str],
    used: Mapping[str, Collection[str]] | None,
) -> list[KeyRow]:
    """List the stored keys and the missing ones, newest first. Pure.

    `created` has the creation time of each usable key, or None if the caller can't see it.
    """

    def state(key_id: str) -> KeyState:
        if key_id in created:
            return KeyState.NEWEST if key_id == newest else KeyState.OLDER
        return KeyState.DAMAGED if key_id in damaged else KeyState.MISSING

    def order(row: KeyRow) -> tuple[bool, float, str]:
        return row.state is not KeyState.NEWEST, -row.created.timestamp() if row.created else 0, row.id

    ids = {*created, *damaged, *(used or {})}
    rows = [
        KeyRow(each, state(each), created.get(each), None if used is None else len(used.get(each, ()))) for each in ids
    ]
    return sorted(rows, key=order)


def removable(keyring: Keyring, used: Mapping[str, Collection[str]], now: datetime) -> list[str]:
    """Return the unused keys, newest first. The newest key of all seals new values, so it is never unused. Pure."""
    needed = just_replaced(keyring, now)
    older = [key.public.id for key in keyring.newest_first()[1:]]
    return [key_id for key_id in older if key_id not in needed and not used.get(key_id)]


def just_replaced(keyring: Keyring, now: datetime) -> frozenset[str]:
    """Return the keys that were the newest until just now, so that a gateway may still seal with them. Pure."""
    pairs = pairwise(keyring.newest_first())
    return frozenset(older.public.id for newer, older in pairs if newer.created > now - _REPLACED_FOR)


def why_not_removable(
    key_id: str,
    stored: Collection[str],
    newest: str | None,
    used: Mapping[str, Sequence[str]],
    replaced: Collection[str] = (),
) -> str | None:
    """Return why a key can't be removed, or None if it can. Pure."""
    if key_id not in stored:
        return f"there is no sealing key {key_id}; list the keys with: devbox-secrets keys list"
    if key_id == newest:
        return f"{key_id} is the newest key, which seals new values; create another first: devbox-secrets keys rotate"
    if key_id in replaced:
        wait = f"{_REPLACED_FOR.total_seconds():.0f} seconds"
        return f"{key_id} was the newest key until just now, and a gateway may still seal with it; wait {wait}"
    by = sorted(used.get(key_id, ()))
    if not by:
        return None
    more = f" and {len(by) - _NAMED} more" if len(by) > _NAMED else ""
    return (
        f"{key_id} is in use by {len(by)} AccountSecret{'s' * (len(by) > 1)}: {', '.join(by[:_NAMED])}{more};"
        " reseal values in files with devbox-secrets reseal, and set others again with devbox-secrets update NAME;"
        " the operator reseals values from the gateway"
    )


async def _used(client: Client) -> dict[str, list[str]]:
    """Return the names of all AccountSecrets by the id of the key that they are sealed with."""
    used: dict[str, list[str]] = {}
    with crd_installed():
        pairs, _ = await client.list_all(ALL_ACCOUNT_SECRETS_PATH, _key_and_name)
    for key_id, name in pairs:
        if key_id:
            used.setdefault(key_id, []).append(name)
    return used


def _key_and_name(body: Body) -> tuple[str, str]:
    # Only by the text, because a damaged sealed value names its key, too.
    _, _, rest = AccountSecret.parse(body).spec.sealed.partition(".")
    return rest.partition(".")[0], f"{body['metadata']['namespace']}/{body['metadata']['name']}"


async def _other_than(before: str | None, store: KeyStore) -> str:
    """Wait until another public key is the newest, and return its id."""
    while True:
        newest = (await store.read_public()).get("newest")
        if newest and newest != before:
            return PublicKey.parse(newest).id
        await asyncio.sleep(_POLL_SECONDS)


async def _if_allowed(request: Awaitable[T]) -> T | None:
    try:
        return await request
    except Forbidden:
        return None


def _check_removable(
    wanted: Sequence[str], stored: StoredKeys, used: Mapping[str, Sequence[str]], now: datetime
) -> None:
    keyring = stored.keyring()
    newest, replaced = _newest(keyring), just_replaced(keyring, now)
    reasons = [why for key_id in wanted if (why := why_not_removable(key_id, stored.entries, newest, used, replaced))]
    if reasons:
        raise KeyInUse("nothing was removed: " + "\n".join(reasons))


def _newest(keyring: Keyring) -> str | None:
    return keyring.newest.public.id if keyring else None


async def _write(
    client: Client,
    namespace: str,
    decide: Callable[[StoredKeys], Awaitable[Mapping[str, SecretBytes | None]]],
) -> dict[str, SecretBytes | None]:
    """Change the Secret of the keys, and return the previous contents of the changed entries."""
    store = KeyStore(client, namespace)
    for _ in range(_ATTEMPTS):
        stored = await _read(store, namespace)
        entries = await decide(stored)
        if not entries:
            return {}
        try:
            with _permission("patch" if stored.resource_version else "create and patch", namespace):
                await store.write(stored, entries)
        except Conflict:
            continue
        return {name: stored.entries.get(name) for name in entries}
    raise Conflict(f"{_SECRET} in {namespace} is being changed by others; run the command again")


async def _read(store: KeyStore, namespace: str) -> StoredKeys:
    """Read the Secret. It may not exist, so check that devbox-secrets is installed."""
    with _permission("get", namespace):
        stored = await store.read()
    if not stored.resource_version:
        with _permission("get", namespace, _CONFIGMAP):
            await store.read_public()
    return stored


def _no_key_yet(namespace: str) -> InvalidKey:
    return InvalidKey(
        f"there is no sealing key in the namespace {namespace}. The operator creates one at its first start. If keys"
        " were lost, restore them. For details: devbox-secrets check"
    )


@contextmanager
def _permission(verb: str, namespace: str, what: str = _SECRET) -> Iterator[None]:
    """Say what to do about a Forbidden or NotFound error."""
    try:
        yield
    except Forbidden as error:
        # Where devbox-secrets is installed, every authenticated user can read the ConfigMap.
        missing = f"you need permission to {verb} {what} in {namespace}"
        elsewhere = "if devbox-secrets is in another namespace, pass --operator-namespace"
        raise Forbidden(f"{error}; {elsewhere if what == _CONFIGMAP else missing}") from None
    except NotFound as error:
        raise not_installed(namespace, error) from None
