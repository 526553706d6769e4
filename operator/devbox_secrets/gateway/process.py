"""The gateway's process: one port on which HTTP/1.1 and HTTP/2 are served. Imports app.

On cleartext HTTP/2 is known by its preface (h2c with prior knowledge): the TypeScript SDK speaks nothing else.
"""

import asyncio
import logging
import socket
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config

from devbox_secrets.gateway.app import application
from devbox_secrets.gateway.settings import Settings
from devbox_secrets.gateway.store import Store
from devbox_secrets.gateway.upstream import Upstream

LOG = logging.getLogger(__name__)
#: How long a connection without a request is kept, and how long a request may take to begin.
_IDLE_SECONDS = 30
#: How long requests may take to end when the process is told to.
_GRACE_SECONDS = 15


def run(settings: Settings) -> None:
    """Run the gateway until it's told to stop.

    Raises:
        ClusterError: the certificates of the API server's CA can't be read.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # At DEBUG they log headers, and so tokens.
    for chatty in ("hpack", "h2", "hypercorn", "aiohttp", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.INFO, logging.getLogger().level))
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    config = Config()
    config.bind = [f"{'[::]' if socket.has_dualstack_ipv6() else '0.0.0.0'}:{settings.port}"]  # noqa: S104 - a pod's
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = _IDLE_SECONDS
    config.graceful_timeout = _GRACE_SECONDS
    async with Upstream.connect(settings.api_server, settings.api_server_ca, settings.api_server_seconds) as upstream:
        store = Store(upstream, settings.namespace, settings.reserved_names)
        await serve(application(upstream, store, settings.body_seconds), config)  # type: ignore[arg-type]
    LOG.info("stopped")
