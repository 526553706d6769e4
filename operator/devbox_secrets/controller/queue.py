"""The queue of accounts to reconcile: no duplicates, newest first, fair, with backoff.

Newest first, so that what a user just applied doesn't wait behind the backlog after a start. But an
account with more changes than its fair share moves back, so that a flood of changes in one account
doesn't delay the others (weighted fair queueing; Demers, Keshav and Shenker 1989). One worker takes only
accounts with few changes, so it is usually free for a single change while all others work on large accounts.
An account that failed is retried with exponential backoff, which delays no other account.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from heapq import heapify, heappop, heappush

_FIRST_DELAY_SECONDS = 0.2
_LONGEST_DELAY_SECONDS = 60.0
#: The number of changes beyond its fair share that don't move a name back. An account with more isn't small.
_FEW_CHANGES = 3


class WorkQueue:
    """Names without duplicates; `get` hands each to one worker at a time."""

    def __init__(self) -> None:
        self._waiting: dict[str, float] = {}
        # Ordered by place, then newest first. A name is in it once for each change; only its last ticket counts.
        self._row: list[tuple[float, int, str]] = []
        self._small_row: list[tuple[float, int, str]] = []
        self._tickets: dict[str, int] = {}
        self._last_ticket = 0
        # Counted in changes: those waiting, those of each name since the queue was last empty, and the fair share.
        self._changes: Counter[str] = Counter()
        self._had: defaultdict[str, float] = defaultdict(float)
        self._share = 0.0
        self._working: set[str] = set()
        self._again: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._wake_for_small = asyncio.Event()
        self._moved = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, names: Iterable[str]) -> None:
        """Enqueue names. One that is being worked on is enqueued again afterwards."""
        now = asyncio.get_running_loop().time()
        for name in names:
            self._changes[name] += 1
            if name in self._working:
                self._again.setdefault(name, now)
            else:
                self._wait(name, now)
        if self._waiting:
            self._wake.set()

    async def get(self, *, small: bool = False) -> tuple[str, float]:
        """Wait for the first name and take it; return it and how long it waited, in seconds.

        With `small`, take only a name with few changes.
        """
        row, wake = (self._small_row, self._wake_for_small) if small else (self._row, self._wake)
        while not self._has_next(row):
            if not self._waiting:
                self._had.clear()  # the queue is empty, so no name was held back by another
            wake.clear()
            await wake.wait()
        name = heappop(row)[2]
        changes = self._changes.pop(name)
        self._had[name] += changes
        self._share += changes / (len(self._waiting) + len(self._working))
        del self._tickets[name]
        since = self._waiting.pop(name)
        self._working.add(name)
        if timer := self._later.pop(name, None):
            timer.cancel()
        self._moved = asyncio.get_running_loop().time()
        return name, self._moved - since

    def done(self, name: str) -> None:
        """Record that the work on a name succeeded."""
        self._failures.pop(name, None)
        self._release(name)

    def failed(self, name: str) -> float:
        """Record that the work on a name failed, so that it is retried; return the delay in seconds."""
        count = self._failures[name] = self._failures.get(name, 0) + 1
        delay: float = min(_FIRST_DELAY_SECONDS * 2 ** min(count - 1, 16), _LONGEST_DELAY_SECONDS)
        loop = asyncio.get_running_loop()
        self._later[name] = loop.call_later(delay, self.add, [name])
        self._release(name)
        return delay

    def failures(self, name: str) -> int:
        """Return how often in a row the work on a name has failed."""
        return self._failures.get(name, 0)

    def stuck_seconds(self) -> float:
        """Return for how long no name has been taken although some are waiting."""
        if not self._waiting:
            return 0.0
        oldest = min(self._waiting.values())
        return asyncio.get_running_loop().time() - max(oldest, self._moved)

    def _has_next(self, row: list[tuple[float, int, str]]) -> bool:
        """Return whether a name waits in a row, after removing its invalid tickets."""
        while row and not self._is_valid(row[0]):
            heappop(row)
        return bool(row)

    def _is_valid(self, ticket: tuple[float, int, str]) -> bool:
        return self._tickets.get(ticket[2]) == ticket[1]

    def _clean(self, row: list[tuple[float, int, str]]) -> None:
        """Remove a row's invalid tickets if they are many: those behind a valid one don't reach the front."""
        if len(row) > 2 * len(self._waiting):
            row[:] = filter(self._is_valid, row)
            heapify(row)

    def _release(self, name: str) -> None:
        self._working.discard(name)
        if (since := self._again.pop(name, None)) is not None:
            self._wait(name, since)
            self._wake.set()

    def _wait(self, name: str, since: float) -> None:
        if name not in self._waiting:
            self._waiting[name] = since
            self._had[name] = max(self._share, self._had[name])
        place = self._had[name] + self._changes[name]
        self._last_ticket -= 1
        self._tickets[name] = self._last_ticket
        ticket = (0 if place <= self._share + _FEW_CHANGES else place, self._last_ticket, name)
        heappush(self._row, ticket)
        if self._changes[name] <= _FEW_CHANGES:
            heappush(self._small_row, ticket)
            self._wake_for_small.set()
        self._clean(self._row)
        self._clean(self._small_row)
