"""The sealing keys in the cluster, as an administrator manages them with their own rights."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.api.names import ALL_ACCOUNT_SECRETS_PATH, KEYS_SECRET, PUBLIC_KEYS_CONFIGMAP, PUBLIC_KEYS_MAX
from devbox_secrets.crypto.envelope import KeyPair, Keyring, PublicKey
from devbox_secrets.errors import Conflict, Forbidden, InvalidKey, KeyInUse, NotFound
from devbox_secrets.kube.client import Body, Client
from devbox_secrets.kube.key_store import KeyStore, StoredKeys

T = TypeVar("T")
_SECRET = f"the Secret {KEYS_SECRET}"
_CONFIGMAP = f"the ConfigMap {PUBLIC_KEYS_CONFIGMAP}"
_POLL_SECONDS = 0.5
_ATTEMPTS = 5
#: How many of those that need a key are named.
_NAMED = 10


class KeyState(StrEnum):
    """The state of a sealing key."""

    NEWEST = "newest"
    """New values are sealed with it."""
    OLDER = "older"
    """It opens what was sealed with it."""
    DAMAGED = "damaged"
    """It's stored, but can't be read."""
    MISSING = "missing"
    """AccountSecrets are sealed with it, but it isn't stored."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A sealing key as people see it in a list."""

    id: str
    state: KeyState
    created: datetime | None
    used_by: int | None
    """How many AccountSecrets are sealed with it; None where that can't be seen."""


@dataclass(frozen=True, slots=True)
class VisibleKeys:
    """The keys as far as the caller may see them, and sentences on what isn't seen."""

    rows: Sequence[KeyRow]
    unseen: Sequence[str]


async def visible(client: Client, namespace: str) -> VisibleKeys:
    """List the keys with what the caller may read: without the Secret, what the public keys tell."""
    store = KeyStore(client, namespace)
    unseen = []
    used = await _if_allowed(_used(client))
    if used is None:
        unseen.append("you may not list the whole cluster's AccountSecrets, so it isn't told how many need a key")
    stored = await _if_allowed(_read(store, namespace))
    if stored is not None:
        keyring = stored.keyring()
        created = {key_id: key.created for key_id, key in keyring.items()}
        return VisibleKeys(overview(_newest(keyring), created, stored.entries.keys() - created.keys(), used), unseen)
    unseen.append(
        f"you may not get {_SECRET} in {namespace}, so it isn't told when a key was made; these are"
        f" the public keys, the newest {PUBLIC_KEYS_MAX} at most"
    )
    with _rights("get", namespace, _CONFIGMAP):
        public = await store.read_public()
    newest = PublicKey.parse(public["newest"]).id if "newest" in public else None
    return VisibleKeys(overview(newest, dict.fromkeys(public.keys() - {"newest"}), (), used), unseen)


async def newest_public(client: Client, namespace: str) -> PublicKey:
    """Read the public key to seal with.

    Raises:
        InvalidKey: there is none yet.
        APIError: the public keys can't be read.
    """
    keys = await KeyStore(client, namespace).read_public()
    if "newest" not in keys:
        raise _no_key_yet(namespace)
    return PublicKey.parse(keys["newest"])


async def read(client: Client, namespace: str) -> Keyring:
    """Read every key that can be used.

    Raises:
        InvalidKey: there is none.
    """
    keyring = (await _read(KeyStore(client, namespace), namespace)).keyring()
    if not keyring:
        raise _no_key_yet(namespace)
    return keyring


async def rotate(client: Client, namespace: str, seconds: float | None) -> str | None:
    """Ask the operator for a new key, and give its id; None where it doesn't come in time, or nobody waits."""
    store = KeyStore(client, namespace)
    with _rights("get", namespace, _CONFIGMAP):
        before = (await store.read_public()).get("newest")
    with _rights("patch", namespace):
        await store.request_rotation(datetime.now(UTC).isoformat())
    if seconds is None:
        return None
    try:
        async with asyncio.timeout(seconds):
            return await _other_than(before, store)
    except TimeoutError:
        return None


async def restore(client: Client, namespace: str, keys: Sequence[KeyPair]) -> list[str]:
    """Add the keys that are missing or damaged; give their ids. None is removed."""

    async def missing(stored: StoredKeys) -> dict[str, SecretBytes | None]:
        usable = stored.keyring()
        return {key.public.id: SecretBytes(key.dump()) for key in keys if key.public.id not in usable}

    return list(await _write(client, namespace, missing))


async def choose(client: Client, namespace: str, wanted: Sequence[str]) -> dict[str, datetime | None]:
    """Choose the keys that can be removed, of those that are wanted or of all; say when each was made, if known.

    Raises:
        KeyInUse: one that is wanted must stay; the message says which and why.
    """
    stored = await _read(KeyStore(client, namespace), namespace)
    used = await _used(client)
    _check_removable(wanted, stored, used)
    keyring = stored.keyring()
    chosen = dict.fromkeys(wanted) or removable(keyring, used)
    return {key_id: keyring[key_id].created if key_id in keyring else None for key_id in chosen}


