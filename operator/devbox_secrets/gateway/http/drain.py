"""Lets a server end between its HTTP/2 requests, so that a client that sends a request again has nothing done twice.

GOAWAY tells an HTTP/2 client which of its requests are still answered. httpcore, and so Runloop's Python SDK, drops
these responses all the same (its pull request 1054), and the SDK sends the requests again: a deletion that was done
then finds nothing. So a server that ends finishes its HTTP/2 requests, begins no other, and sends GOAWAY only then.
A request that came meanwhile gets 503 after it. HTTP/1.1 needs none of this: there a response ends the connection.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from devbox_secrets.gateway.contract.errors import restarting
from devbox_secrets.gateway.http.responses import json_error

#: What a task of the server needs to send what it was given, or to hear that it ends.
_SENT_SECONDS = 0.1


class Drain:
    """An application of one server, which begins no HTTP/2 request once the server ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._in_progress = 0
        self._is_ending = False
        self._idle = asyncio.Event()
        self._told = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or ask to send it once more, to another server."""
        if scope["type"] != "http" or scope["http_version"] != "2":
            await self._app(scope, receive, send)
        elif self._is_ending:
            await self._told.wait()
            await json_error(restarting())(scope, receive, send)
        else:
            await self._begin(scope, receive, send)

    async def _begin(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._in_progress += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_progress -= 1
            if self._is_ending and not self._in_progress:
                self._idle.set()

    async def end(self, shutdown: Callable[[], None], seconds: float) -> None:
        """Have the server shut down when no HTTP/2 request is in progress, or after so many seconds."""
        self._is_ending = True
        if self._in_progress:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)
        await asyncio.sleep(_SENT_SECONDS)
        shutdown()
        await asyncio.sleep(_SENT_SECONDS)
        self._told.set()
