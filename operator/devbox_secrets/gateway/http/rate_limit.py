"""The rate limit per user: a token bucket, by the generic cell rate algorithm.

A bucket is stored as the time at which it is full again, so a full one needs no entry. Each rejected request gets its
own time to retry, after those of earlier ones. So if the client waits that long, its burst passes one request at a
time, at the allowed rate, without a second rejection.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from devbox_secrets.gateway import metrics
from devbox_secrets.gateway.contract.errors import MAX_RETRY_AFTER_SECONDS, too_many_requests

#: Maximum number of users with a bucket that isn't full; beyond it, the least recently active user gets a full one.
_MAX_USERS = 10_000
#: Tolerance for rounding errors in sums of times.
_ROUNDING = 1e-6


class RateLimiter:
    """The token buckets of this process."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._depth = burst * self._interval
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of users with a bucket that isn't full."""
        return len(self._buckets)

    def acquire(self, user: str) -> None:
        """Take a token from a user's bucket.

        Raises:
            ErrorResponse: the bucket is empty; the error says when to retry.
        """
        if not self._interval:
            return
        now = self._clock()
        full_at, promised = self._buckets.pop(user, (now, now))
        full_at, promised = max(full_at, now), max(promised, full_at, now)
        wait = 0.0
        if full_at + self._interval - now > self._depth + _ROUNDING:
            promised = min(promised + self._interval, now + self._depth + MAX_RETRY_AFTER_SECONDS)
            wait = promised - now - self._depth
        else:
            full_at += self._interval
        self._buckets[user] = full_at, promised
        self._evict(now)
        if wait:
            metrics.REJECTED_REQUESTS.labels("rate_limit").inc()
            raise too_many_requests("too many requests from this token's user", wait)

    def _evict(self, now: float) -> None:
        while self._buckets:
            user, times = next(iter(self._buckets.items()))
            if max(times) > now and len(self._buckets) <= _MAX_USERS:
                return
            del self._buckets[user]
