"""Serves HTTP/1.1 and HTTP/2 with h2corn, with and without TLS, on one port, with limits for slow and greedy clients.

An h2corn server keeps its certificate until it stops, and accepts no connection beyond its maximum. So there is one
listening socket, and a new server takes it over when the certificate changes or when connections wait. The old server
then closes its idle connections, and the others after their responses.
"""

import asyncio
import logging
import resource
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from h2corn import Config
from h2corn import Server as H2corn
from starlette.types import ASGIApp

from devbox_secrets.gateway.contract.requests import MAX_BYTES
from devbox_secrets.gateway.http.drain import Drain
from devbox_secrets.serving.logs import LogFormat
from devbox_secrets.serving.tls import Certificate

LOG = logging.getLogger(__name__)
#: How long a server waits for a moment without HTTP/2 requests before it shuts down; shorter if it is full.
_DRAIN_SECONDS = 3
_DRAIN_WHEN_FULL_SECONDS = 0.25
#: How long requests may take after that.
_GRACE_SECONDS = 6
_HANDSHAKE_SECONDS = 10
_CHECK_SECONDS = 0.25
#: An unwanted body is read and dropped, so that a client that sends everything before it reads gets its response.
_DROPPED_BYTES = 16 * MAX_BYTES
_HEAD_BYTES = 1 << 15
_STREAMS = 100
#: HTTP/2's initial window (RFC 9113, 6.5.2): how much of the unread bodies a connection buffers.
_WINDOW_BYTES = 65_535
_FRAME_BYTES = 16_384
#: Concurrent requests per allowed connection: over HTTP/2, a connection can have many.
_CONCURRENCY = 4
#: Open files per allowed connection: connections of old servers and to the API server count too.
_FILES = 4
_OTHER_FILES = 100
#: Offset of the number of waiting connections: tcpi_unacked in a listening socket's struct tcp_info (tcp(7)).
_WAITING_OFFSET = 24


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for clients."""

    body_timeout_seconds: float
    response_timeout_seconds: float
    idle_timeout_seconds: float
    max_connections: int


@dataclass(frozen=True, slots=True)
class _Running:
    """A running h2corn server."""

    server: H2corn
    drain: Drain
    serving: asyncio.Task[None]

    async def end(self, drain_seconds: float) -> None:
        """Shut down, and return when the requests in progress have finished."""
        await self.tell(drain_seconds)
        await asyncio.wait([self.serving])

    async def tell(self, drain_seconds: float) -> None:
        """Stop accepting connections."""
        await self.drain.end(self.server.shutdown, drain_seconds)


class Server:
    """A port, and the h2corn server that accepts its connections."""

    def __init__(
        self,
        app: ASGIApp,
        port: int,
        certificate: Certificate | None,
        limits: Limits,
        log_format: LogFormat = "text",
    ) -> None:
        """Listen, but serve nothing yet.

        Raises:
            OSError: the port is taken.
        """
        self._app = app
        self._socket = _listen(port, limits.response_timeout_seconds)
        self._config = _config(self._socket.fileno(), certificate, limits, log_format)
        self._files = _open_files()
        self._current: _Running | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def renew(self, drain_seconds: float = _DRAIN_SECONDS) -> None:
        """Start a new h2corn server for all new connections, with the certificate that is now in the files.

        The old server shuts down when it has no HTTP/2 request in progress, or after `drain_seconds`.

        Raises:
            OSError, ValueError: it can't start, and the old one continues.
        """
        drain = Drain(self._app)
        server = H2corn(drain, self._config)
        serving = asyncio.create_task(server.serve())
        try:
            await server.wait_started()
        except BaseException:
            server.shutdown()
            await asyncio.gather(serving, return_exceptions=True)
            raise
        serving.add_done_callback(_report)
        former, self._current = self._current, _Running(server, drain, serving)
        if former:
            ending = asyncio.create_task(former.end(drain_seconds))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def watch(self) -> None:
        """Renew the h2corn server whenever it has exited, or has no connections left."""
        waited = False
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            waits, most = _waiting(self._socket) > 0, self._config.limit_connections
            try:
                if self._current and self._current.serving.done():
                    LOG.error("the server exited unexpectedly; starting another one")
                    await self.renew()
                elif waits and waited and most <= _open_files() - self._files < _FILES * most + _OTHER_FILES:
                    LOG.warning("all %d connections are in use; closing idle ones", most)
                    await self.renew(_DRAIN_WHEN_FULL_SECONDS)
            except (OSError, ValueError) as error:
                LOG.error("cannot start a server: %s", error)
            waited = waits

    async def stop(self) -> None:
        """Accept no more connections, and return when the requests in progress have finished."""
        if not self._current:
            self._socket.close()
            return
        await self._current.tell(_DRAIN_SECONDS)
        self._socket.shutdown(socket.SHUT_RDWR)  # for all holders: no connection is accepted that nobody serves
        self._socket.close()
        await asyncio.wait([self._current.serving, *self._ending])


def _report(serving: asyncio.Task[None]) -> None:
    if error := serving.exception():
        LOG.info("requests were aborted: %s", error)


def _listen(port: int, response_timeout_seconds: float) -> socket.socket:
    if socket.has_dualstack_ipv6():
        it = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    else:
        it = socket.create_server(("", port), backlog=1024)
    # Connections inherit it (tcp(7)): it closes one whose client doesn't read, which h2corn doesn't do for HTTP/1.1.
    it.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(response_timeout_seconds * 1000))
    return it


def most_connections(wanted: int) -> int:
    """Return how many connections a server may have; h2corn exits when the process can open no more files."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    return max(min(wanted, (files - _OTHER_FILES) // (_FILES + 1)), 1)


def _config(socket_number: int, certificate: Certificate | None, limits: Limits, log_format: LogFormat) -> Config:
    most = most_connections(limits.max_connections)
    return Config(
        bind=(f"fd://{socket_number}",),
        certfile=certificate.file if certificate else None,
        keyfile=certificate.key if certificate else None,
        lifespan="off",
        access_log=False,
        log_format=log_format,
        runtime_threads=1,
        limit_connections=most,
        limit_concurrency=_CONCURRENCY * most,
        max_concurrent_streams=_STREAMS,
        limit_request_head_size=_HEAD_BYTES,
        h2_max_header_list_size=_HEAD_BYTES,
        h2_max_header_block_size=_HEAD_BYTES,
        h2_max_inbound_frame_size=_FRAME_BYTES,
        h2_initial_stream_window_size=_WINDOW_BYTES,
        h2_initial_connection_window_size=_WINDOW_BYTES,
        max_request_body_size=_DROPPED_BYTES,
        timeout_handshake=_HANDSHAKE_SECONDS,
        timeout_request_header=limits.idle_timeout_seconds,
        timeout_keep_alive=limits.idle_timeout_seconds,
        timeout_request_body_idle=2 * limits.body_timeout_seconds,  # the gateway's own timeout comes first
        h2_timeout_response_stall=limits.response_timeout_seconds,
        h2_timeout_write=limits.response_timeout_seconds,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _waiting(listening: socket.socket) -> int:
    """Count the connections that wait to be accepted."""
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _WAITING_OFFSET + 4)
    count: int
    (count,) = struct.unpack_from("=I", info, _WAITING_OFFSET)
    return count
