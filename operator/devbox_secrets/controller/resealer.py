"""Reseals the gateway's values with the newest key, since nobody else has a copy of them.

Batches are small and requests are sequential, so that users' changes needn't wait.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator

from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.controller import metrics
from devbox_secrets.controller.cache import Cache
from devbox_secrets.controller.rules.rotation import needs_reseal, older_keys
from devbox_secrets.controller.writes import Writer
from devbox_secrets.crypto.envelope import Keyring
from devbox_secrets.errors import APIError, Conflict, NotFound, NotLeader, ServerError, Unreachable

LOG = logging.getLogger(__name__)
#: Values per batch.
BATCH_SIZE = 50
_LONGEST_DELAY_SECONDS = 3600.0


class Resealer:
    """Reseals values that use older keys, so that those keys can be removed; the values stay the same."""

    def __init__(
        self,
        writer: Writer,
        cache: Cache,
        keyring: Callable[[], Keyring],
        value: Callable[[AccountSecret], Awaitable[SecretBytes | None]],
        *,
        first_delay: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._cache = cache
        self._keyring = keyring
        self._value = value
        self._first_delay = first_delay
        self._clock = clock
        # By uid, for those that failed: the current delay, and until when they wait.
        self._waiting: dict[str, tuple[float, float]] = {}

    async def reseal_batch(self) -> set[str]:
        """Reseal some values, if there are any; return their accounts, whose statuses must be updated."""
        changed: list[str] = []
        failures: list[APIError] = []
        keyring = self._keyring()
        # A list, since the cache changes while requests are in flight.
        for secret in list(self._waiting_for(older_keys(keyring))):
            if len(changed) == BATCH_SIZE:
                break
            try:
                value = await self._value(secret)
                if value is None:  # it can't be opened and stays unchanged
                    self._put_off(secret)
                    continue
                sealed = keyring.newest.public.seal(value, account=secret.namespace, name=secret.spec.name)
                body = await self._writer.write_sealed(secret.namespace, secret.name, sealed, secret.resource_version)
            except (Conflict, NotFound):
                # Someone changed or deleted it meanwhile: their change stays, and its event will follow.
                self._put_off(secret)
                metrics.RESEALS.labels("conflict").inc()
            except APIError as error:
                self._put_off(secret)
                metrics.RESEALS.labels("failed").inc()
                failures.append(error)
                if isinstance(error, Unreachable | ServerError | NotLeader):
                    break  # the next one would fail in the same way
            else:
                metrics.RESEALS.labels("resealed").inc()
                self._waiting.pop(secret.uid, None)
                self._cache.upsert_account_secret(body)
                changed.append(secret.namespace)
        if changed:
            LOG.info("resealed values with the newest key: %d", len(changed))
        if failures:
            LOG.warning("failed to reseal values: %d; first error: %s", len(failures), failures[0])
        return set(changed)

    def forget(self) -> None:
        """Forget AccountSecrets that no longer exist."""
        alive = {secret.uid for secret in self._cache.all_account_secrets()}
        self._waiting = {uid: waits for uid, waits in self._waiting.items() if uid in alive}

    def _waiting_for(self, older: Collection[str]) -> Iterator[AccountSecret]:
        """Yield the AccountSecrets whose values use older keys and may be tried now."""
        now = self._clock()
        for secret in self._cache.all_account_secrets():
            if older and secret.without_copy and not secret.deleting and needs_reseal(secret.spec.sealed, older):
                _, until = self._waiting.get(secret.uid, (0, now))
                if until <= now:
                    yield secret

    def _put_off(self, secret: AccountSecret) -> None:
        delay, _ = self._waiting.get(secret.uid, (self._first_delay / 2, 0))
        delay = min(delay * 2, _LONGEST_DELAY_SECONDS)
        self._waiting[secret.uid] = delay, self._clock() + delay
