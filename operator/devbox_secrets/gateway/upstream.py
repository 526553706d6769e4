"""The API server, asked in a caller's name: one request, and what became of it. Imports errors alone.

The gateway has no token of its own. One session serves all callers, so nothing that one was given (a cookie) may
go with another's request.
"""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import aiohttp

from devbox_secrets.errors import ClusterError

Body = dict[str, Any]

JSON = "application/json"
MERGE = "application/merge-patch+json"
#: A table's rows have an object's metadata and columns, without the rest of it.
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class Upstream:
    """One API server, for whoever has a token."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: str, ca: Path, seconds: float) -> AsyncIterator[Self]:
        """Open the session; an answer may take so many seconds.

        Raises:
            ClusterError: the CA's certificates can't be read.
        """
        try:
            context = ssl.create_default_context(cafile=str(ca))
        except OSError as error:  # SSLError is one
            raise ClusterError(f"{ca}: the certificates of the API server's CA can't be read: {error}") from None
        async with aiohttp.ClientSession(
            base_url=server,
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as session:
            yield cls(session)

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
            ClusterError: there was no answer, or a refusal. Its text names the request, no more.
        """
        sent = {"Accept": JSON, "Content-Type": JSON, **(headers or {}), "Authorization": f"Bearer {token}"}
        data = None if body is None else json.dumps(body).encode()
        try:
            async with self._session.request(
                method, path, params=query, data=data, headers=sent, allow_redirects=False
            ) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterError(f"{method} {path}: {type(error).__name__}") from None
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise ClusterError(f"{method} {path}: {response.status}", response.status)
        try:
            found: Body = json.loads(raw)
        except ValueError:
            raise ClusterError(f"{method} {path}: the answer isn't JSON") from None
        return found
