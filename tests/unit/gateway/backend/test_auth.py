"""Authentication: who sends a request, how many reviews that takes, and what a flood of unknown tokens delays."""

import asyncio
from typing import Any, NoReturn

import pytest

from devbox_secrets.errors import APIError, Unauthorized
from devbox_secrets.gateway.backend.auth import REFUSED_SECONDS, REMEMBERED_SECONDS, Authenticator, Caller, User
from devbox_secrets.gateway.contract.errors import ErrorResponse


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def find(authenticator: Authenticator, authorization: str | None, account: str | None) -> Caller:
    """Return the caller as the endpoints do."""
    return (await authenticator.authenticate(authorization)).caller(account)


class Counting:
    """Counts reviews; each token belongs to a ServiceAccount."""

    def __init__(self) -> None:
        self.reviewed = 0

    async def request(self, token: str, *_: object, **__: object) -> dict[str, Any]:
        self.reviewed += 1
        return {"status": {"userInfo": {"username": f"system:serviceaccount:{token}:editor"}}}


async def test_a_token_is_reviewed_once_a_minute() -> None:
    reviews, now = Counting(), [0.0]
    authenticator = Authenticator(reviews, clock=lambda: now[0])  # type: ignore[arg-type]

    async def account(token: str) -> str:
        return (await find(authenticator, f"Bearer {token}", None)).account

    assert [await account("a"), await account("a"), await account("b")] == ["a", "a", "b"]
    assert reviews.reviewed == 2
    now[0] = REMEMBERED_SECONDS
    assert await account("a") == "a"
    assert reviews.reviewed == 3


class Person:
    """Responds to reviews; each token belongs to a person."""

    async def request(self, *_: object, **__: object) -> dict[str, Any]:
        return {"status": {"userInfo": {"username": "jane@example.org"}}}


async def test_a_person_must_name_the_account() -> None:
    authenticator = Authenticator(Person())  # type: ignore[arg-type]
    assert (await find(authenticator, "Bearer hers", "team-a")).account == "team-a"
    for _ in range(2):  # reviewed, and then remembered
        with pytest.raises(ErrorResponse) as caught:
            await find(authenticator, "Bearer hers", None)
        assert (caught.value.status, "X-Devbox-Secrets-Account" in str(caught.value)) == (400, True)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "Bearer a\r\nX: y", "Bearer é", "token"]
)
async def test_without_a_bearer_token_nothing_is_reviewed(header: str | None) -> None:
    class Nobody:
        async def request(self, *_: object, **__: object) -> NoReturn:
            raise AssertionError

    with pytest.raises(ErrorResponse) as caught:
        await find(Authenticator(Nobody()), header, "team-a")  # type: ignore[arg-type]
    assert caught.value.status == 401


async def test_a_caller_s_token_is_never_shown() -> None:
    caller = await find(Authenticator(Counting()), "bearer the-token", "team-a")  # type: ignore[arg-type]
    assert (caller.token, "the-token" in repr(caller)) == ("the-token", False)


# --- Many requests at once


class Reviews:
    """Responds to reviews once `go` is set; only tokens that start with `known` are valid."""

    def __init__(self) -> None:
        self.reviewed: list[str] = []
        self.at_once = self.most = 0
        self.go = asyncio.Event()

    async def request(self, token: str, *_: object, **__: object) -> dict[str, Any]:
        self.reviewed.append(token)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.go.wait()
        self.at_once -= 1
        if not token.startswith("known"):
            raise Unauthorized("POST /: 401")
        return {"status": {"userInfo": {"username": f"system:serviceaccount:{token}:editor"}}}


async def outcome(authenticator: Authenticator, token: str) -> int:
    """Return the status code for a caller with this token."""
    try:
        await find(authenticator, f"Bearer {token}", None)
    except ErrorResponse as error:
        return int(error.status)
    except APIError as error:
        return error.status
    return 200


async def test_many_requests_with_one_token_at_once_cause_one_review() -> None:
    reviews = Reviews()
    authenticator = Authenticator(reviews)  # type: ignore[arg-type]
    together = asyncio.gather(*(outcome(authenticator, "known") for _ in range(50)))
    await asyncio.sleep(0)
    reviews.go.set()
    assert await together == [200] * 50
    assert reviews.reviewed == ["known"]


async def test_a_rejected_token_is_reviewed_again_after_a_while() -> None:
    reviews, clock = Reviews(), Clock()
    reviews.go.set()
    authenticator = Authenticator(reviews, clock=clock)  # type: ignore[arg-type]
    assert [await outcome(authenticator, "bad") for _ in range(10)] == [401] * 10
    assert reviews.reviewed == ["bad"]
    clock.now += REFUSED_SECONDS
    assert await outcome(authenticator, "bad") == 401
    assert reviews.reviewed == ["bad"] * 2


async def test_few_unknown_tokens_are_reviewed_at_once_and_too_many_are_rejected() -> None:
    reviews, clock = Reviews(), Clock()
    authenticator = Authenticator(reviews, clock=clock)  # type: ignore[arg-type]
    reviews.go.set()
    assert await outcome(authenticator, "known") == 200
    reviews.go.clear()
    clock.now += 3600  # it must be reviewed again, but it isn't unknown
    flood = asyncio.gather(*(outcome(authenticator, f"bad-{number}") for number in range(1000)))
    known = asyncio.create_task(outcome(authenticator, "known"))
    while reviews.at_once < 17:  # noqa: ASYNC110 - a few turns of the loop
        await asyncio.sleep(0)
    reviews.go.set()
    assert await known == 200
    answers = await flood
    assert (answers.count(401), answers.count(429)) == (256, 744)
    assert reviews.most == 17


async def test_a_flood_of_rejected_tokens_does_not_evict_known_ones() -> None:
    reviews = Reviews()
    reviews.go.set()
    authenticator = Authenticator(reviews)  # type: ignore[arg-type]
    assert await outcome(authenticator, "known") == 200
    for number in range(5000):
        await outcome(authenticator, f"bad-{number}")
    reviews.reviewed.clear()
    assert await outcome(authenticator, "known") == 200
    assert reviews.reviewed == []


# --- The account


@pytest.mark.parametrize(
    ("user", "named", "account", "is_own"),
    [
        ("system:serviceaccount:team-a:ci", None, "team-a", True),
        ("system:serviceaccount:team-a:ci", "team-a", "team-a", True),
        ("system:serviceaccount:team-a:ci", "team-b", "team-b", False),
        ("jane@example.org", "team-a", "team-a", False),
    ],
)
def test_the_account_is_the_named_one_or_the_token_s_own(
    user: str, named: str | None, account: str, is_own: bool
) -> None:
    assert User(user, "token").caller(named) == Caller(account, "token", is_own_account=is_own)


@pytest.mark.parametrize("named", ["No Account", "", "a/b", "../pods", "a" * 64])
def test_an_invalid_namespace_name_is_rejected_as_an_account(named: str) -> None:
    with pytest.raises(ErrorResponse, match="X-Devbox-Secrets-Account") as caught:
        User("jane", "token").caller(named)
    assert caught.value.status == 400
