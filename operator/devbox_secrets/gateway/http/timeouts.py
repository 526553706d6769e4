"""Middleware: timeouts for bodies that come slowly, and for responses that aren't read."""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger(__name__)
#: So much of a body is read and dropped, so that a client that sends first and reads then gets its answer.
_DRAIN_BYTES = 1 << 24


class TimeoutMiddleware:
    """Around the application; a request may take so long to come, and its answer so long to be read."""

    def __init__(self, app: ASGIApp, body_timeout_seconds: float, response_timeout_seconds: float) -> None:
        self._app = app
        self._body_timeout_seconds = body_timeout_seconds
        self._response_timeout_seconds = response_timeout_seconds
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            until = asyncio.get_running_loop().time() + self._body_timeout_seconds
            exchange = _Exchange(receive, send, until, self._response_timeout_seconds, self._spawn)
            await self._app(scope, exchange.receive, exchange.send)
        else:
            await self._app(scope, receive, send)

    def _spawn(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(slots=True)
class _Exchange:
    """A request and its answer."""

    _receive: Receive
    _send: Send
    _until: float
    _response_timeout_seconds: float
    _spawn: Any = field(repr=False)
    _more: bool = True
    _here: bool = True

    async def receive(self) -> Message:
        """Give what comes next."""
        message = await self._receive()
        self._more, self._here = bool(message.get("more_body")), message["type"] != "http.disconnect"
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer: all of it at once, but its end when the request has ended, too.

        A client whose connection closes while it still sends may not get to see an answer.

        Raises:
            ClientDisconnect: it isn't read.
        """
        if message["type"] != "http.response.body" or message.get("more_body"):
            await self._say(message)
            return
        await self._say({**message, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._until):
                await self._drain()
        self._spawn(self._ignore())
        await self._say({"type": "http.response.body"})

    async def _say(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._response_timeout_seconds):
                await self._send(message)
        except TimeoutError:
            LOG.info("a client didn't read its answer within %g seconds", self._response_timeout_seconds)
            self._spawn(self._ignore())
            raise ClientDisconnect from None

    async def _drain(self) -> None:
        left = _DRAIN_BYTES
        while self._more and left > 0:
            left -= len((await self.receive()).get("body", b""))

    async def _ignore(self) -> None:
        """Let go of what came: the server would wait for room for it, and all of the connection with it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._response_timeout_seconds):
                while self._here:
                    await self.receive()
