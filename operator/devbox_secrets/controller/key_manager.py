"""Manages the sealing keys: reads, creates, rotates and publishes them, and writes back lost ones."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta

from pydantic import SecretBytes

from devbox_secrets.api.names import KEYS_SECRET, ROTATE_ANNOTATION
from devbox_secrets.controller.rules.events import KEYS_LOST, Event
from devbox_secrets.controller.rules.rotation import (
    CLOCK_SKEW,
    creation_time,
    is_due,
    key_ids,
    lost_keys,
    published,
    read_rotation_request,
    redated,
)
from devbox_secrets.crypto.envelope import KeyPair, Keyring
from devbox_secrets.errors import Conflict
from devbox_secrets.kube.key_store import KeyStore, StoredKeys

LOG = logging.getLogger(__name__)


class KeyManager:
    """The keys in the cluster, as of the last `refresh`."""

    def __init__(
        self,
        store: KeyStore,
        clock: Callable[[], datetime],
        rotate_every: timedelta | None = None,
        *,
        sealed: Callable[[], Iterable[str] | None],
        record: Callable[[Event], Awaitable[None]],
    ) -> None:
        """Create a manager; `sealed` returns every sealed value in the cluster, or None before they are known."""
        self.keyring = Keyring(())
        self._store = store
        self._clock = clock
        self._rotate_every = rotate_every
        self._sealed = sealed
        self._record = record
        self._turn = asyncio.Lock()
        self._version = ""
        # Kept until `refresh` has returned it, since publishing may fail before that.
        self._added = False
        self._lost: frozenset[str] = frozenset()
        self._rejected: str | None = None
        self._logged = self._recorded = False

    @property
    def stored(self) -> Keyring:
        """The keys in the Secret; none while it has lost some, since the newest may be in memory only."""
        return Keyring(()) if self._lost else self.keyring

    @property
    def missing(self) -> bool:
        """Whether there are sealed values but no key, neither stored nor in memory."""
        return not self.keyring and bool(self._used())

    async def refresh(self, *, write: bool) -> bool:
        """Read the keys; return whether there are new ones.

        With `write`, create the first key if there is none and no value needs one, and the next key when it is due.
        Only keys that are stored are published, so that every value that users seal can be opened.

        Raises:
            APIError: the key Secret or the ConfigMap can't be read or written.
        """
        async with self._turn:
            stored = await self._read()
            if write:
                await self._complete(stored)
            await self._report(write=write)
            if write and not self._lost and (self.keyring or self.missing):
                await self._store.publish(published(self.keyring))
            added, self._added = self._added, False
            return added

    async def write_back(self) -> None:
        """Write back the keys that the Secret has lost, before this process exits.

        Raises:
            APIError: the keys can't be read or written.
        """
        async with self._turn:
            stored = await self._read()
            if self._lost:
                await self._complete(stored)

    async def _read(self) -> StoredKeys:
        stored = await self._store.read()
        if stored.resource_version != self._version:
            self._take(stored)
            self._version = stored.resource_version
        return stored

    def _take(self, stored: StoredKeys) -> None:
        found = stored.keyring()
        lost = lost_keys(self.keyring, found, stored.pruned, self._used() or ())
        keyring = Keyring([*found.values(), *(self.keyring[key_id] for key_id in lost)])
        added, removed = sorted(set(keyring) - set(self.keyring)), sorted(set(self.keyring) - set(keyring))
        self.keyring, self._lost = keyring, lost
        self._added = self._added or bool(added)
        if lost:
            LOG.warning(
                "the Secret %s has lost sealing keys: %s; using the copies in memory",
                KEYS_SECRET,
                _listed(lost),
            )
        newest = f" (newest: {keyring.newest.public.id})" if keyring else ""
        if added or removed or not keyring:
            LOG.info(
                "sealing keys: %d%s; added: %s; removed: %s", len(keyring), newest, _listed(added), _listed(removed)
            )

    async def _complete(self, stored: StoredKeys) -> None:
        """Write what the Secret lacks: lost keys, a new key, or correct creation times."""
        since = None if self._lost else self._requested(stored.rotate)
        entries, what = self._lacking(stored, since)
        if not entries and since is None:
            return
        try:
            # A request is removed once it's met. Otherwise it would ask for another key if all keys are ever lost.
            await self._store.write(stored, entries, answered=since is not None)
        except Conflict:
            LOG.info("the sealing keys were changed meanwhile; reading them again")
        else:
            LOG.log(logging.WARNING if self._lost else logging.INFO, "%s: %s", what, _listed(entries))
        await self._read()

    def _lacking(self, stored: StoredKeys, since: datetime | None) -> tuple[dict[str, SecretBytes], str]:
        """Return what to write, and how to log it."""
        if self._lost:
            return _dumped(self.keyring[key_id] for key_id in self._lost), "wrote back lost sealing keys from memory"
        now = self._clock()
        dated = redated(self.keyring, now)
        newest = self.keyring.newest.created if self.keyring else None
        if is_due(newest, since, self._rotate_every, now):
            key = KeyPair.generate(creation_time(dated.newest.created if dated else newest, now))
            return _dumped([*dated.values(), key]), "created a new sealing key"
        # Only if it's known that no value needs another key, which might come back.
        if not stored.entries and self._used() == frozenset():
            return _dumped([KeyPair.generate(now)]), "created the first sealing key"
        if newest is not None and newest > now + CLOCK_SKEW:
            return _dumped(dated.values()), "corrected the creation times of sealing keys from the future"
        return {}, "created no new sealing key, since the newest one is recent enough"

    async def _report(self, *, write: bool) -> None:
        """Report once that keys are missing."""
        missing = self.missing
        if missing and not self._logged:
            LOG.error("%s", KEYS_LOST.message)
        if missing and write and not self._recorded:
            await self._record(KEYS_LOST)
        self._logged, self._recorded = missing, missing and (write or self._recorded)

    def _used(self) -> frozenset[str] | None:
        sealed = self._sealed()
        return None if sealed is None else key_ids(sealed)

    def _requested(self, text: str | None) -> datetime | None:
        newest = self.keyring.newest.created if self.keyring else None
        request = read_rotation_request(text, self._clock(), newest)
        if request.rejection and text != self._rejected:
            LOG.warning(
                "ignoring the annotation %s of the Secret %s: %s",
                ROTATE_ANNOTATION,
                KEYS_SECRET,
                request.rejection,
            )
        self._rejected = text if request.rejection else None
        return request.since


def _dumped(keys: Iterable[KeyPair]) -> dict[str, SecretBytes]:
    return {key.public.id: SecretBytes(key.dump()) for key in keys}


def _listed(ids: Iterable[str]) -> str:
    return ", ".join(sorted(ids)) or "none"
