"""Runs a test in virtual time, so that hours pass at once."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

P = ParamSpec("P")


class SkippingLoop(asyncio.SelectorEventLoop):
    """A loop in which time passes only when nothing is left to do, and then at once."""

    def __init__(self) -> None:
        self.skipped = 0.0
        loop = self

        class Skipping(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                assert timeout is not None, "everything waits and no timer runs"
                loop.skipped += timeout
                return super().select(0)

        super().__init__(Skipping())

    def time(self) -> float:
        return self.skipped


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(main)


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make of an asynchronous test one that runs in such a loop."""

    @wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return wrapper


async def settle() -> None:
    """Let every task go on until all wait for a timer or for one another."""
    await asyncio.sleep(0.001)
