"""Authentication: whose token a request carries, and for which account it is.

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

#: How long it's remembered whose token it is. Rights are checked with every request.
REMEMBERED_SECONDS = 60
#: How long it's remembered that the cluster refused a token, so that repeating it costs the API server nothing.
REFUSED_SECONDS = 5
_MAX_REMEMBERED = 4096
#: How many unknown tokens the API server is asked about at once, and how many may wait for that.
_MAX_REVIEWS = 16
_MAX_WAITING = 256
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/=-]{1,16384})", re.IGNORECASE | re.ASCII)
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):[^:]+")
REVIEWS_PATH = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class User:
    """Whose token a request carries, as the API server knows them."""

    name: str
    token: str = field(repr=False)

    def caller(self, account: str | None) -> "Caller":
        """Give the caller for the account that the request names, or else for the user's own.

        Raises:
            ErrorResponse: the name can't be an account's; or there is none, and the user isn't a ServiceAccount.
        """
        match = _SERVICE_ACCOUNT.fullmatch(self.name)
        own = match.group(1) if match else None
        if account is None:
            if own is None:
                raise bad_request(
                    f"the token isn't a ServiceAccount's, so name the account in the header {ACCOUNT_HEADER}"
                )
            return Caller(own, self.token)
        try:
            check_account(account)
        except InvalidAccount:
            raise bad_request(f"the header {ACCOUNT_HEADER} names nothing that can be an account") from None
        return Caller(account, self.token, is_own_account=account == own)


@dataclass(frozen=True, slots=True)
class Caller:
    """A token and the account that it's used for; whose token it is doesn't matter here."""

    account: str
    token: str = field(repr=False)
    is_own_account: bool = True
    """Whether the account is the token's own, not another one that the request names."""


class Authenticator:
    """Finds out whose token a request carries."""

    def __init__(self, upstream: Upstream, clock: Callable[[], float] = time.monotonic) -> None:
        self._upstream = upstream
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        # Apart from the known ones, so that a flood of refused tokens evicts none of those.
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._reviews: dict[bytes, asyncio.Future[str]] = {}
        self._waiting = 0
        self._gate = asyncio.Semaphore(_MAX_REVIEWS)

    async def authenticate(self, authorization: str | None) -> User:
        """Authenticate a request by its header Authorization.

        Raises:
            ErrorResponse: there is no token, or too many unknown ones come at once.
            APIError: the API server doesn't say whose token it is.
        """
        match = _BEARER.fullmatch((authorization or "").strip())
        if not match:
            raise ErrorResponse(
                HTTPStatus.UNAUTHORIZED,
                "the request has no bearer token: send the header Authorization with one that devbox-secrets"
                " apikey create prints (the SDKs' API key)",
            )
        token = match.group(1)
        return User(await self._user_name(token), token)

    async def _user_name(self, token: str) -> str:
        """Give the name of a token's user; concurrent requests with the same token share one review."""
        key, now = hashlib.sha256(token.encode()).digest(), self._clock()
        name, expires = self._known.get(key, ("", 0.0))
        if now < expires:
            return name
        if now < self._refused.get(key, 0.0):
            raise Unauthorized("a token that was refused a moment ago")
        if not (review := self._reviews.get(key)):
            review = self._reviews[key] = asyncio.ensure_future(self._review_in_turn(token, key))
            review.add_done_callback(lambda _: self._reviews.pop(key))
        return await asyncio.shield(review)

    async def _review_in_turn(self, token: str, key: bytes) -> str:
        """Review a token; one that was never known waits for its turn, so that a flood of those delays nobody else."""
        if key in self._known:
            return await self._review(token, key)
        if self._waiting >= _MAX_WAITING:
            metrics.REJECTED_REQUESTS.labels("unknown_token").inc()
            raise too_many_requests("too many come with tokens that aren't known yet", 1)
        self._waiting += 1
        try:
            async with self._gate:
                return await self._review(token, key)
        finally:
            self._waiting -= 1

    async def _review(self, token: str, key: bytes) -> str:
        """Ask the API server whose token it is."""
        try:
            review = await self._upstream.request(token, "POST", REVIEWS_PATH, body=REVIEW)
        except Unauthorized:
            remember(self._refused, key, self._clock() + REFUSED_SECONDS)
            raise
        name: str = review["status"]["userInfo"].get("username", "")
        remember(self._known, key, (name, self._clock() + REMEMBERED_SECONDS))
        return name


def remember(cache: OrderedDict[bytes, T], key: bytes, value: T) -> None:
    """Put something into a cache, from which the oldest goes when it's full."""
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > _MAX_REMEMBERED:
        cache.popitem(last=False)
