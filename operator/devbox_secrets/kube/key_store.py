"""Stores the sealing keys: their Secret, which operator and command line write, and the ConfigMap of the public ones.

No write undoes another one: it is compare-and-set, or names the one field that it means.
"""

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import SecretBytes

from devbox_secrets.api.names import (
    CREATE_FIELD_MANAGER,
    FIELD_MANAGER,
    KEYS_SECRET,
    NAMESPACES_PATH,
    PRUNED_ANNOTATION,
    PUBLIC_KEYS_CONFIGMAP,
    ROTATE_ANNOTATION,
    SECRET_TYPE,
)
from devbox_secrets.crypto.envelope import KeyPair, Keyring, PublicKey
from devbox_secrets.errors import Conflict, InvalidKey, NotFound
from devbox_secrets.kube.client import APPLY, MERGE, Body, Client

LOG = logging.getLogger(__name__)
_AS_FIELD_MANAGER = {"fieldManager": FIELD_MANAGER}


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """The Secret of the sealing keys: what each is stored as, by its id, and what was asked of the operator."""

    entries: Mapping[str, SecretBytes]
    resource_version: str
    """Empty where there is no such Secret."""
    rotate: str | None = None
    """The annotation's text: the newest key must not be older than that."""
    pruned: frozenset[str] = frozenset()
    """The ids of the keys that were removed on purpose."""

    def keyring(self) -> Keyring:
        """Give the keys that can be used."""
        return Keyring(usable_keys(self.entries))


class KeyStore:
    """Both objects, in the operator's namespace."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._secret = f"{NAMESPACES_PATH}/{namespace}/secrets/{KEYS_SECRET}"
        self._configmap = f"{NAMESPACES_PATH}/{namespace}/configmaps/{PUBLIC_KEYS_CONFIGMAP}"

    async def read(self) -> StoredKeys:
        """Read the Secret; where there is none, there are no keys."""
        try:
            return _stored(await self._client.request("GET", self._secret))
        except NotFound:
            return StoredKeys({}, "")

    async def write(
        self, stored: StoredKeys, entries: Mapping[str, SecretBytes | None], *, answered: bool = False
    ) -> None:
        """Add sealing keys, and remove those that are None, if the Secret is still in that state.

        `answered` takes the request for a new key away.

        Raises:
            Conflict: it's in another state by now.
        """
        removed = {name for name, key in entries.items() if key is None}
        pruned = (stored.pruned | removed) - (entries.keys() - removed)
        annotations: dict[str, str | None] = {}
        if pruned != stored.pruned:
            annotations[PRUNED_ANNOTATION] = ",".join(sorted(pruned)) or None
        if answered:
            annotations[ROTATE_ANNOTATION] = None
        metadata = {"resourceVersion": stored.resource_version or await self._create(), "annotations": annotations}
        data = {name: None if key is None else _base64(key) for name, key in entries.items()}
        try:
            await self._patch({"metadata": metadata, "data": data})
        except NotFound:
            raise Conflict(f"the Secret {KEYS_SECRET} was deleted just now") from None

    async def request_rotation(self, since: str) -> None:
        """Ask the leader for a sealing key that isn't older than an RFC 3339 time."""
        body: Body = {"metadata": {"annotations": {ROTATE_ANNOTATION: since}}}
        try:
            await self._patch(body)
        except NotFound:
            await self._create()
            await self._patch(body)

    async def _create(self) -> str:
        """Create the Secret, still empty, and give its resourceVersion.

        By server-side apply, since the right to do that can be limited to one name. If someone else creates it at
        the same time, this takes nothing away: it names the type alone, as a field manager of its own.

        Raises:
            Conflict: someone else did, and there are keys in it.
        """
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEYS_SECRET}, "type": SECRET_TYPE}
        query = {"fieldManager": CREATE_FIELD_MANAGER}
        created = _stored(await self._client.request("PATCH", self._secret, query=query, body=body, media_type=APPLY))
        if created.entries:
            raise Conflict(f"the Secret {KEYS_SECRET} was created by someone else just now")
        return created.resource_version

    async def _patch(self, body: Body) -> None:
        await self._client.request("PATCH", self._secret, query=_AS_FIELD_MANAGER, body=body, media_type=MERGE)

    async def read_public(self) -> dict[str, str]:
        """Read the ConfigMap: text by key id, and once more as `newest`."""
        return (await self._client.request("GET", self._configmap)).get("data") or {}

    async def publish(self, keys: Sequence[PublicKey]) -> None:
        """Write the ConfigMap: these public keys and no others, the newest first; nothing where it's so already."""
        want: dict[str, str] = {key.id: str(key) for key in keys}
        if keys:
            want["newest"] = str(keys[0])
        found = await self._client.request("GET", self._configmap)
        have = found.get("data") or {}
        if have == want:
            return
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        body = {"metadata": version, "data": {**dict.fromkeys(have), **want}}
        await self._client.request("PATCH", self._configmap, body=body, media_type=MERGE)


def usable_keys(entries: Mapping[str, SecretBytes]) -> list[KeyPair]:
    """Leave out what is damaged: the values sealed with it say UnknownKey, and no other suffers."""
    keys = []
    for name, raw in entries.items():
        try:
            key = KeyPair.load(raw.get_secret_value())
        except InvalidKey as error:
            LOG.error("the sealing key %s can't be read: %s", name, error)
            continue
        if key.public.id == name:
            keys.append(key)
        else:
            LOG.error("the sealing key %s is another one, %s: left out", name, key.public.id)
    return keys


def _stored(secret: Body) -> StoredKeys:
    entries = {name: SecretBytes(base64.b64decode(value)) for name, value in (secret.get("data") or {}).items()}
    metadata = secret["metadata"]
    annotations = metadata.get("annotations") or {}
    pruned = frozenset(filter(None, annotations.get(PRUNED_ANNOTATION, "").split(",")))
    return StoredKeys(entries, metadata["resourceVersion"], annotations.get(ROTATE_ANNOTATION), pruned)


def _base64(value: SecretBytes) -> str:
    return base64.b64encode(value.get_secret_value()).decode()
