"""The gateway's process: one port on which HTTP/1.1 and HTTP/2 are served. Imports app and leaving.

On cleartext HTTP/2 is known by its preface (h2c with prior knowledge): the TypeScript SDK speaks nothing else.
"""

import asyncio
import gc
import logging
import socket
import ssl
import sys
from functools import partial
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config

from devbox_secrets.certificate import Certificate
from devbox_secrets.errors import ClusterError
from devbox_secrets.gateway.app import application
from devbox_secrets.gateway.leaving import LeavingConfig
from devbox_secrets.gateway.store import Store
from devbox_secrets.gateway.upstream import Upstream
from devbox_secrets.gateway.waiting import Waiting
from devbox_secrets.settings import GatewaySettings

LOG = logging.getLogger(__name__)
#: How long a connection without a request is kept, and how long a request may take to begin.
_IDLE_SECONDS = 75  # more than load balancers keep theirs, or they would send into a closed one
#: How long requests may take to end when the process is told to.
_GRACE_SECONDS = 15


def run(settings: GatewaySettings) -> None:
    """Run the gateway until it's told to stop.

    Raises:
        ClusterError: it isn't known where the API server is, or its CA's certificates can't be read.
        OSError: the gateway's own certificate can't be used, or its port is taken.
    """
    if not settings.api_server:
        raise ClusterError(
            "there is no API server to ask: run this in a pod, or set DEVBOX_SECRETS_API_SERVER to its address"
        )
    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # At DEBUG they log headers, and so tokens.
    for chatty in ("hpack", "h2", "hypercorn", "aiohttp", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.INFO, logging.getLogger().level))
    asyncio.run(_run(settings))


class _Config(LeavingConfig):
    """hypercorn's configuration, with a certificate that may change while it serves."""

    def __init__(self, certificate: Certificate | None) -> None:
        super().__init__()
        self.certificate = certificate

    @property
    def ssl_enabled(self) -> bool:
        return self.certificate is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self.certificate.context if self.certificate else None


async def _run(settings: GatewaySettings) -> None:
    asyncio.get_running_loop().set_exception_handler(_report)
    certificate = Certificate(settings.certificate, alpn=Config.alpn_protocols) if settings.certificate else None
    config = _Config(certificate)
    config.bind = [f"{'[::]' if socket.has_dualstack_ipv6() else '0.0.0.0'}:{settings.port}"]  # noqa: S104 - a pod's
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = _IDLE_SECONDS
    config.keep_alive_max_requests = sys.maxsize  # at its own limit HTTP/2 connections break off
    config.graceful_timeout = _GRACE_SECONDS
    async with Upstream.connect(settings.api_server, settings.api_server_ca, settings.api_server_seconds) as upstream:
        store = Store(upstream, settings.namespace, settings.reserved_names)
        followed = asyncio.create_task(_follow(certificate, settings.certificate_seconds))
        waiting = Waiting(upstream, settings.wait_seconds)
        app = application(upstream, store, waiting, settings.body_seconds)
        # A list makes many objects: what stays for the process's life isn't looked at each time the garbage is.
        gc.collect()
        gc.freeze()
        leave = partial(config.until_left, settings.leave_seconds, waiting.stop)
        await serve(app, config, shutdown_trigger=leave)  # type: ignore[arg-type]
        followed.cancel()
    LOG.info("stopped")


async def _follow(certificate: Certificate | None, seconds: float) -> None:
    while certificate:
        await asyncio.sleep(seconds)
        certificate.refresh()


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say that a connection failed: by the error's type alone, since its text may repeat what was sent."""
    LOG.info("a connection ended: %s", type(context.get("exception")).__name__)
