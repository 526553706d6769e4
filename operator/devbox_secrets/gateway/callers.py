"""Who calls, and for which account. Imports upstream and answers.

Nothing is decided here: each request goes to the API server with the caller's token, which decides.
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from devbox_secrets.api import check_account
from devbox_secrets.errors import InvalidAccount
from devbox_secrets.gateway.answers import ACCOUNT_HEADER, Declined, bad_request
from devbox_secrets.gateway.upstream import Upstream

#: How long it's remembered whose token it is. Its rights are looked at with each request.
REMEMBERED_SECONDS = 60
_REMEMBERED = 4096
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/=-]{1,16384})", re.IGNORECASE | re.ASCII)
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):[^:]+")
_REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose token it is doesn't matter here, only the account that it's used for."""

    account: str
    token: str = field(repr=False)


class Callers:
    """Finds the account of a request."""

    def __init__(self, upstream: Upstream, clock: Callable[[], float] = time.monotonic) -> None:
        self._upstream = upstream
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[str | None, float]] = OrderedDict()

    async def find(self, authorization: str | None, named: str | None) -> Caller:
        """Tell for which account a request with these two headers is.

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
        home = await self._home(token)
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
        return Caller(named, token)

    async def _home(self, token: str) -> str | None:
        """Give the namespace of the ServiceAccount whose token it is; None where it's another user's."""
        key, now = hashlib.sha256(token.encode()).digest(), self._clock()
        if (known := self._known.get(key)) and now - known[1] < REMEMBERED_SECONDS:
            return known[0]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        review = await self._upstream.ask(token, "POST", _REVIEW, body=body)
        user = _SERVICE_ACCOUNT.fullmatch(review["status"]["userInfo"].get("username", ""))
        home = user.group(1) if user else None
        self._known[key] = home, now
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return home
