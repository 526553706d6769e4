"""The gateway's own client of the API server: each request carries its caller's token.

The gateway has no token of its own. One session serves all callers, so it stores no cookies: one caller's cookie must
not be sent with another's request.
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Self, TypeVar

import aiohttp
from prometheus_client import Counter

from devbox_secrets.errors import RequestTimeout, ServerError, TooManyRequests, Unreachable, api_error
from devbox_secrets.gateway import metrics
from devbox_secrets.serving.tls import Authority

Body = dict[str, Any]
T = TypeVar("T")

JSON = "application/json"
MERGE = "application/merge-patch+json"
#: A table has an object's metadata and columns, but not the rest of it.
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
#: Not compressed: compressing a response takes the API server longer than sending it.
_HEADERS = MappingProxyType({"Accept": JSON, "Accept-Encoding": "identity", "Content-Type": JSON})


class Upstream:
    """Connections to one API server, for anyone with a token."""

    def __init__(
        self, session: aiohttp.ClientSession, server: str, authority: Authority, timeout_seconds: float
    ) -> None:
        self._session = session
        self._server = server
        self._authority = authority
        self._timeout_seconds = timeout_seconds

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, server: str, authority: Authority, timeout_seconds: float, *, max_connections: int = 0
    ) -> AsyncIterator[Self]:
        """Open the session; by default the number of connections isn't limited."""
        async with aiohttp.ClientSession(
            base_url=server,
            connector=aiohttp.TCPConnector(limit=max_connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        ) as session:
            yield cls(session, server, authority, timeout_seconds)

    def one_connection(self) -> AbstractAsyncContextManager["Upstream"]:
        """Open a connection whose requests all go to the same API server, even if several share an address."""
        return Upstream.connect(self._server, self._authority, self._timeout_seconds, max_connections=1)

    async def request(
        self,
        token: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Body:
        """Send one request; return the response's body.

        Raises:
            APIError: there was no response, or it was an error. Its text names only the request's method and group.
        """
        data = None if body is None else json.dumps(body).encode()
        raw = await self._send(token, method, path, headers or {}, aiohttp.ClientResponse.read, params=query, data=data)
        return _parse(_describe(method, path), raw)

    async def check_ready(self, token: str) -> None:
        """Return if the API server reports that it is ready.

        Raises:
            APIError: it isn't ready, or refuses the request.
        """
        await self._send(token, "GET", "/readyz", {}, aiohttp.ClientResponse.read)

    async def watch(
        self, token: str, path: str, query: Mapping[str, str], on_event: Callable[[str, Body], T | None]
    ) -> T | None:
        """Read a watch's events until `on_event`, called with an event's type and object, returns a result.

        Returns:
            The result; None if the watch ended before.

        Raises:
            APIError: as `request` does.
        """
        # No timeout for the response: there may be no events for a long time.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._session.timeout.total)
        read = partial(_read_events, _describe("watch", path), on_event)
        return await self._send(token, "GET", path, {}, read, params={**query, "watch": "true"}, timeout=timeout)

    async def _send(
        self,
        token: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
        **options: Any,  # noqa: ANN401 - aiohttp's own
    ) -> T:
        """Send one request; return what `read` returns for a successful response."""
        sent = {**_HEADERS, **headers, "Authorization": f"Bearer {token}"}
        code = "error"
        try:
            # Requests with the same TLS context share connections.
            async with self._session.request(
                method, path, headers=sent, allow_redirects=False, ssl=self._authority.context, **options
            ) as response:
                code = f"{response.status // 100}xx"
                if response.status < HTTPStatus.MULTIPLE_CHOICES:
                    return await read(response)
                await response.read()  # otherwise the connection can't be reused
                message = f"{_describe(method, path)}: {response.status}"
                if response.status == HTTPStatus.TOO_MANY_REQUESTS:
                    code = "429"
                    retry_after = _parse_seconds(response.headers.get("Retry-After", ""))
                    raise TooManyRequests(message, retry_after=retry_after)
                raise api_error(response.status, message)
        except TimeoutError:
            code = "timeout"
            raise RequestTimeout(f"{_describe(method, path)}: no response within {self._timeout_seconds:g}s") from None
        except (aiohttp.ClientError, OSError) as error:
            code = "error"
            raise Unreachable(f"{_describe(method, path)}: {type(error).__name__}") from None
        finally:
            _counter(code).inc()


async def _read_events(
    request: str, on_event: Callable[[str, Body], T | None], response: aiohttp.ClientResponse
) -> T | None:
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for event in (_parse(request, line) for line in lines):
            if event["type"] == "ERROR":
                status = event["object"].get("code", 0)
                raise api_error(status, f"{request}: {status}")
            if (result := on_event(event["type"], event["object"])) is not None:
                return result
    return None


@cache
def _counter(code: str) -> Counter:
    return metrics.UPSTREAM_REQUESTS.labels(code)


def _describe(method: str, path: str) -> str:
    """Describe a request without its account and name, since the caller may have sent anything there."""
    return f"{method} {path.partition('/namespaces/')[0]}"


def _parse(request: str, raw: bytes) -> Body:
    try:
        body: Body = json.loads(raw)
    except (ValueError, RecursionError):
        raise ServerError(f"{request}: the response isn't JSON") from None
    return body


def _parse_seconds(header: str) -> int:
    """Parse Retry-After, which the API server sends in seconds."""
    return int(header) if re.fullmatch("[0-9]{1,4}", header, re.ASCII) else 1
