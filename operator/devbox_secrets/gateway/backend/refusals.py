"""Confirms a refusal (403) before a caller hears of it.

An API server that has only just started serves requests before it has read the roles and their bindings. Until then
it refuses everyone, with a 403 that looks like any other; clients don't retry a 403. Its /readyz tells the two apart:
it succeeds only after they were read. So after a 403 the gateway asks for /readyz, and then repeats the request, which
did nothing so far: a 403 that comes after that is meant.
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

#: How long the outcome holds for all refusals of a token: shorter than an API server takes to start.
REMEMBERED_SECONDS = 1
#: How long after the first of the roles and bindings the last of them have certainly been read.
SETTLING_SECONDS = 1
#: How many refusals are confirmed at once.
_MAX_CONFIRMATIONS = 16


class ConfirmingUpstream(Upstream):
    """Connections to one API server; a request that is refused is confirmed first."""

    def __init__(
        self, session: aiohttp.ClientSession, server: str, authority: Authority, timeout_seconds: float
    ) -> None:
        super().__init__(session, server, authority, timeout_seconds)
        self._outcomes: OrderedDict[bytes, tuple[type[APIError], float]] = OrderedDict()
        self._turns = asyncio.Semaphore(_MAX_CONFIRMATIONS)

    async def request(self, token: str, method: str, path: str, **options: Any) -> Body:  # noqa: ANN401 - as upstream
        """Send one request as any upstream does, and give the response's body.

        Raises:
            Forbidden: the API server refuses it, and knows everyone's rights.
            NotReady: it refuses it, and may not know them yet.
            APIError: as with any upstream.
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
    """Return if an API server knows everyone's rights.

    Raises:
        NotReady: it may not know them yet.
    """
    try:
        await server.check_ready(token)
    except Forbidden:
        # It's the roles of Kubernetes that let everyone read /readyz, so most likely they aren't known yet. But a
        # cluster may have taken that right away. The gateway's callers need another of these roles in any case.
        await _check_default_roles_are_known(server, token)
    except APIError as error:
        raise NotReady(str(error)) from None


async def _check_default_roles_are_known(server: Upstream, token: str) -> None:
    try:
        await server.request(token, "POST", REVIEWS_PATH, body=REVIEW)
    except APIError as error:
        raise NotReady(str(error)) from None
    await asyncio.sleep(SETTLING_SECONDS)
