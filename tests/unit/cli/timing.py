"""How the time that a function takes grows with its input."""

import time
from collections.abc import Callable


def growth(run: Callable[[int], object], count: int) -> float:
    """Return how much longer a run with four times the count takes, in CPU time: 4 if linear, 16 if quadratic."""

    def seconds(size: int) -> float:
        started = time.process_time()
        run(size)
        return time.process_time() - started

    short, long = (min(seconds(size) for _ in range(3)) for size in (count, 4 * count))
    return long / short
