"""Who calls, and for which account. Imports upstream and answers.

Nothing is decided here: each request goes to the API server with the caller's token, which decides.
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

from devbox_secrets import metrics
from devbox_secrets.api import check_account
from devbox_secrets.errors import ClusterError, InvalidAccount
from devbox_secrets.gateway.answers import ACCOUNT_HEADER, Declined, bad_request, too_many
from devbox_secrets.gateway.upstream import Upstream

#: How long it's remembered whose token it is. Its rights are looked at with each request.
REMEMBERED_SECONDS = 60
#: How long that the cluster doesn't know a token: who tries one again and again costs the API server nothing.
REFUSED_SECONDS = 5
_REMEMBERED = 4096
#: How many unknown tokens the API server is asked about at once, and how many may wait for it.
_REVIEWS = 16
_STRANGERS = 256
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/=-]{1,16384})", re.IGNORECASE | re.ASCII)
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):[^:]+")
_REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """A token, and the account that it's used for; whose token it is doesn't matter here."""

    account: str
    token: str = field(repr=False)
    at_home: bool = True
    """Whether the account is the token's own, not one that the request named."""


class Callers:
    """Finds the account of a request."""

    def __init__(
        self,
        upstream: Upstream,
        met: Callable[[str], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._met = met
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        # Apart, so that a flood of these drives out none of those.
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._asking: dict[bytes, asyncio.Future[str]] = {}
        self._strangers = 0
        self._gate = asyncio.Semaphore(_REVIEWS)

    async def find(self, authorization: str | None, named: str | None) -> Caller:
        """Tell for which account a request with these two headers is; `met` hears the user's name first.

        Raises:
            Declined: there is no token, or no account.
            ClusterError: the API server doesn't say whose token it is.
        """
        found = _BEARER.fullmatch((authorization or "").strip())
        if not found:
            raise Declined(
                HTTPStatus.UNAUTHORIZED,
                "the request has no bearer token: send the header Authorization with one that devbox-secrets token"
                " prints (the SDKs' API key)",
            )
        token = found.group(1)
        # Asked also where an account is named: who isn't known to the cluster gets no further, not even to a body.
        user = await self._user(token)
        self._met(user)
        own = _SERVICE_ACCOUNT.fullmatch(user)
        home = own.group(1) if own else None
        if named is None:
            if home is None:
                raise bad_request(
                    f"the token isn't a ServiceAccount's, so name the account in the header {ACCOUNT_HEADER}"
                )
            return Caller(home, token)
        try:
            check_account(named)
        except InvalidAccount:
            raise bad_request(f"the header {ACCOUNT_HEADER} names nothing that can be an account") from None
        return Caller(named, token, at_home=named == home)

    async def _user(self, token: str) -> str:
        """Give the name of the user whose token it is; of many who ask for the same at once, one goes and asks."""
        key, now = hashlib.sha256(token.encode()).digest(), self._clock()
        user, until = self._known.get(key, ("", 0.0))
        if now < until:
            return user
        if now < self._refused.get(key, 0.0):
            raise ClusterError("a token that was refused a moment ago", HTTPStatus.UNAUTHORIZED)
        if not (asking := self._asking.get(key)):
            asking = self._asking[key] = asyncio.ensure_future(self._ask(token, key))
            asking.add_done_callback(lambda _: self._asking.pop(key))
        return await asyncio.shield(asking)

    async def _ask(self, token: str, key: bytes) -> str:
        """Ask whose token it is; a flood of tokens that were never known waits, and no one else does."""
        if key in self._known:
            return await self._review(token, key)
        if self._strangers >= _STRANGERS:
            metrics.TURNED_AWAY.labels("stranger").inc()
            raise too_many("too many come with tokens that aren't known yet", 1)
        self._strangers += 1
        try:
            async with self._gate:
                return await self._review(token, key)
        finally:
            self._strangers -= 1

    async def _review(self, token: str, key: bytes) -> str:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            review = await self._upstream.ask(token, "POST", _REVIEW, body=body)
        except ClusterError as error:
            if error.status == HTTPStatus.UNAUTHORIZED:
                _remember(self._refused, key, self._clock() + REFUSED_SECONDS)
            raise
        user: str = review["status"]["userInfo"].get("username", "")
        _remember(self._known, key, (user, self._clock() + REMEMBERED_SECONDS))
        return user


def _remember(where: OrderedDict[bytes, T], key: bytes, what: T) -> None:
    where[key] = what
    where.move_to_end(key)
    if len(where) > _REMEMBERED:
        where.popitem(last=False)
