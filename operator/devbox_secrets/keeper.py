"""The sealing keys in the cluster as their keeper handles them: with a person's own rights. Imports keys, cluster."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import SecretBytes

from devbox_secrets.api import KEYS_SECRET, PUBLIC_KEYS_CONFIGMAP
from devbox_secrets.cluster import ACCOUNT_SECRETS, Cluster, StoredKeys
from devbox_secrets.errors import ClusterError, KeyInUse
from devbox_secrets.keyplan import PUBLISHED, KeyRow, overview, removable, why_not_removable
from devbox_secrets.keys import usable
from devbox_secrets.sealing import Keyring, OpeningKey, SealingKey

T = TypeVar("T")
_KEYS = f"the Secret {KEYS_SECRET}"
_PUBLIC_KEYS = f"the ConfigMap {PUBLIC_KEYS_CONFIGMAP}"
_GLANCE_SECONDS = 0.5
_TRIES = 5


@dataclass(frozen=True, slots=True)
class View:
    """The keys as far as the caller may see them, and sentences on what isn't seen."""

    rows: Sequence[KeyRow]
    unseen: Sequence[str]


async def look(cluster: Cluster, namespace: str) -> View:
    """List the keys with what the caller may read: without the Secret, what the public keys tell."""
    unseen = []
    used = await _if_allowed(_used(cluster))
    if used is None:
        unseen.append("you may not list the whole cluster's AccountSecrets, so it isn't told how many need a key")
    with _rights("get", namespace):
        stored = await _if_allowed(cluster.read_keys(namespace))
    if stored is not None:
        keyring = _keyring(stored)
        created = {key_id: key.created for key_id, key in keyring.items()}
        newest = keyring.newest.public.id if keyring else None
        return View(overview(newest, created, stored.entries.keys() - created.keys(), used), unseen)
    unseen.append(
        f"you may not get {_KEYS} in {namespace}, so it isn't told when a key was made; these are"
        f" the public keys, the newest {PUBLISHED} at most"
    )
    with _rights("get", namespace, _PUBLIC_KEYS):
        public = await cluster.read_public_keys(namespace)
    newest = SealingKey.parse(public["newest"]).id if "newest" in public else None
    return View(overview(newest, dict.fromkeys(public.keys() - {"newest"}), (), used), unseen)


async def rotate(cluster: Cluster, namespace: str, seconds: float | None) -> str | None:
    """Ask the operator for a new key, and give its id; None where it isn't there in time, or nobody waits."""
    with _rights("get", namespace, _PUBLIC_KEYS):
        before = (await cluster.read_public_keys(namespace)).get("newest")
    with _rights("patch", namespace):
        await cluster.request_key(namespace, datetime.now(UTC).isoformat())
    if seconds is None:
        return None
    try:
        async with asyncio.timeout(seconds):
            return await _other_than(before, cluster, namespace)
    except TimeoutError:
        return None


async def read(cluster: Cluster, namespace: str) -> Keyring:
    """Read every key that can be used."""
    with _rights("get", namespace):
        return _keyring(await cluster.read_keys(namespace))


async def restore(cluster: Cluster, namespace: str, keys: Sequence[OpeningKey]) -> list[str]:
    """Add the keys that aren't there, or are damaged; give their ids. None is removed."""

    async def lacking(stored: StoredKeys) -> dict[str, SecretBytes | None]:
        there = _keyring(stored)
        return {key.public.id: SecretBytes(key.dump()) for key in keys if key.public.id not in there}

    return await _write(cluster, namespace, lacking)


async def choose(cluster: Cluster, namespace: str, wanted: Sequence[str]) -> dict[str, datetime | None]:
    """Choose the keys that can go, of those that are wanted or of all; say when each was made, if it can be read.

    Raises:
        KeyInUse: one that is wanted must stay; the message says which and why.
    """
    with _rights("get", namespace):
        stored = await cluster.read_keys(namespace)
    used = await _used(cluster)
    _refuse(wanted, stored, used)
    keyring = _keyring(stored)
    chosen = dict.fromkeys(wanted) or removable(keyring, used)
    return {key_id: keyring[key_id].created if key_id in keyring else None for key_id in chosen}


async def prune(cluster: Cluster, namespace: str, chosen: Sequence[str]) -> None:
    """Remove keys, if they can still go.

    Raises:
        KeyInUse: one has come into use; nothing was removed.
    """

    async def removed(stored: StoredKeys) -> dict[str, SecretBytes | None]:
        # The AccountSecrets after the Secret: what came until then counts.
        _refuse(chosen, stored, await _used(cluster))
        return dict.fromkeys(chosen)

    await _write(cluster, namespace, removed)


async def _used(cluster: Cluster) -> dict[str, list[str]]:
    """Name the AccountSecrets of the whole cluster by the key that they are sealed with."""
    used: dict[str, list[str]] = {}
    needs, _ = await cluster.list_all(ACCOUNT_SECRETS, _needs)
    for key_id, name in needs:
        used.setdefault(key_id, []).append(name)
    return used


def _needs(body: Mapping[str, Any]) -> tuple[str, str]:
    # Its text alone: what is damaged otherwise names its key all the same.
    return body["spec"]["sealed"].split(".")[1], f"{body['metadata']['namespace']}/{body['metadata']['name']}"


async def _other_than(before: str | None, cluster: Cluster, namespace: str) -> str:
    """Wait until another public key is the newest, and give its id."""
    while True:
        newest = (await cluster.read_public_keys(namespace)).get("newest")
        if newest and newest != before:
            return SealingKey.parse(newest).id
        await asyncio.sleep(_GLANCE_SECONDS)


async def _if_allowed(request: Awaitable[T]) -> T | None:
    try:
        return await request
    except ClusterError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        return None


def _refuse(wanted: Sequence[str], stored: StoredKeys, used: Mapping[str, Sequence[str]]) -> None:
    keyring = _keyring(stored)
    newest = keyring.newest.public.id if keyring else None
    reasons = [why for key_id in wanted if (why := why_not_removable(key_id, stored.entries, newest, used))]
    if reasons:
        raise KeyInUse("nothing was removed: " + "\n".join(reasons))


async def _write(
    cluster: Cluster,
    namespace: str,
    decide: Callable[[StoredKeys], Awaitable[Mapping[str, SecretBytes | None]]],
) -> list[str]:
    """Change the keys' Secret in the state that was decided on; give the ids of what was changed."""
    for _ in range(_TRIES):
        with _rights("get", namespace):
            stored = await cluster.read_keys(namespace)
        entries = await decide(stored)
        if not entries:
            return []
        try:
            with _rights("patch", namespace):
                await cluster.write_keys(namespace, entries, stored.resource_version)
        except ClusterError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
        else:
            return list(entries)
    raise ClusterError(f"others keep changing {_KEYS} in {namespace}; try again", HTTPStatus.CONFLICT)


@contextmanager
def _rights(verb: str, namespace: str, what: str = _KEYS) -> Iterator[None]:
    """Say what is needed where the API server refuses."""
    needed = {
        HTTPStatus.FORBIDDEN: f"this needs the right to {verb} {what} in {namespace}",
        HTTPStatus.NOT_FOUND: f"is devbox-secrets installed in {namespace}? --operator-namespace names another place",
    }
    try:
        yield
    except ClusterError as error:
        if error.status not in needed:
            raise
        raise ClusterError(f"{error}; {needed[HTTPStatus(error.status)]}", error.status) from None


def _keyring(stored: StoredKeys) -> Keyring:
    return Keyring(usable(stored.entries))
