"""Drains connections on shutdown: clients move to another replica before this one stops.

What hypercorn closes when it stops may be closed on a request: over HTTP/1.1 that one is done and not answered, and a
retry of a deletion finds nothing; over HTTP/2 it ends without an error, and Runloop's TypeScript SDK waits forever.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from hypercorn.config import Config
from hypercorn.events import RawData
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hyperframe.frame import GoAwayFrame

LOG = logging.getLogger(__name__)
_IN_FLIGHT_SECONDS = 1
# RFC 9113, 6.8: requests that are on their way are still answered, and no others begin.
_GO_AWAY = RawData(GoAwayFrame(0, last_stream_id=2**31 - 1).serialize())


class DrainingConfig(Config):
    """hypercorn's configuration of a server that may be draining."""

    def __init__(self) -> None:
        super().__init__()
        self.draining = False
        self.connections: WeakSet[DrainingH2Protocol] = WeakSet()

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """Give what each response carries: HTTP/1.1 says in a header that it was the connection's last."""
        last = [(b"connection", b"close")] if self.draining and protocol == "h11" else []
        return super().response_headers(protocol) + last

    async def until_drained(self, seconds: float, on_drain: Callable[[], None]) -> None:
        """Wait for SIGTERM; then say that the end begins, go on serving for some seconds, and send all elsewhere."""
        told = asyncio.Event()
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, told.set)
        await told.wait()
        self.draining = True
        on_drain()
        LOG.info("told to stop: requests are answered for another %.0f s", seconds)
        # Until the Service has forgotten this replica, new connections still come here, also of who was sent away.
        await asyncio.sleep(seconds)
        for connection in list(self.connections):
            await connection.go_away()
        await asyncio.sleep(_IN_FLIGHT_SECONDS)


class DrainingH2Protocol(H2Protocol):
    """HTTP/2 whose connections end as the RFC has it, since hypercorn's own GOAWAY ends the answers, too."""

    config: DrainingConfig

    async def initiate(self, *settings: Any, **more: Any) -> None:  # noqa: ANN401 - hypercorn's own
        """Begin a connection."""
        # Node.js answers a GOAWAY with its own and waits for its answers, on which hypercorn would close. There is no
        # public way to be told and go on: the client closes the connection when it has them.
        self.connection._frame_dispatch_table[GoAwayFrame] = lambda _: ([], [])  # noqa: SLF001
        await super().initiate(*settings, **more)
        self.config.connections.add(self)

    async def stream_send(self, event: Any) -> None:  # noqa: ANN401 - hypercorn's own
        """Send a part of an answer; while the server drains, its end is the connection's."""
        await super().stream_send(event)
        if self.config.draining and isinstance(event, StreamClosed):
            await self.go_away()

    async def go_away(self) -> None:
        """Have the client make no other request on this connection."""
        if not self.closed:
            await self.send(_GO_AWAY)
