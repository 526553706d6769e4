"""How many calls a user may make, by a clock of our own; and what it costs to ask whose token it is."""

import asyncio
from typing import Any

import pytest

from devbox_secrets.errors import ClusterError
from devbox_secrets.gateway import rates
from devbox_secrets.gateway.answers import Busy, Declined, Late, declined_by_the_cluster, too_many
from devbox_secrets.gateway.callers import REFUSED_SECONDS, Callers
from devbox_secrets.gateway.rates import Rates


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def wait(limit: Rates, user: str = "jane") -> float:
    """Call, and give how many seconds to wait: 0 where the call may pass."""
    try:
        limit.take(user)
    except Declined as declined:
        return int(declined.headers["Retry-After-Ms"]) / 1000
    return 0.0


def test_a_burst_passes_and_then_one_at_a_time() -> None:
    clock = Clock()
    limit = Rates(2, 3, clock)
    assert [wait(limit) for _ in range(3)] == [0, 0, 0]
    assert wait(limit) == 0.5
    clock.now += 0.5
    assert wait(limit) == 0
    assert wait(limit) > 0


def test_each_who_is_turned_away_has_a_time_of_its_own_at_which_it_passes() -> None:
    clock = Clock()
    limit = Rates(2, 1, clock)
    assert wait(limit) == 0
    told = [wait(limit) for _ in range(10)]
    assert told == [0.5 * number for number in range(1, 11)]
    start = clock.now
    for each in told:
        clock.now = start + each
        assert wait(limit) == 0


def test_an_hour_later_all_is_as_at_first() -> None:
    clock = Clock()
    limit = Rates(2, 3, clock)
    for _ in range(100):
        wait(limit)
    clock.now += 3600
    assert [wait(limit) for _ in range(4)] == [0, 0, 0, 0.5]


def test_nobody_is_told_to_wait_longer_than_the_sdks_do() -> None:
    limit = Rates(0.01, 1, Clock())
    assert {wait(limit) for _ in range(5)} == {0, 60}


def test_users_have_nothing_to_do_with_one_another() -> None:
    limit = Rates(1, 1, Clock())
    assert [wait(limit, user) for user in ("a", "b", "a", "b")] == [0, 0, 1, 1]


def test_without_a_limit_nothing_is_counted() -> None:
    limit = Rates(0, 1, Clock())
    assert [wait(limit) for _ in range(1000)] == [0] * 1000
    assert len(limit) == 0


def test_of_who_calls_no_more_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    limit = Rates(1, 1, clock)
    for number in range(100):
        wait(limit, str(number))
    assert len(limit) == 100
    clock.now += 10
    wait(limit)
    assert len(limit) == 1
    monkeypatch.setattr(rates, "_USERS", 50)
    for number in range(100):
        wait(limit, str(number))
    assert len(limit) == 50


# --- What an answer says of when to come again


@pytest.mark.parametrize(
    ("declined", "status", "sentence", "headers"),
    [
        (too_many("Too many", 0.25), 429, "Too many; try again in 1 second", ("1", "250")),
        (too_many("Too many", 1.2), 429, "Too many; try again in 2 seconds", ("2", "1200")),
        (too_many("Too many", 10_000), 429, "Too many; try again in 60 seconds", ("60", "60000")),
        (too_many("Too many", 0), 429, "Too many; try again in 1 second", ("1", "1")),
        (
            declined_by_the_cluster(Busy("GET /: 429", 3)),
            429,
            "the cluster's API server has too many requests; try again in 3 seconds",
            ("3", "3000"),
        ),
        (
            declined_by_the_cluster(Late("GET /", 2.5)),
            503,
            "the cluster's API server took longer than 2.5 seconds; try again in 2 seconds",
            ("2", "2000"),
        ),
        (
            declined_by_the_cluster(ClusterError("GET /: ClientConnectorError")),
            503,
            "the cluster's API server doesn't answer as it should; try again in 2 seconds",
            ("2", "2000"),
        ),
    ],
)
def test_who_is_turned_away_hears_when_to_come_again(
    declined: Declined, status: int, sentence: str, headers: tuple[str, str]
) -> None:
    assert (declined.status, str(declined)) == (status, sentence)
    assert declined.headers == dict(zip(("Retry-After", "Retry-After-Ms"), headers, strict=True))


def test_who_is_refused_for_good_hears_no_time() -> None:
    assert declined_by_the_cluster(ClusterError("GET /: 403", 403)).headers == {}


# --- Whose token it is


class Reviews:
    """Answers reviews when it's told to: a token that begins with `known` is that user's."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.at_once = self.most = 0
        self.go = asyncio.Event()

    async def ask(self, token: str, *_: object, **__: object) -> dict[str, Any]:
        self.asked.append(token)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.go.wait()
        self.at_once -= 1
        if not token.startswith("known"):
            raise ClusterError("POST /: 401", 401)
        return {"status": {"userInfo": {"username": f"system:serviceaccount:{token}:editor"}}}


async def outcome(callers: Callers, token: str) -> int:
    """Give the status that a caller with this token gets."""
    try:
        await callers.find(f"Bearer {token}", None)
    except Declined as declined:
        return int(declined.status)
    except ClusterError as error:
        return error.status
    return 200


def test_of_many_who_come_with_one_token_at_once_one_asks() -> None:
    async def come() -> None:
        reviews = Reviews()
        callers = Callers(reviews)  # type: ignore[arg-type]
        together = asyncio.gather(*(outcome(callers, "known") for _ in range(50)))
        await asyncio.sleep(0)
        reviews.go.set()
        assert await together == [200] * 50
        assert reviews.asked == ["known"]

    asyncio.run(come())


def test_a_token_that_was_refused_is_asked_about_again_after_a_while() -> None:
    async def come() -> None:
        reviews, clock = Reviews(), Clock()
        reviews.go.set()
        callers = Callers(reviews, clock=clock)  # type: ignore[arg-type]
        assert [await outcome(callers, "bad") for _ in range(10)] == [401] * 10
        assert reviews.asked == ["bad"]
        clock.now += REFUSED_SECONDS
        assert await outcome(callers, "bad") == 401
        assert reviews.asked == ["bad"] * 2

    asyncio.run(come())


def test_unknown_tokens_are_asked_about_a_few_at_a_time_and_too_many_are_turned_away() -> None:
    async def come() -> None:
        reviews, clock = Reviews(), Clock()
        callers = Callers(reviews, clock=clock)  # type: ignore[arg-type]
        reviews.go.set()
        assert await outcome(callers, "known") == 200
        reviews.go.clear()
        clock.now += 3600  # it's to be asked about again, but it isn't unknown
        flood = asyncio.gather(*(outcome(callers, f"bad-{number}") for number in range(1000)))
        known = asyncio.create_task(outcome(callers, "known"))
        while reviews.at_once < 17:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)
        reviews.go.set()
        assert await known == 200
        answers = await flood
        assert (answers.count(401), answers.count(429)) == (256, 744)
        assert reviews.most == 17

    asyncio.run(come())


def test_a_flood_of_refused_tokens_drives_out_none_that_is_known() -> None:
    async def come() -> None:
        reviews = Reviews()
        reviews.go.set()
        callers = Callers(reviews)  # type: ignore[arg-type]
        assert await outcome(callers, "known") == 200
        for number in range(5000):
            await outcome(callers, f"bad-{number}")
        reviews.asked.clear()
        assert await outcome(callers, "known") == 200
        assert reviews.asked == []

    asyncio.run(come())
