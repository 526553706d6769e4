"""Shuts a server down between its HTTP/2 requests, so that a client's retry has no effect twice.

GOAWAY tells an HTTP/2 client which of its requests will still get a response. httpcore, and so Runloop's Python SDK,
drops these responses anyway (its pull request 1054), and the SDK retries the requests: a retried deletion then finds
nothing. So a server that shuts down finishes its HTTP/2 requests, starts no others, and only then sends GOAWAY.
Requests that arrive meanwhile get a 503 after it. HTTP/1.1 needs none of this: there a response closes the connection.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from devbox_secrets.gateway.contract.errors import restarting
from devbox_secrets.gateway.http.responses import json_error

#: How long a server task needs to send its response, or to notice the shutdown.
_SENT_SECONDS = 0.1


class Drain:
    """An application for one server, which starts no HTTP/2 request once the server shuts down."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._in_progress = 0
        self._is_ending = False
        self._idle = asyncio.Event()
        self._told = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or ask the client to retry it with another server."""
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
        """Shut the server down when no HTTP/2 request is in progress, or after `seconds`."""
        self._is_ending = True
        if self._in_progress:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)
        await asyncio.sleep(_SENT_SECONDS)
        shutdown()
        await asyncio.sleep(_SENT_SECONDS)
        self._told.set()
