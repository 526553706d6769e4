"""Receives a request's body within its limits, and notices when the client disconnects."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from devbox_secrets.gateway.contract.errors import ErrorResponse, bad_request
from devbox_secrets.gateway.contract.requests import MAX_BYTES

T = TypeVar("T")


async def read_body(request: Request, timeout_seconds: float) -> bytes:
    """Read a request's body.

    Raises:
        ErrorResponse: it is too long, or doesn't arrive in time.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _read(request)
    except TimeoutError:
        raise ErrorResponse(
            HTTPStatus.REQUEST_TIMEOUT, f"the request's body didn't come within {timeout_seconds:g} seconds"
        ) from None


async def _read(request: Request) -> bytes:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BYTES:
            raise bad_request(f"the request's body is over {MAX_BYTES:,} bytes")
    return bytes(raw)


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do some work while the client is connected; the request's body has been read.

    Raises:
        ClientDisconnect: the client has gone.
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
