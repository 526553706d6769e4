"""The sealing keys' life in the cluster: made at first start, read, published. Imports cluster."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from http import HTTPStatus

from pydantic import SecretBytes

from devbox_secrets.cluster import Cluster
from devbox_secrets.errors import ClusterError, InvalidKey
from devbox_secrets.sealing import Keyring, OpeningKey

LOG = logging.getLogger(__name__)


class KeyStore:
    """The keys as they are in the cluster, as of the last `refresh`."""

    def __init__(self, cluster: Cluster, namespace: str, clock: Callable[[], datetime]) -> None:
        self.keyring = Keyring(())
        self._cluster = cluster
        self._namespace = namespace
        self._clock = clock
        self._version = ""
        # Until it was told: publishing may fail before that.
        self._news = False

    async def refresh(self, *, write: bool) -> bool:
        """Read the keys; tell whether they are others than before.

        Who may write makes the first one where there is none, and publishes the public halves: of
        stored keys alone, so that what people seal can be opened.

        Raises:
            ClusterError: the key Secret or the ConfigMap can't be read or written.
        """
        entries, version = await self._cluster.read_keys(self._namespace)
        if not entries and write:
            await self._make_first(version)
            entries, version = await self._cluster.read_keys(self._namespace)
        if version != self._version:
            self.keyring = Keyring(_usable(entries))
            self._version = version
            self._news = True
            LOG.info("sealing keys: %s", ", ".join(sorted(self.keyring)) or "none that can be read")
        if self.keyring and write:
            public = [key.public for key in self.keyring.values()]
            await self._cluster.publish_keys(self._namespace, public, self.keyring.newest.public.id)
        news, self._news = self._news, False
        return news

    async def _make_first(self, version: str) -> None:
        key = OpeningKey.generate(self._clock())
        try:
            await self._cluster.add_key(self._namespace, key.public.id, SecretBytes(key.dump()), version)
        except ClusterError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            LOG.info("someone else made the first sealing key")
        else:
            LOG.info("made the first sealing key %s", key.public.id)


def _usable(entries: Mapping[str, SecretBytes]) -> list[OpeningKey]:
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
