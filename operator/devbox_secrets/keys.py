"""The sealing keys' life in the cluster: made, read, published. Imports cluster; keyplan has the rules."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from http import HTTPStatus

from pydantic import SecretBytes

from devbox_secrets.api import KEYS_SECRET, ROTATE_ANNOTATION
from devbox_secrets.cluster import Cluster, StoredKeys
from devbox_secrets.errors import ClusterError, InvalidKey
from devbox_secrets.keyplan import dated, is_due, published, read_request
from devbox_secrets.sealing import Keyring, OpeningKey

LOG = logging.getLogger(__name__)


class KeyStore:
    """The keys as they are in the cluster, as of the last `refresh`."""

    def __init__(
        self, cluster: Cluster, namespace: str, clock: Callable[[], datetime], every: timedelta | None = None
    ) -> None:
        self.keyring = Keyring(())
        self._cluster = cluster
        self._namespace = namespace
        self._clock = clock
        self._every = every
        self._turn = asyncio.Lock()
        self._version = ""
        # Until it was told: publishing may fail before that.
        self._news = False
        self._lost = False
        self._refused: str | None = None

    @property
    def stored(self) -> Keyring:
        """The keys that the Secret holds: none while it has lost them, and those in memory may be the last."""
        return Keyring(()) if self._lost else self.keyring

    async def refresh(self, *, write: bool) -> bool:
        """Read the keys; tell whether there are new ones.

        Who may write makes the first one where there is none, and the next one when it's due, and
        publishes the public halves: of stored keys alone, so that what people seal can be opened.

        Raises:
            ClusterError: the key Secret or the ConfigMap can't be read or written.
        """
        async with self._turn:
            stored = await self._read()
            if write:
                await self._complete(stored)
            if write and self.keyring and not self._lost:
                await self._cluster.publish_keys(self._namespace, published(self.keyring))
            news, self._news = self._news, False
            return news

    async def _read(self) -> StoredKeys:
        stored = await self._cluster.read_keys(self._namespace)
        if stored.resource_version != self._version:
            self._take(Keyring(usable(stored.entries)))
            self._version = stored.resource_version
        return stored

    def _take(self, found: Keyring) -> None:
        # Someone who prunes leaves the newest. No key at all is an accident, and the values that
        # these open would be lost with it.
        self._lost = bool(self.keyring) and not found
        if self._lost:
            LOG.warning("the Secret %s has lost every sealing key; those in memory stay in use", KEYS_SECRET)
            return
        added, removed = sorted(set(found) - set(self.keyring)), sorted(set(self.keyring) - set(found))
        self.keyring = found
        self._news = self._news or bool(added)
        newest = f", the newest {found.newest.public.id}" if found else " that can be read"
        if added or removed or not found:
            LOG.info("sealing keys: %d%s; added: %s; removed: %s", len(found), newest, _listed(added), _listed(removed))

    async def _complete(self, stored: StoredKeys) -> None:
        """Write what the Secret lacks: the keys that it lost, or a new one."""
        entries, what = self._lacking(stored)
        if not entries:
            return
        try:
            await self._cluster.write_keys(self._namespace, entries, stored.resource_version)
        except ClusterError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            LOG.info("someone else changed the sealing keys just now; looking again")
        else:
            LOG.log(logging.WARNING if self._lost else logging.INFO, "%s: %s", what, _listed(sorted(entries)))
        await self._read()

    def _lacking(self, stored: StoredKeys) -> tuple[dict[str, SecretBytes], str]:
        """Give what is to be written, and what to call it."""
        if self._lost:
            return _dumped(*self.keyring.values()), "wrote the lost sealing keys back from memory"
        now = self._clock()
        since = self._requested(stored.request, now)
        newest = self.keyring.newest.created if self.keyring else None
        if not stored.entries:
            what = "made the first sealing key"
        elif is_due(newest, since, self._every, now):
            what = "made a new sealing key"
        else:
            return {}, ""
        return _dumped(OpeningKey.generate(dated(since, now))), what

    def _requested(self, text: str | None, now: datetime) -> datetime | None:
        request = read_request(text, now)
        if request.refusal and text != self._refused:
            LOG.warning(
                "the annotation %s of the Secret %s asks for no new key: %s",
                ROTATE_ANNOTATION,
                KEYS_SECRET,
                request.refusal,
            )
        self._refused = text if request.refusal else None
        return request.since


def _dumped(*keys: OpeningKey) -> dict[str, SecretBytes]:
    return {key.public.id: SecretBytes(key.dump()) for key in keys}


def _listed(ids: list[str]) -> str:
    return ", ".join(ids) or "none"


def usable(entries: Mapping[str, SecretBytes]) -> list[OpeningKey]:
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
