"""Stores the sealing keys: the Secret, which the operator and the command line write, and the public keys' ConfigMap.

No write reverts another one: each is a compare-and-set, or sets a single field.
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
from devbox_secrets.api.secret_data import read_data
from devbox_secrets.crypto.envelope import KeyPair, Keyring, PublicKey
from devbox_secrets.errors import Conflict, InvalidKey, NotFound
from devbox_secrets.kube.client import APPLY, MERGE, Body, Client

LOG = logging.getLogger(__name__)
_AS_FIELD_MANAGER = {"fieldManager": FIELD_MANAGER}


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """The Secret of the sealing keys: the stored keys by id, and requests to the operator."""

    entries: Mapping[str, SecretBytes]
    resource_version: str
    """Empty if the Secret doesn't exist."""
    rotate: str | None = None
    """The text of the annotation: the newest key must not be older than that."""
    pruned: frozenset[str] = frozenset()
    """The ids of the keys that were removed on purpose."""

    def keyring(self) -> Keyring:
        """Return the usable keys."""
        return Keyring(usable_keys(self.entries))


class KeyStore:
    """Reads and writes both objects in the operator's namespace."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._secret = f"{NAMESPACES_PATH}/{namespace}/secrets/{KEYS_SECRET}"
        self._configmap = f"{NAMESPACES_PATH}/{namespace}/configmaps/{PUBLIC_KEYS_CONFIGMAP}"

    async def read(self) -> StoredKeys:
        """Read the Secret; if it doesn't exist, there are no keys."""
        try:
            return _stored(await self._client.request("GET", self._secret))
        except NotFound:
            return StoredKeys({}, "")

    async def write(
        self, stored: StoredKeys, entries: Mapping[str, SecretBytes | None], *, answered: bool = False
    ) -> None:
        """Add sealing keys, and remove those that are None, if the Secret hasn't changed since.

        `answered` removes the request for a new key.

        Raises:
            Conflict: the Secret was changed.
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
            raise Conflict(f"the Secret {KEYS_SECRET} was deleted meanwhile") from None

    async def request_rotation(self, since: str) -> None:
        """Request a sealing key from the leader that isn't older than an RFC 3339 time."""
        body: Body = {"metadata": {"annotations": {ROTATE_ANNOTATION: since}}}
        try:
            await self._patch(body)
        except NotFound:
            await self._create()
            await self._patch(body)

    async def _create(self) -> str:
        """Create the empty Secret; return its resourceVersion.

        With server-side apply, since that permission can be limited to one name. If someone else creates the Secret
        at the same time, this removes nothing: it applies only the type, with a separate field manager.

        Raises:
            Conflict: someone else created it, with keys in it.
        """
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEYS_SECRET}, "type": SECRET_TYPE}
        query = {"fieldManager": CREATE_FIELD_MANAGER}
        created = _stored(await self._client.request("PATCH", self._secret, query=query, body=body, media_type=APPLY))
        if created.entries:
            raise Conflict(f"the Secret {KEYS_SECRET} was created by someone else meanwhile")
        return created.resource_version

    async def _patch(self, body: Body) -> None:
        await self._client.request("PATCH", self._secret, query=_AS_FIELD_MANAGER, body=body, media_type=MERGE)

    async def read_public(self) -> dict[str, str]:
        """Read the ConfigMap: the public keys by id, and the newest one again as `newest`."""
        return (await self._client.request("GET", self._configmap)).get("data") or {}

    async def publish(self, keys: Sequence[PublicKey]) -> None:
        """Write exactly these public keys, newest first, to the ConfigMap, unless it already has them."""
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
    """Leave out damaged keys: values sealed with them get the reason UnknownKey, all others work."""
    keys = []
    for name, raw in entries.items():
        try:
            key = KeyPair.load(raw.get_secret_value())
        except InvalidKey as error:
            LOG.error("cannot read the sealing key %s: %s", name, error)
            continue
        if key.public.id == name:
            keys.append(key)
        else:
            LOG.error("ignoring the sealing key %s: its content is the key %s", name, key.public.id)
    return keys


def _stored(secret: Body) -> StoredKeys:
    entries = read_data(secret)
    metadata = secret["metadata"]
    annotations = metadata.get("annotations") or {}
    pruned = frozenset(filter(None, annotations.get(PRUNED_ANNOTATION, "").split(",")))
    return StoredKeys(entries, metadata["resourceVersion"], annotations.get(ROTATE_ANNOTATION), pruned)


def _base64(value: SecretBytes) -> str:
    return base64.b64encode(value.get_secret_value()).decode()
