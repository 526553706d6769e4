"""The server, hypercorn, with bounds for slow and greedy clients.

Every time that a client takes is bounded: to begin a request, to send it, to read its answer; and so is what it
holds. A client that goes over a bound loses its own connection.
"""

import asyncio
import logging
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import hypercorn.asyncio.run
import hypercorn.protocol
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config
from hypercorn.events import Event, Updated
from starlette.types import ASGIApp

from devbox_secrets.gateway import metrics
from devbox_secrets.gateway.http.drain import DrainingConfig, DrainingH2Protocol
from devbox_secrets.gateway.http.timeouts import TimeoutMiddleware
from devbox_secrets.serving.tls import Certificate

LOG = logging.getLogger(__name__)
ALPN = tuple(Config.alpn_protocols)
#: How long requests may take to end when the process is told to.
_GRACE_SECONDS = 15
_HANDSHAKE_SECONDS = 10
#: How long a connection that is closed may take to send what it still has.
_CLOSING_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may take, and for how long they are still served when the process is told to stop."""

    body_timeout_seconds: float
    response_timeout_seconds: float
    idle_timeout_seconds: float
    drain_seconds: float
    max_connections: int


async def serve(
    app: ASGIApp, port: int, certificate: Certificate | None, limits: Limits, on_drain: Callable[[], None]
) -> None:
    """Serve HTTP/1.1 and HTTP/2 on a port until the process is told to stop; `on_drain` is called at once.

    On cleartext HTTP/2 is known by its preface (h2c with prior knowledge): the TypeScript SDK speaks nothing else.

    Raises:
        OSError: the port is taken.
    """
    asyncio.get_running_loop().set_exception_handler(_report)
    config = _Config(certificate)
    config.bind = [f"{'[::]' if socket.has_dualstack_ipv6() else '0.0.0.0'}:{port}"]  # noqa: S104 - a pod's
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = limits.idle_timeout_seconds
    config.keep_alive_max_requests = sys.maxsize  # at its own limit HTTP/2 connections break off
    config.graceful_timeout = _GRACE_SECONDS
    config.ssl_handshake_timeout = _HANDSHAKE_SECONDS
    config.backlog = 1024
    _Connection.max_connections = limits.max_connections
    # hypercorn has no other place for them.
    vars(hypercorn.asyncio.run)["TCPServer"] = _Connection
    vars(hypercorn.protocol)["H2Protocol"] = _Protocol2
    app = TimeoutMiddleware(app, limits.body_timeout_seconds, limits.response_timeout_seconds)
    drained = partial(config.until_drained, limits.drain_seconds, on_drain)
    await hypercorn.asyncio.serve(app, config, shutdown_trigger=drained)  # type: ignore[arg-type]


class _Config(DrainingConfig):
    """hypercorn's configuration, with a certificate that may change while it serves."""

    def __init__(self, certificate: Certificate | None) -> None:
        super().__init__()
        self.certificate = certificate

    @property
    def ssl_enabled(self) -> bool:
        return self.certificate is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self.certificate.context if self.certificate else None


class _Connection(TCPServer):
    """hypercorn's connection: one of so many, and closed within a time also when its client doesn't read."""

    max_connections = 0
    #: All that are open; those without a request stand in the order in which they began to be idle.
    _open: ClassVar[dict["_Connection", None]] = {}
    idle = True
    _task: asyncio.Task[Any] | None = None

    async def run(self) -> None:
        """Serve it."""
        self._task = asyncio.current_task()
        self._open[self] = None
        try:
            if len(self._open) > self.max_connections:
                next(it for it in self._open if it.idle or it is self).abort()
            with metrics.CONNECTIONS.track_inprogress():
                await super().run()
        finally:
            self._open.pop(self, None)

    async def protocol_send(self, event: Event) -> None:
        """Take what the protocol sends, and its word on whether a request is there."""
        if isinstance(event, Updated):
            self.idle = event.idle
            if self._open.pop(self, self) is None:
                self._open[self] = None
        await super().protocol_send(event)

    def abort(self) -> None:
        """End it at once, whatever it waits for: pipelined requests for their turn, for instance, which never comes."""
        self._open.pop(self, None)
        self.writer.transport.abort()
        if self._task:
            self._task.cancel()

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()  # or a client that went would be remembered until it would have been idle

    async def _close(self) -> None:
        self.loop.call_later(_CLOSING_SECONDS, self.abort)
        await super()._close()

    async def _initiate_server_close(self) -> None:
        self.loop.call_later(_CLOSING_SECONDS, self.abort)
        await super()._initiate_server_close()


class _Protocol2(DrainingH2Protocol):
    """hypercorn's HTTP/2, in which what a stream's client does stays that stream's."""

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 - hypercorn's own
        super().__init__(*args)
        self.streams = _Streams()

    async def _close_stream(self, stream_id: int) -> None:
        await super()._close_stream(stream_id)
        buffer = self.stream_buffers.get(stream_id)
        if buffer and buffer.buffer:  # an answer that isn't read: by itself it would stay until the connection ends
            with suppress(ProtocolError):
                self.connection.reset_stream(stream_id, ErrorCodes.CANCEL)
            await buffer.close()
            self.priority.unblock(stream_id)
            await self.has_data.set()
            await self._flush()


class _Streams(dict[int, Any]):
    """What still comes for a stream that was answered goes nowhere; hypercorn ends the connection (its pull 334)."""

    def __missing__(self, _: int) -> "_Streams":
        return self

    async def handle(self, event: object) -> None:
        """Drop it."""


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say that a connection failed: by the error's type alone, since its text may repeat what was sent."""
    LOG.info("a connection ended: %s", type(context.get("exception")).__name__)
