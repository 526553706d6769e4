"""The API server, asked in a caller's name: one request, and what became of it. Imports answers, certificate.

The gateway has no token of its own. One session serves all callers, so nothing that one was given (a cookie) may
go with another's request.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Self

import aiohttp

from devbox_secrets import metrics
from devbox_secrets.certificate import Authority
from devbox_secrets.errors import ClusterError
from devbox_secrets.gateway.answers import Busy, Late

Body = dict[str, Any]

JSON = "application/json"
MERGE = "application/merge-patch+json"
#: A table's rows have an object's metadata and columns, without the rest of it.
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class Upstream:
    """One API server, for whoever has a token."""

    def __init__(self, session: aiohttp.ClientSession, authority: Authority, seconds: float) -> None:
        self._session = session
        self._authority = authority
        self._seconds = seconds

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: str, authority: Authority, seconds: float) -> AsyncIterator[Self]:
        """Open the session; an answer may take so many seconds."""
        async with aiohttp.ClientSession(
            base_url=server,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as session:
            yield cls(session, authority, seconds)

    async def ask(
        self,
        token: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Body:
        """Send one request and give the answer's body.

        Raises:
            ClusterError: there was no answer, or a refusal. Its text names the request's method and group, no more.
        """
        sent = {"Accept": JSON, "Content-Type": JSON, **(headers or {}), "Authorization": f"Bearer {token}"}
        # Without the account and the name: one that the request named might be anything.
        asked = f"{method} {path.partition('/namespaces/')[0]}"
        data = None if body is None else json.dumps(body).encode()
        try:
            # The context of now: connections are shared by those that have the same.
            async with self._session.request(
                method,
                path,
                params=query,
                data=data,
                headers=sent,
                allow_redirects=False,
                ssl=self._authority.context,
            ) as response:
                raw = await response.read()
        except TimeoutError:
            _count("late")
            raise Late(f"{asked}: no answer in {self._seconds:g} seconds", self._seconds) from None
        except (aiohttp.ClientError, OSError) as error:
            _count("none")
            raise ClusterError(f"{asked}: {type(error).__name__}") from None
        if response.status == HTTPStatus.TOO_MANY_REQUESTS:
            _count("429")
            raise Busy(f"{asked}: {response.status}", _seconds(response.headers.get("Retry-After", "")))
        _count(f"{response.status // 100}xx")
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise ClusterError(f"{asked}: {response.status}", response.status)
        try:
            found: Body = json.loads(raw)
        except ValueError:
            raise ClusterError(f"{asked}: the answer isn't JSON") from None
        return found


def _count(answer: str) -> None:
    metrics.UPSTREAM.labels(answer).inc()


def _seconds(header: str) -> int:
    """Read when to come again: the API server says seconds."""
    return int(header) if re.fullmatch("[0-9]{1,4}", header, re.ASCII) else 1
