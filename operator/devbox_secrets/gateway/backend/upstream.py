"""The gateway's own client of the API server: each request carries its caller's token.

The gateway has no token of its own. One session serves all callers, so it keeps no cookies: what one caller is given
must not go with another's request.
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
#: A table's rows have an object's metadata and columns, without the rest of it.
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
#: Not compressed: compression takes the API server longer than sending the whole response.
_HEADERS = MappingProxyType({"Accept": JSON, "Accept-Encoding": "identity", "Content-Type": JSON})


class Upstream:
    """Connections to one API server, for anyone who has a token."""

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
        """Open the session; a response may take so many seconds. Without a maximum it opens what it needs."""
        async with aiohttp.ClientSession(
            base_url=server,
            connector=aiohttp.TCPConnector(limit=max_connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        ) as session:
            yield cls(session, server, authority, timeout_seconds)

    def one_connection(self) -> AbstractAsyncContextManager["Upstream"]:
        """Open a connection for requests that one API server must answer, where several share an address."""
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
        """Send one request and give the response's body.

        Raises:
            APIError: there was no response, or a refusal. Its text names the request's method and group, no more.
        """
        data = None if body is None else json.dumps(body).encode()
        raw = await self._send(token, method, path, headers or {}, aiohttp.ClientResponse.read, params=query, data=data)
        return _parse(_describe(method, path), raw)

    async def check_ready(self, token: str) -> None:
        """Return if the API server says that it's ready.

        Raises:
            APIError: it says that it isn't, or refuses to tell.
        """
        await self._send(token, "GET", "/readyz", {}, aiohttp.ClientResponse.read)

    async def watch(
        self, token: str, path: str, query: Mapping[str, str], on_event: Callable[[str, Body], T | None]
    ) -> T | None:
        """Read a watch's events until `on_event` makes something of one, by its type and its object.

        Returns:
            What `on_event` made; None where the watch ended before.

        Raises:
            APIError: as `request` does.
        """
        # No time limit for the response: there may be nothing to tell for long.
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
        """Send one request, and give what is read of a successful response."""
        sent = {**_HEADERS, **headers, "Authorization": f"Bearer {token}"}
        code = "error"
        try:
            # The current context: requests with the same one share connections.
            async with self._session.request(
                method, path, headers=sent, allow_redirects=False, ssl=self._authority.context, **options
            ) as response:
                code = f"{response.status // 100}xx"
                if response.status < HTTPStatus.MULTIPLE_CHOICES:
                    return await read(response)
                await response.read()  # or the connection couldn't be used again
                message = f"{_describe(method, path)}: {response.status}"
                if response.status == HTTPStatus.TOO_MANY_REQUESTS:
                    code = "429"
                    retry_after = _parse_seconds(response.headers.get("Retry-After", ""))
                    raise TooManyRequests(message, retry_after=retry_after)
                raise api_error(response.status, message)
        except TimeoutError:
            code = "timeout"
            raise RequestTimeout(f"{_describe(method, path)}: no answer in {self._timeout_seconds:g} seconds") from None
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
    """Name a request without account and name, since the caller may have named anything."""
    return f"{method} {path.partition('/namespaces/')[0]}"


def _parse(request: str, raw: bytes) -> Body:
    try:
        body: Body = json.loads(raw)
    except (ValueError, RecursionError):
        raise ServerError(f"{request}: the answer isn't JSON") from None
    return body


def _parse_seconds(header: str) -> int:
    """Parse Retry-After, which the API server gives in seconds."""
    return int(header) if re.fullmatch("[0-9]{1,4}", header, re.ASCII) else 1
