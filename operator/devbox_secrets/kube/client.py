"""Requests to the API server: one at a time or a list page by page, and a typed error for what fails.

Bodies are plain dictionaries: the client's model objects cost more CPU than the requests do.
An error names the request and the server's reason, never a body.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

import aiohttp

from devbox_secrets.errors import APIError, NotLeader, ServerError, api_error
from devbox_secrets.kube.config import ClientConfig
from devbox_secrets.kube.connection import Connection

Body = dict[str, Any]
T = TypeVar("T")

_JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
#: Of an object, its metadata alone.
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE_SIZE = 500
#: Bytes of a list's page: a page several times as large is given up and asked for again, with fewer objects.
_PAGE_BYTES = 4 * 1024 * 1024
_PAGE_BYTES_MAX = 3 * _PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Response:
    """A response of the API server: the HTTP status and the body."""

    status: int
    body: Body = field(repr=False)
    size: int = field(default=0, compare=False)
    """Of the body, in bytes."""


class _PageTooLarge(Exception):
    """A list's page has more bytes than it may have."""


class Client:
    """Connections to one API server, with the rights of whoever they were opened for."""

    def __init__(self, connection: Connection, may_write: Callable[[], bool] = lambda: True) -> None:
        self._connection = connection
        self._may_write = may_write
        self.fewest_objects = _PAGE_SIZE
        """How many of the largest objects that were listed so far fit into a page."""

    @classmethod
    @asynccontextmanager
    async def connect(cls, config: ClientConfig | None = None) -> AsyncIterator[Self]:
        """Connect as kubectl would.

        Raises:
            ConfigError: it isn't known which cluster to connect to, or how.
        """
        async with Connection.open((config or ClientConfig()).target()) as connection:
            yield cls(connection)

    def fenced(self, may_write: Callable[[], bool]) -> Self:
        """Give the same client, with which nothing is written unless it may be at that moment."""
        return type(self)(self._connection, may_write)

    async def request(self, method: str, path: str, **options: Any) -> Body:  # noqa: ANN401 - as send has them
        """Send a request as `send` does, and give the response's body."""
        return (await self.send(method, path, **options)).body

    async def pages(
        self, path: str, query: Mapping[str, str], limit: int = _PAGE_SIZE, *, metadata_only: bool = False
    ) -> AsyncIterator[Body]:
        """Read a list page by page: of up to `limit` objects, and of fewer where they are large.

        No page is kept while the next is read. With `metadata_only`, nothing else of the objects is sent.
        """
        accept = _METADATA_ONLY if metadata_only else _JSON
        asked, fits = dict(query), limit
        while True:
            asked["limit"] = str(fits)
            try:
                # However large it is, one object has to be read.
                most = _PAGE_BYTES_MAX if fits > 1 else None
                response = await self.send("GET", path, query=asked, accept=accept, max_bytes=most)
            except _PageTooLarge:
                fits = max(fits // 4, 1)
                continue
            page = response.body
            page["items"] = page["items"] or []  # an empty list of metadata is null
            asked["continue"] = page["metadata"].get("continue", "")
            fits = _fitting(len(page["items"]), response.size, limit)
            self.fewest_objects = min(fits, self.fewest_objects)
            del response
            yield page
            del page
            if not asked["continue"]:
                return

    async def list_all(self, path: str, read: Callable[[Body], T], field_selector: str = "") -> tuple[list[T], int]:
        """Read every object of a list; give them and the list's resourceVersion."""
        items: list[T] = []
        version = 0
        async for page in self.pages(path, {"fieldSelector": field_selector}):
            items += map(read, page["items"])
            version = int(page["metadata"]["resourceVersion"])
        return items, version

    async def send(  # noqa: PLR0913 - what a request and the reading of its response may need
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        media_type: str = _JSON,
        accept: str = _JSON,
        quote: bool = False,
        max_bytes: int | None = None,
    ) -> Response:
        """Send one request.

        With `quote`, an error repeats the server's own words also for a write: for one that holds no value.
        With `max_bytes`, a larger response isn't read.

        Raises:
            APIError: there was no response, or a refusal; or it was a write that may not be sent now.
            ConfigError: there is nothing that says who sends it.
        """
        request = f"{method} {path}"
        headers = {"Accept": accept, "Content-Type": media_type}
        if given := {key: value for key, value in (query or {}).items() if value}:
            path += "?" + urlencode(given)
        data = None if body is None else json.dumps(body).encode()
        login = await self._connection.login()
        # Checked at the last moment: whatever was awaited until here may have taken long.
        if method != "GET" and not self._may_write():
            raise NotLeader(f"{request}: not sent, since another replica may be writing now")
        async with self._connection.request(login, method, path, headers, data) as response:
            raw = await _read(response, max_bytes)
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise _refusal(request, response.status, raw, quote=quote or method == "GET")
        try:
            return Response(response.status, json.loads(raw), len(raw))
        except ValueError:
            # From None: what a proxy's page says may be anything.
            raise ServerError(f"{request}: the answer isn't an API server's, but a proxy's perhaps") from None


def _fitting(objects: int, size: int, limit: int) -> int:
    """Say how many objects such as those of a page make one of the right size."""
    return max(min(_PAGE_BYTES * objects // size, limit), 1) if objects and size else limit


async def _read(response: aiohttp.ClientResponse, max_bytes: int | None) -> bytes:
    if max_bytes is None:
        return await response.read()
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > max_bytes:
            response.close()
            raise _PageTooLarge
    return bytes(raw)


def _refusal(request: str, status: int, raw: bytes, *, quote: bool) -> APIError:
    """Give the error for a refusal: in the server's words, or, as those may repeat what was written, in one word."""
    try:
        answer = json.loads(raw)
        reason = answer["message"] if quote else answer["reason"]
        details = answer.get("details") if quote else None
    except (ValueError, KeyError, TypeError):
        reason, details = "no reason given", None
    return api_error(status, f"{request}: {status} {reason}", details)
