"""Receives a request's body within its limits, and notices when the client disconnects."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from devbox_secrets.gateway.contract.errors import ErrorResponse, bad_request, service_unavailable
from devbox_secrets.gateway.contract.requests import MAX_BYTES

T = TypeVar("T")
#: Memory for the bodies of all requests. The first bytes of each don't count: most values are shorter.
_MOST_BYTES = 64 << 20
_FREE_BYTES = 1 << 14


class BodyReader:
    """Reads bodies within limits: size and time for each, memory for all of them together."""

    def __init__(self, timeout_seconds: float, most_bytes: int = _MOST_BYTES) -> None:
        self._timeout_seconds = timeout_seconds
        self._left = most_bytes

    async def read(self, request: Request) -> bytes:
        """Read a request's body.

        Raises:
            ErrorResponse: it is too large, doesn't arrive in time, or there are too many large ones.
        """
        raw = bytearray()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                async for chunk in request.stream():
                    self._left -= _counted(len(raw) + len(chunk)) - _counted(len(raw))
                    raw += chunk
                    self._check(len(raw))
        except TimeoutError:
            raise ErrorResponse(
                HTTPStatus.REQUEST_TIMEOUT, f"the request body didn't arrive within {self._timeout_seconds:g} seconds"
            ) from None
        finally:
            self._left += _counted(len(raw))
        return bytes(raw)

    def _check(self, length: int) -> None:
        if length > MAX_BYTES:
            raise bad_request(f"the request body is larger than {MAX_BYTES:,} bytes")
        if self._left < 0 and _counted(length):
            raise service_unavailable("too many large requests at once")


def _counted(length: int) -> int:
    return max(length - _FREE_BYTES, 0)


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do some work while the client is connected; the request's body must have been read.

    Raises:
        ClientDisconnect: the client disconnected.
    """
    working, disconnected = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, disconnected):
            task.cancel()
        await asyncio.gather(working, disconnected, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
