"""The rate limit per user: a token bucket, by the generic cell rate algorithm.

A bucket is kept as the time at which it is full again (the generic cell rate algorithm), so a full one needs no entry.
Each rejected request gets a time of its own for its retry, after those that were given out before. So a burst from a
client that waits as told passes one by one, at the rate, without a second rejection.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from devbox_secrets.gateway import metrics
from devbox_secrets.gateway.contract.errors import MAX_RETRY_AFTER_SECONDS, too_many_requests

#: Users with a bucket that isn't full; beyond it, the one whose last request is oldest gets a full one.
_MAX_USERS = 10_000
#: The rounding error of sums of such times.
_ROUNDING = 1e-6


class RateLimiter:
    """The buckets of this process."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._depth = burst * self._interval
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Give the number of users with a bucket that isn't full."""
        return len(self._buckets)

    def acquire(self, user: str) -> None:
        """Take a token from a user's bucket.

        Raises:
            ErrorResponse: the bucket is empty; it says when to retry.
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
            raise too_many_requests("this token's user makes too many calls", wait)

    def _evict(self, now: float) -> None:
        while self._buckets:
            user, times = next(iter(self._buckets.items()))
            if max(times) > now and len(self._buckets) <= _MAX_USERS:
                return
            del self._buckets[user]
