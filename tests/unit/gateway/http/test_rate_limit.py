"""How many requests a user may send, with a simulated clock."""

import pytest

from devbox_secrets.gateway.contract.errors import ErrorResponse
from devbox_secrets.gateway.http import rate_limit
from devbox_secrets.gateway.http.rate_limit import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def wait(limit: RateLimiter, user: str = "jane") -> float:
    """Send a request; return how many seconds to wait, or 0 if it's accepted."""
    try:
        limit.acquire(user)
    except ErrorResponse as rejected:
        return int(rejected.headers["Retry-After-Ms"]) / 1000
    return 0.0


def test_a_burst_is_accepted_and_then_one_request_at_a_time() -> None:
    clock = Clock()
    limit = RateLimiter(2, 3, clock)
    assert [wait(limit) for _ in range(3)] == [0, 0, 0]
    assert wait(limit) == 0.5
    clock.now += 0.5
    assert wait(limit) == 0
    assert wait(limit) > 0


def test_each_rejected_request_has_its_own_time_to_retry() -> None:
    clock = Clock()
    limit = RateLimiter(2, 1, clock)
    assert wait(limit) == 0
    delays = [wait(limit) for _ in range(10)]
    assert delays == [0.5 * number for number in range(1, 11)]
    start = clock.now
    for each in delays:
        clock.now = start + each
        assert wait(limit) == 0


def test_an_hour_later_a_full_burst_is_accepted_again() -> None:
    clock = Clock()
    limit = RateLimiter(2, 3, clock)
    for _ in range(100):
        wait(limit)
    clock.now += 3600
    assert [wait(limit) for _ in range(4)] == [0, 0, 0, 0.5]


def test_the_time_to_retry_is_at_most_what_the_sdks_wait() -> None:
    limit = RateLimiter(0.01, 1, Clock())
    assert {wait(limit) for _ in range(5)} == {0, 60}


def test_each_user_has_a_separate_limit() -> None:
    limit = RateLimiter(1, 1, Clock())
    assert [wait(limit, user) for user in ("a", "b", "a", "b")] == [0, 0, 1, 1]


def test_without_a_limit_nothing_is_counted() -> None:
    limit = RateLimiter(0, 1, Clock())
    assert [wait(limit) for _ in range(1000)] == [0] * 1000
    assert len(limit) == 0


def test_users_without_requests_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    limit = RateLimiter(1, 1, clock)
    for number in range(100):
        wait(limit, str(number))
    assert len(limit) == 100
    clock.now += 10
    wait(limit)
    assert len(limit) == 1
    monkeypatch.setattr(rate_limit, "_MAX_USERS", 50)
    for number in range(100):
        wait(limit, str(number))
    assert len(limit) == 50
