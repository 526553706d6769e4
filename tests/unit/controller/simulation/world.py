"""Virtual time: events happen one at a time, in an order that a seed decides."""

import asyncio
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from random import Random

_START = datetime(2026, 2, 1, tzinfo=UTC)


class Violation(Exception):
    """An invariant doesn't hold."""


class World:
    """The clock, random numbers, and scheduled events."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - reproducible
        self.now = 0.0
        self.steps = 0
        """The number of events: requests, responses, watch events, changes and faults."""
        self.quiet = False
        """Whether no faults are injected."""
        self.violations: list[str] = []
        self.loops: list[ProcessLoop] = []
        self._coming: list[tuple[float, int, Callable[[], object]]] = []
        self._number = count()

    def time(self) -> datetime:
        """Return the current time."""
        return _START + timedelta(seconds=self.now)

    def later(self, seconds: float, callback: Callable[[], object]) -> None:
        """Schedule a call after this many seconds."""
        heappush(self._coming, (self.now + seconds, next(self._number), callback))

    def often(self, seconds: float, until: float, callback: Callable[[], object]) -> None:
        """Schedule calls at random intervals with this average, until a time."""

        def happen() -> None:
            if self.now < until:
                callback()
                self.often(seconds, until, callback)

        self.later(self.random.expovariate(1 / seconds), happen)

    def chance(self, probability: float) -> bool:
        """Return whether a fault happens now."""
        return not self.quiet and self.random.random() < probability

    def delay(self, longest: float) -> float:
        """Return how many seconds something takes: usually a few milliseconds, sometimes seconds."""
        return self.random.uniform(0.1, longest) if self.chance(0.04) else self.random.uniform(0.001, 0.02)

    def pass_time(self, seconds: float) -> None:
        """Run everything that is scheduled within this time."""
        end = self.now + seconds
        while not self.violations:
            loop = min(self.loops, key=lambda loop: loop.wakes_at, default=None)
            at = self._coming[0][0] if self._coming else end
            if loop and loop.wakes_at <= min(at, end):
                self.now = max(self.now, loop.wakes_at)
                loop.run_until_idle()
            elif at <= end and self._coming:
                self.now, _, callback = heappop(self._coming)
                self.steps += 1
                callback()
            else:
                self.now = end
                return
        raise Violation(self.violations[0])


class ProcessLoop(asyncio.SelectorEventLoop):
    """A process's event loop, which stops when all its tasks wait."""

    def __init__(self, world: World) -> None:
        self.frozen = False
        self.wakes_at = 0.0
        self._world = world
        super().__init__(_StopWhenIdle(self))

    def time(self) -> float:
        return self._world.now

    def run_until_idle(self) -> None:
        """Run all that is due, unless the process is frozen."""
        self.wakes_at = float("inf")
        if not self.frozen:
            self.run_forever()

    def idle(self, timeout: float | None) -> None:
        """Make `run_until_idle` return, and note when the next timer expires, if there is one."""
        if timeout is not None:
            self.wakes_at = self._world.now + timeout
        self.stop()


class _StopWhenIdle(selectors.SelectSelector):
    """Never waits: there are no files, and time is virtual."""

    def __init__(self, loop: ProcessLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self._loop.idle(timeout)
        return []
