"""Confirms a 403 before returning it to the caller.

An API server that has just started serves requests before it has loaded the roles and their bindings. Until then it
answers everyone with a 403 that looks like any other, and clients don't retry a 403. /readyz tells the two apart: it
succeeds only after the roles are loaded. So after a 403 the gateway requests /readyz and then repeats the request,
which has had no effect so far. If the answer is 403 again, it is final.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from typing import Any

import aiohttp

from devbox_secrets.errors import APIError, Forbidden, NotReady
from devbox_secrets.gateway.backend.auth import REVIEW, REVIEWS_PATH, remember
from devbox_secrets.gateway.backend.upstream import Body, Upstream
from devbox_secrets.serving.tls import Authority

#: How long the outcome is reused for all refusals of a token; shorter than an API server takes to start.
REMEMBERED_SECONDS = 1
#: Once some roles and bindings are loaded, all of them are loaded within this time.
SETTLING_SECONDS = 1
#: How many refusals are confirmed at once.
_MAX_CONFIRMATIONS = 16


class ConfirmingUpstream(Upstream):
    """Connections to one API server; each refusal is confirmed first."""

    def __init__(
        self, session: aiohttp.ClientSession, server: str, authority: Authority, timeout_seconds: float
    ) -> None:
        super().__init__(session, server, authority, timeout_seconds)
        self._outcomes: OrderedDict[bytes, tuple[type[APIError], float]] = OrderedDict()
        self._turns = asyncio.Semaphore(_MAX_CONFIRMATIONS)

    async def request(self, token: str, method: str, path: str, **options: Any) -> Body:  # noqa: ANN401 - as upstream
        """Send one request as `Upstream` does; return the response's body.

        Raises:
            Forbidden: the API server refuses it and has loaded the roles.
            NotReady: it refuses it and may not have loaded the roles yet.
            APIError: as with any `Upstream`.
        """
        try:
            return await super().request(token, method, path, **options)
        except Forbidden as refusal:
            key = hashlib.sha256(token.encode()).digest()
            outcome, expires = self._outcomes.get(key, (Forbidden, 0.0))
            if time.monotonic() < expires:
                raise outcome(str(refusal)) from None
        try:
            async with self._turns, self.one_connection() as server:
                await _check_rights_are_known(server, token)
                return await server.request(token, method, path, **options)
        except (Forbidden, NotReady) as error:
            remember(self._outcomes, key, (type(error), time.monotonic() + REMEMBERED_SECONDS))
            raise


async def _check_rights_are_known(server: Upstream, token: str) -> None:
    """Return if an API server has loaded the roles.

    Raises:
        NotReady: it may not have loaded them yet.
    """
    try:
        await server.check_ready(token)
    except Forbidden:
        # Kubernetes' default roles let everyone read /readyz, so most likely they aren't loaded yet. But a cluster may
        # have removed that permission. The gateway's callers need another of these roles in any case.
        await _check_default_roles_are_known(server, token)
    except APIError as error:
        raise NotReady(str(error)) from None


async def _check_default_roles_are_known(server: Upstream, token: str) -> None:
    try:
        await server.request(token, "POST", REVIEWS_PATH, body=REVIEW)
    except APIError as error:
        raise NotReady(str(error)) from None
    await asyncio.sleep(SETTLING_SECONDS)