async def prune(client: Client, namespace: str, chosen: Sequence[str]) -> None:
    """Remove keys, if they can still be removed.

    Raises:
        KeyInUse: one has come into use; the message says which, and it wasn't removed.
    """

    async def removals(stored: StoredKeys) -> dict[str, SecretBytes | None]:
        _check_removable(chosen, stored, await _used(client))
        return dict.fromkeys(chosen)

    removed = await _write(client, namespace, removals)
    # No write covers both kinds of objects, so an AccountSecret may have been created between the check and the
    # write. Check once more after the write, while the keys are still in memory. Unpublishing a key first is not
    # enough: anyone who has it in a file can still seal with it. Nothing is missed: what was created before the
    # write is seen here, and what is created later has never been opened, as its status says. If this process ends
    # too early, the operator, which also has the keys in memory, writes back those that are used.
    used = await _used(client)
    needed = {key_id: removed[key_id] for key_id in chosen if used.get(key_id)}
    if not needed:
        return

    async def back(stored: StoredKeys) -> dict[str, SecretBytes | None]:
        return {key_id: raw for key_id, raw in needed.items() if key_id not in stored.entries}

    await _write(client, namespace, back)
    reasons = [str(why_not_removable(key_id, needed, None, used)) for key_id in needed]
    raise KeyInUse("put back, since they came into use just now: " + "\n".join(reasons))


def overview(
    newest: str | None,
    created: Mapping[str, datetime | None],
    damaged: Collection[str],
    used: Mapping[str, Collection[str]] | None,
) -> list[KeyRow]:
    """List the keys that are stored, and those that are needed but missing; the newest first. Pure.

    `created` says when each usable key was made, None where that can't be seen.
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


def removable(keyring: Keyring, used: Mapping[str, Collection[str]]) -> list[str]:
    """Name the keys that nothing needs, the newest first. The newest of all is needed for the next value. Pure."""
    return [key.public.id for key in keyring.newest_first()[1:] if not used.get(key.public.id)]


def why_not_removable(
    key_id: str, stored: Collection[str], newest: str | None, used: Mapping[str, Sequence[str]]
) -> str | None:
    """Say why a key must stay, or that it doesn't exist; None when it can be removed. Pure."""
    if key_id not in stored:
        return f"there is no sealing key {key_id}; `devbox-secrets keys list` shows those that there are"
    if key_id == newest:
        return f"{key_id} is the newest key, with which values are sealed; make the next: devbox-secrets keys rotate"
    by = sorted(used.get(key_id, ()))
    if not by:
        return None
    more = f" and {len(by) - _NAMED} more" if len(by) > _NAMED else ""
    return (
        f"{key_id} opens {len(by)} AccountSecret{'s' * (len(by) > 1)}: {', '.join(by[:_NAMED])}{more};"
        " seal their values again first: those in files with devbox-secrets reseal, others with"
        " devbox-secrets update NAME; the operator does so with the gateway's"
    )


async def _used(client: Client) -> dict[str, list[str]]:
    """Name the AccountSecrets of the whole cluster by the key that they are sealed with."""
    used: dict[str, list[str]] = {}
    pairs, _ = await client.list_all(ALL_ACCOUNT_SECRETS_PATH, _key_and_name)
    for key_id, name in pairs:
        if key_id:
            used.setdefault(key_id, []).append(name)
    return used


def _key_and_name(body: Body) -> tuple[str, str]:
    # By the text alone: a sealed value that is damaged names its key all the same; one that is no text names none.
    _, _, rest = AccountSecret.parse(body).spec.sealed.partition(".")
    return rest.partition(".")[0], f"{body['metadata']['namespace']}/{body['metadata']['name']}"


async def _other_than(before: str | None, store: KeyStore) -> str:
    """Wait until another public key is the newest, and give its id."""
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


def _check_removable(wanted: Sequence[str], stored: StoredKeys, used: Mapping[str, Sequence[str]]) -> None:
    newest = _newest(stored.keyring())
    reasons = [why for key_id in wanted if (why := why_not_removable(key_id, stored.entries, newest, used))]
    if reasons:
        raise KeyInUse("nothing was removed: " + "\n".join(reasons))


def _newest(keyring: Keyring) -> str | None:
    return keyring.newest.public.id if keyring else None


async def _write(
    client: Client,
    namespace: str,
    decide: Callable[[StoredKeys], Awaitable[Mapping[str, SecretBytes | None]]],
) -> dict[str, SecretBytes | None]:
    """Change the keys' Secret in the state that was decided on; give what was changed as it was before."""
    store = KeyStore(client, namespace)
    for _ in range(_ATTEMPTS):
        stored = await _read(store, namespace)
        entries = await decide(stored)
        if not entries:
            return {}
        try:
            with _rights("patch" if stored.resource_version else "create and patch", namespace):
                await store.write(stored, entries)
        except Conflict:
            continue
        return {name: stored.entries.get(name) for name in entries}
    raise Conflict(f"others keep changing {_SECRET} in {namespace}; try again")


async def _read(store: KeyStore, namespace: str) -> StoredKeys:
    """Read the Secret, where devbox-secrets is installed: the Secret itself may not exist."""
    with _rights("get", namespace):
        stored = await store.read()
    if not stored.resource_version:
        with _rights("get", namespace, _CONFIGMAP):
            await store.read_public()
    return stored


def _no_key_yet(namespace: str) -> InvalidKey:
    return InvalidKey(
        f"there is no sealing key in the namespace {namespace} yet; the operator makes it when"
        f" it starts, unless keys were lost: devbox-secrets check"
    )


@contextmanager
def _rights(verb: str, namespace: str, what: str = _SECRET) -> Iterator[None]:
    """Say what is needed where the API server refuses."""
    try:
        yield
    except Forbidden as error:
        raise Forbidden(f"{error}; this needs the right to {verb} {what} in {namespace}") from None
    except NotFound as error:
        raise NotFound(
            f"{error}; is devbox-secrets installed in {namespace}? --operator-namespace names another place"
        ) from None
