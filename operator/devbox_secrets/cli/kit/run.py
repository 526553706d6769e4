"""Runs a coroutine from a command."""

from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine until it completes."""
    import asyncio

    # Not Runner.run: on Ctrl-C it cancels the task, but a prompt that waits for input never sees the cancellation.
    with asyncio.Runner() as runner:
        return runner.get_loop().run_until_complete(coroutine)
