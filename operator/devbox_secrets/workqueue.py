"""The queue of accounts to look at: each at most once, the newest first. Imports nothing of ours.

Newest first, so that what a person just applied isn't behind the backlog of a start. An account
that failed comes back later, each time later than the time before, and alone: no other waits.
"""

import asyncio
from collections.abc import Iterable

_FIRST_DELAY_SECONDS = 0.2
_LONGEST_DELAY_SECONDS = 60.0


class WorkQueue:
    """Names, without doubles; `get` gives each to one worker at a time."""

    def __init__(self) -> None:
        self._waiting: dict[str, float] = {}
        self._working: set[str] = set()
        self._again: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._moved = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, names: Iterable[str]) -> None:
        """Put names in front. One that is being worked on comes again after that."""
        now = asyncio.get_running_loop().time()
        for name in names:
            if name in self._working:
                self._again.setdefault(name, now)
            else:
                # Moved to the front, but it has waited since it came first.
                self._waiting[name] = self._waiting.pop(name, now)
        if self._waiting:
            self._wake.set()

    async def get(self) -> tuple[str, float]:
        """Take the newest name, waiting for one; and how long it had waited, in seconds."""
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()
        name, since = self._waiting.popitem()
        self._working.add(name)
        if timer := self._later.pop(name, None):
            timer.cancel()
        self._moved = asyncio.get_running_loop().time()
        return name, self._moved - since

    def done(self, name: str) -> None:
        """Tell that the work on a name went well."""
        self._failures.pop(name, None)
        self._release(name)

    def failed(self, name: str) -> float:
        """Tell that it didn't, so that it comes again later; give when, in seconds."""
        count = self._failures[name] = self._failures.get(name, 0) + 1
        delay: float = min(_FIRST_DELAY_SECONDS * 2 ** min(count - 1, 16), _LONGEST_DELAY_SECONDS)
        loop = asyncio.get_running_loop()
        self._later[name] = loop.call_later(delay, self._return, name)
        self._release(name)
        return delay

    def stuck_seconds(self) -> float:
        """How long nothing has been taken though something waits."""
        if not self._waiting:
            return 0.0
        oldest = min(self._waiting.values())
        return asyncio.get_running_loop().time() - max(oldest, self._moved)

    def _return(self, name: str) -> None:
        self._later.pop(name, None)
        self.add([name])

    def _release(self, name: str) -> None:
        self._working.discard(name)
        if (since := self._again.pop(name, None)) is not None:
            self._waiting[name] = since
            self._wake.set()
