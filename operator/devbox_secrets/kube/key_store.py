"""Stores the sealing keys: their Secret, which operator and command line write, and the ConfigMap of the public ones.

No write undoes another one: it is compare-and-set, or names the one field that it means.
"""

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import SecretBytes

from devbox_secrets.api.names import (
    FIELD_MANAGER,
    KEYS_SECRET,
    NAMESPACES_PATH,
    PUBLIC_KEYS_CONFIGMAP,
    ROTATE_ANNOTATION,
)
from devbox_secrets.crypto.envelope import KeyPair, Keyring, PublicKey
from devbox_secrets.errors import InvalidKey
from devbox_secrets.kube.client import MERGE, Client

LOG = logging.getLogger(__name__)
_AS_FIELD_MANAGER = {"fieldManager": FIELD_MANAGER}


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """The Secret of the sealing keys: what each is stored as, by its id, and what was asked of the operator."""

    entries: Mapping[str, SecretBytes]
    resource_version: str
    rotate: str | None = None
    """The annotation's text: the newest key must not be older than that."""

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
        """Read the Secret."""
        secret = await self._client.request("GET", self._secret)
        entries = {name: SecretBytes(base64.b64decode(value)) for name, value in (secret.get("data") or {}).items()}
        annotations = secret["metadata"].get("annotations") or {}
        return StoredKeys(entries, secret["metadata"]["resourceVersion"], annotations.get(ROTATE_ANNOTATION))

    async def write(self, entries: Mapping[str, SecretBytes | None], resource_version: str) -> None:
        """Add sealing keys, and remove those that are None, if the Secret is still in that state.

        Raises:
            Conflict: it's in another state by now.
        """
        data = {name: None if key is None else _base64(key) for name, key in entries.items()}
        body = {"metadata": {"resourceVersion": resource_version}, "data": data}
        await self._client.request("PATCH", self._secret, query=_AS_FIELD_MANAGER, body=body, media_type=MERGE)

    async def request_rotation(self, since: str) -> None:
        """Ask the leader for a sealing key that isn't older than an RFC 3339 time."""
        body = {"metadata": {"annotations": {ROTATE_ANNOTATION: since}}}
        await self._client.request("PATCH", self._secret, query=_AS_FIELD_MANAGER, body=body, media_type=MERGE)

    async def read_public(self) -> dict[str, str]:
        """Read the ConfigMap: text by key id, and once more as `newest`."""
        return (await self._client.request("GET", self._configmap)).get("data") or {}

    async def publish(self, keys: Sequence[PublicKey]) -> None:
        """Write the ConfigMap: these public keys and no others, the newest first; nothing where it's so already."""
        want: dict[str, str] = {key.id: str(key) for key in keys}
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


def _base64(value: SecretBytes) -> str:
    return base64.b64encode(value.get_secret_value()).decode()
