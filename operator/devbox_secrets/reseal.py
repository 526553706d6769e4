"""Seals anew, with the newest key, what the gateway took: nobody else could. Imports cluster; keyplan has the rules.

A round is short and one request after the other, so that what people change needn't wait for it.
"""

import logging
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from itertools import islice

from pydantic import SecretBytes

from devbox_secrets import metrics
from devbox_secrets.cache import AccountSecret, Cache
from devbox_secrets.cluster import Cluster
from devbox_secrets.errors import ClusterError
from devbox_secrets.keyplan import is_behind, older
from devbox_secrets.sealing import Keyring

LOG = logging.getLogger(__name__)
#: Values of one round.
ROUND = 50
_LONGEST_DELAY_SECONDS = 3600.0
#: Someone changed or deleted it meanwhile: theirs stays, and news of it is on the way.
_OVERTAKEN = {HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND}


class Resealer:
    """Moves values on from older keys, so that those can be removed; the values stay what they are."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        keyring: Callable[[], Keyring],
        opened: Callable[[AccountSecret], SecretBytes | None],
        *,
        first_delay: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._keyring = keyring
        self._opened = opened
        self._first_delay = first_delay
        self._clock = clock
        # By uid, of those that failed: the present delay, and until when they wait.
        self._waiting: dict[str, tuple[float, float]] = {}

    async def round(self) -> set[str]:
        """Seal some values anew, if there are any; give their accounts, whose statuses follow."""
        changed: list[str] = []
        failures: list[ClusterError] = []
        # A list, since the cache changes while requests are on their way.
        for secret, sealed in list(islice(self._anew(), ROUND)):
            try:
                body = await self._cluster.write_sealed(secret.namespace, secret.name, sealed, secret.resource_version)
            except ClusterError as error:
                self._put_off(secret)
                if error.status in _OVERTAKEN:
                    metrics.RESEALS.labels("overtaken").inc()
                    continue
                metrics.RESEALS.labels("failed").inc()
                failures.append(error)
                if not error.status:  # no answer: the next would have none, either
                    break
            else:
                metrics.RESEALS.labels("resealed").inc()
                self._waiting.pop(secret.uid, None)
                self._cache.take_account_secret(body)
                changed.append(secret.namespace)
        if changed:
            LOG.info("values sealed anew with the newest key: %d", len(changed))
        if failures:
            LOG.warning("values that can't be sealed anew now: %d; the first: %s", len(failures), failures[0])
        return set(changed)

    def forget(self) -> None:
        """Drop what is known of AccountSecrets that are gone."""
        alive = {secret.uid for secret in self._cache.all_account_secrets()}
        self._waiting = {uid: waits for uid, waits in self._waiting.items() if uid in alive}

    def _anew(self) -> Iterator[tuple[AccountSecret, str]]:
        """Give values that have to move on, each sealed with the newest key. One that doesn't open stays as it is."""
        keyring = self._keyring()
        if not (former := older(keyring)):
            return
        newest, now = keyring.newest.public, self._clock()
        for secret in self._cache.all_account_secrets():
            if not secret.without_copy or not is_behind(secret.spec.sealed, former):
                continue
            _, until = self._waiting.get(secret.uid, (0, now))
            value = self._opened(secret)
            if until <= now and value is not None:
                yield secret, newest.seal(value, account=secret.namespace, name=secret.spec.name)

    def _put_off(self, secret: AccountSecret) -> None:
        delay, _ = self._waiting.get(secret.uid, (self._first_delay / 2, 0))
        delay = min(delay * 2, _LONGEST_DELAY_SECONDS)
        self._waiting[secret.uid] = delay, self._clock() + delay
