"""Manages the sealing keys: reads, creates, rotates and publishes them."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from pydantic import SecretBytes

from devbox_secrets.api.names import KEYS_SECRET, ROTATE_ANNOTATION
from devbox_secrets.controller.rules.rotation import creation_time, is_due, published, read_rotation_request
from devbox_secrets.crypto.envelope import KeyPair, Keyring
from devbox_secrets.errors import Conflict
from devbox_secrets.kube.key_store import KeyStore, StoredKeys

LOG = logging.getLogger(__name__)


class KeyManager:
    """The keys as they are in the cluster, as of the last `refresh`."""

    def __init__(self, store: KeyStore, clock: Callable[[], datetime], rotate_every: timedelta | None = None) -> None:
        self.keyring = Keyring(())
        self._store = store
        self._clock = clock
        self._rotate_every = rotate_every
        self._turn = asyncio.Lock()
        self._version = ""
        # Until it was told: publishing may fail before that.
        self._added = False
        self._lost = False
        self._rejected: str | None = None

    @property
    def stored(self) -> Keyring:
        """The keys that the Secret holds: none while it has lost them, and those in memory may be the last."""
        return Keyring(()) if self._lost else self.keyring

    async def refresh(self, *, write: bool) -> bool:
        """Read the keys; tell whether there are new ones.

        Who may write makes the first one where there is none, and the next one when it's due, and
        publishes the public halves: of stored keys alone, so that what people seal can be opened.

        Raises:
            APIError: the key Secret or the ConfigMap can't be read or written.
        """
        async with self._turn:
            stored = await self._read()
            if write:
                await self._complete(stored)
            if write and self.keyring and not self._lost:
                await self._store.publish(published(self.keyring))
            added, self._added = self._added, False
            return added

    async def _read(self) -> StoredKeys:
        stored = await self._store.read()
        if stored.resource_version != self._version:
            self._take(stored.keyring())
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
        self._added = self._added or bool(added)
        newest = f", the newest {found.newest.public.id}" if found else " that can be read"
        if added or removed or not found:
            LOG.info("sealing keys: %d%s; added: %s; removed: %s", len(found), newest, _listed(added), _listed(removed))

    async def _complete(self, stored: StoredKeys) -> None:
        """Write what the Secret lacks: the keys that it lost, or a new one."""
        entries, what = self._lacking(stored)
        if not entries:
            return
        try:
            await self._store.write(entries, stored.resource_version)
        except Conflict:
            LOG.info("someone else changed the sealing keys just now; looking again")
        else:
            LOG.log(logging.WARNING if self._lost else logging.INFO, "%s: %s", what, _listed(sorted(entries)))
        await self._read()

    def _lacking(self, stored: StoredKeys) -> tuple[dict[str, SecretBytes], str]:
        """Give what is to be written, and what to call it."""
        if self._lost:
            return _dumped(*self.keyring.values()), "wrote the lost sealing keys back from memory"
        now = self._clock()
        since = self._requested(stored.rotate, now)
        newest = self.keyring.newest.created if self.keyring else None
        if not stored.entries:
            what = "made the first sealing key"
        elif is_due(newest, since, self._rotate_every, now):
            what = "made a new sealing key"
        else:
            return {}, ""
        return _dumped(KeyPair.generate(creation_time(since, now))), what

    def _requested(self, text: str | None, now: datetime) -> datetime | None:
        request = read_rotation_request(text, now)
        if request.rejection and text != self._rejected:
            LOG.warning(
                "the annotation %s of the Secret %s asks for no new key: %s",
                ROTATE_ANNOTATION,
                KEYS_SECRET,
                request.rejection,
            )
        self._rejected = text if request.rejection else None
        return request.since


def _dumped(*keys: KeyPair) -> dict[str, SecretBytes]:
    return {key.public.id: SecretBytes(key.dump()) for key in keys}


def _listed(ids: list[str]) -> str:
    return ", ".join(ids) or "none"
