"""How many calls a user may make: a bucket of tokens for each, as two times. Imports answers, metrics.

A bucket is written as the time at which it will be full again (the generic cell rate algorithm), so a full one needs
no entry. Who is turned away gets a time of its own, after those that were given out before: so a burst of a client
that waits as it is told passes one by one, at the rate, without a second refusal.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from devbox_secrets import metrics
from devbox_secrets.gateway.answers import MOST_RETRY_AFTER_SECONDS, too_many

#: Users with a bucket that isn't full; beyond it the one who called longest ago gets a full one.
_USERS = 10_000
#: What sums of such times may be off by.
_ROUNDING = 1e-6


class Rates:
    """The buckets of this process."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = 1 / per_second if per_second else 0.0
        self._depth = burst * self._every
        self._clock = clock
        self._full: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Say of how many users something is remembered."""
        return len(self._full)

    def take(self, user: str) -> None:
        """Count a user's call.

        Raises:
            Declined: there were too many; it says when to come again.
        """
        if not self._every:
            return
        now = self._clock()
        full, promised = self._full.pop(user, (now, now))
        full, promised = max(full, now), max(promised, full, now)
        wait = 0.0
        if full + self._every - now > self._depth + _ROUNDING:
            promised = min(promised + self._every, now + self._depth + MOST_RETRY_AFTER_SECONDS)
            wait = promised - now - self._depth
        else:
            full += self._every
        self._full[user] = full, promised
        self._forget(now)
        if wait:
            metrics.TURNED_AWAY.labels("caller").inc()
            raise too_many("this token's user makes too many calls", wait)

    def _forget(self, now: float) -> None:
        while self._full:
            user, times = next(iter(self._full.items()))
            if max(times) > now and len(self._full) <= _USERS:
                return
            del self._full[user]
