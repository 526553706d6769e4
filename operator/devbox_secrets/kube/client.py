"""Requests to the API server: single ones, and lists page by page, with typed errors.

Bodies are plain dictionaries: model objects would cost more CPU than the requests.
An error contains the request and the server's reason, never a body.
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
#: Only the object's metadata in a response; errors are as usual.
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
#: Only the objects' metadata in a list.
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE_SIZE = 500
#: Target size of a page in bytes; a page several times as large is aborted and requested again with fewer objects.
_PAGE_BYTES = 4 * 1024 * 1024
_PAGE_BYTES_MAX = 3 * _PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Response:
    """A response from the API server: the HTTP status and the body."""

    status: int
    body: Body = field(repr=False)
    size: int = field(default=0, compare=False)
    """The size of the body in bytes."""


class _PageTooLarge(Exception):
    """A page of a list is too large."""


class Client:
    """Connections to one API server, with one user's permissions."""

    def __init__(self, connection: Connection, may_write: Callable[[], bool] = lambda: True) -> None:
        self._connection = connection
        self._may_write = may_write
        self.fewest_objects = _PAGE_SIZE
        """How many of the largest objects listed so far fit into a page."""

    @classmethod
    @asynccontextmanager
    async def connect(cls, config: ClientConfig | None = None) -> AsyncIterator[Self]:
        """Connect as kubectl would.

        Raises:
            ConfigError: the cluster or the credentials are unknown or invalid.
        """
        async with Connection.open((config or ClientConfig()).target()) as connection:
            yield cls(connection)

    def fenced(self, may_write: Callable[[], bool]) -> Self:
        """Return this client with a condition: a write is sent only if `may_write` is true at that moment."""
        return type(self)(self._connection, may_write)

    async def request(self, method: str, path: str, **options: Any) -> Body:  # noqa: ANN401 - as send has them
        """Send a request as `send` does; return the response's body."""
        return (await self.send(method, path, **options)).body

    async def pages(
        self, path: str, query: Mapping[str, str], limit: int = _PAGE_SIZE, *, metadata_only: bool = False
    ) -> AsyncIterator[Body]:
        """Read a list in pages of up to `limit` objects, or fewer if they are large.

        No page is kept while the next one is read. With `metadata_only`, only the objects' metadata is sent.
        """
        accept = _METADATA_ONLY if metadata_only else _JSON
        asked, fits = dict(query), limit
        while True:
            asked["limit"] = str(fits)
            try:
                # A single object must be read, however large it is.
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

    async def list_all(
        self, path: str, read: Callable[[Body], T], field_selector: str = "", limit: int = _PAGE_SIZE
    ) -> tuple[list[T], int]:
        """Read all objects of a list; return them with the list's resourceVersion."""
        items: list[T] = []
        version = 0
        async for page in self.pages(path, {"fieldSelector": field_selector}, limit):
            items += map(read, page["items"])
            version = int(page["metadata"]["resourceVersion"])
        return items, version

    async def send(  # noqa: PLR0913 - the options of a request and of reading its response
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

        With `quote`, an error contains the server's message even for a write; only for writes without a value.
        With `max_bytes`, a larger response isn't read.

        Raises:
            APIError: there was no response, or it was an error; or it is a write that may not be sent now.
            ConfigError: there are no credentials.
        """
        request = f"{method} {path}"
        headers = {"Accept": accept, "Content-Type": media_type}
        if given := {key: value for key, value in (query or {}).items() if value}:
            path += "?" + urlencode(given)
        data = None if body is None else json.dumps(body).encode()
        login = await self._connection.login()
        # Checked at the last moment, since what was awaited before may have taken long.
        if method != "GET" and not self._may_write():
            raise NotLeader(f"{request}: not sent, since another replica may be the leader now")
        async with self._connection.request(login, method, path, headers, data) as response:
            raw = await _read(response, max_bytes)
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise _refusal(request, response.status, raw, quote=quote or method == "GET")
        try:
            return Response(response.status, json.loads(raw), len(raw))
        except ValueError:
            # From None: a proxy's page may contain anything.
            raise ServerError(f"{request}: the response isn't from an API server, but perhaps from a proxy") from None


def _fitting(objects: int, size: int, limit: int) -> int:
    """Return how many objects like those of a page fit into a page of the right size."""
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
    """Return the error for a response: with the server's message, or only its reason if the message may be secret."""
    try:
        answer = json.loads(raw)
        reason = answer["message"] if quote else answer["reason"]
        details = answer.get("details") if quote else None
    except (ValueError, KeyError, TypeError):
        reason, details = "no reason given", None
    return api_error(status, f"{request}: {status} {reason}", details)
