"""The sealing keys' life in the cluster: made at first start, read, published. Imports cluster."""

import logging
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus

from pydantic import SecretBytes

from devbox_secrets.cluster import Cluster
from devbox_secrets.errors import ClusterError, InvalidKey
from devbox_secrets.sealing import Keyring, OpeningKey

LOG = logging.getLogger(__name__)


async def load_keyring(cluster: Cluster, namespace: str, clock: Callable[[], datetime]) -> Keyring:
    """Read the keys, making the first one where there is none, and publish their public halves.

    A key is published only when its private half is stored: what people seal can be opened.

    Raises:
        ClusterError: the key Secret or the ConfigMap can't be read or written.
    """
    entries, version = await cluster.read_keys(namespace)
    if not entries:
        key = OpeningKey.generate(clock())
        try:
            await cluster.add_key(namespace, key.public.id, SecretBytes(key.dump()), version)
            LOG.info("made the first sealing key %s", key.public.id)
        except ClusterError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            LOG.info("someone else made the first sealing key")
        entries, _ = await cluster.read_keys(namespace)
    keyring = Keyring(_usable(entries))
    if keyring:
        public = [key.public for key in keyring.values()]
        await cluster.publish_keys(namespace, public, keyring.newest.public.id)
    return keyring


def _usable(entries: dict[str, SecretBytes]) -> list[OpeningKey]:
    """Leave out what is damaged: the values sealed with it say UnknownKey, and no other suffers."""
    keys = []
    for name, raw in entries.items():
        try:
            key = OpeningKey.load(raw.get_secret_value())
        except InvalidKey as error:
            LOG.error("the sealing key %s can't be read: %s", name, error)
            continue
        if key.public.id == name:
            keys.append(key)
        else:
            LOG.error("the sealing key %s is another one, %s: left out", name, key.public.id)
    return keys
