"""Authentication: which user a request's token belongs to, and which account the request is for.

Nothing is authorized here: each request goes to the API server with the caller's token, and the API server decides.
"""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar

from devbox_secrets.api.validation import check_account
from devbox_secrets.errors import InvalidAccount, Unauthorized
from devbox_secrets.gateway import metrics
from devbox_secrets.gateway.backend.upstream import Upstream
from devbox_secrets.gateway.contract.errors import ACCOUNT_HEADER, ErrorResponse, bad_request, too_many_requests

#: How long a token's user is remembered. Permissions are checked with every request.
REMEMBERED_SECONDS = 60
#: How long a rejected token is remembered, so that repeating it costs the API server nothing.
REFUSED_SECONDS = 5
_MAX_REMEMBERED = 4096
#: How many unknown tokens are reviewed at once, and how many more may wait.
_MAX_REVIEWS = 16
_MAX_WAITING = 256
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/=-]{1,16384})", re.IGNORECASE | re.ASCII)
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):[^:]+")
REVIEWS_PATH = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class User:
    """The user of a request's token, as the API server knows them."""

    name: str
    token: str = field(repr=False)

    def caller(self, account: str | None) -> "Caller":
        """Return the caller for the account that the request names, or else for the user's own.

        Raises:
            ErrorResponse: the account's name is invalid, or it is missing and the user isn't a ServiceAccount.
        """
        match = _SERVICE_ACCOUNT.fullmatch(self.name)
        own = match.group(1) if match else None
        if account is None:
            if own is None:
                raise bad_request(
                    f"the token doesn't belong to a ServiceAccount; name the account in the header {ACCOUNT_HEADER}"
                )
            return Caller(own, self.token)
        try:
            check_account(account)
        except InvalidAccount:
            raise bad_request(f"the header {ACCOUNT_HEADER} isn't a valid account name") from None
        return Caller(account, self.token, is_own_account=account == own)


@dataclass(frozen=True, slots=True)
class Caller:
    """A token and the account that it's used for; its user doesn't matter here."""

    account: str
    token: str = field(repr=False)
    is_own_account: bool = True
    """Whether the account is the user's own, not another one that the request names."""


class Authenticator:
    """Finds the user of a request's token."""

    def __init__(self, upstream: Upstream, clock: Callable[[], float] = time.monotonic) -> None:
        self._upstream = upstream
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        # Separate from the known tokens, so that a flood of rejected ones evicts none of them.
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._reviews: dict[bytes, asyncio.Future[str]] = {}
        self._waiting = 0
        self._gate = asyncio.Semaphore(_MAX_REVIEWS)

    async def authenticate(self, authorization: str | None) -> User:
        """Authenticate a request by its Authorization header.

        Raises:
            ErrorResponse: there is no token, or too many unknown ones arrive at once.
            APIError: the API server rejects the token or doesn't respond.
        """
        match = _BEARER.fullmatch((authorization or "").strip())
        if not match:
            raise ErrorResponse(
                HTTPStatus.UNAUTHORIZED,
                "the request has no bearer token; create an API key with devbox-secrets apikey create, and send it"
                " in the Authorization header",
            )
        token = match.group(1)
        return User(await self._user_name(token), token)

    async def _user_name(self, token: str) -> str:
        """Return the name of a token's user; concurrent requests with the same token share one review."""
        key, now = hashlib.sha256(token.encode()).digest(), self._clock()
        name, expires = self._known.get(key, ("", 0.0))
        if now < expires:
            return name
        if now < self._refused.get(key, 0.0):
            raise Unauthorized("the token was rejected a moment ago")
        if not (review := self._reviews.get(key)):
            review = self._reviews[key] = asyncio.ensure_future(self._review_in_turn(token, key))
            review.add_done_callback(lambda _: self._reviews.pop(key))
        return await asyncio.shield(review)

    async def _review_in_turn(self, token: str, key: bytes) -> str:
        """Review a token; unknown ones wait for their turn, so that a flood of them delays nobody else."""
        if key in self._known:
            return await self._review(token, key)
        if self._waiting >= _MAX_WAITING:
            metrics.REJECTED_REQUESTS.labels("unknown_token").inc()
            raise too_many_requests("too many requests with unknown tokens", 1)
        self._waiting += 1
        try:
            async with self._gate:
                return await self._review(token, key)
        finally:
            self._waiting -= 1

    async def _review(self, token: str, key: bytes) -> str:
        """Ask the API server for a token's user."""
        try:
            review = await self._upstream.request(token, "POST", REVIEWS_PATH, body=REVIEW)
        except Unauthorized:
            remember(self._refused, key, self._clock() + REFUSED_SECONDS)
            raise
        name: str = review["status"]["userInfo"].get("username", "")
        remember(self._known, key, (name, self._clock() + REMEMBERED_SECONDS))
        return name


def remember(cache: OrderedDict[bytes, T], key: bytes, value: T) -> None:
    """Add an entry to a cache, and evict the oldest one if the cache is full."""
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > _MAX_REMEMBERED:
        cache.popitem(last=False)
