"""The gateway's process: two servers, for callers and for Prometheus, and the files it follows. Imports app, server."""

import asyncio
import gc
import logging

from prometheus_client import generate_latest

from devbox_secrets import logs, metrics, probes
from devbox_secrets.certificate import Authority, Certificate
from devbox_secrets.errors import ClusterError
from devbox_secrets.gateway.app import application
from devbox_secrets.gateway.rates import Rates
from devbox_secrets.gateway.server import ALPN, Limits, serve
from devbox_secrets.gateway.store import Store
from devbox_secrets.gateway.upstream import Upstream
from devbox_secrets.gateway.waiting import Waiting
from devbox_secrets.settings import GatewaySettings

LOG = logging.getLogger(__name__)


def run(settings: GatewaySettings) -> None:
    """Run the gateway until it's told to stop.

    Raises:
        ClusterError: it isn't known where the API server is, or its CA's certificates can't be read.
        OSError: the gateway's own certificate can't be used, or a port is taken.
    """
    if not settings.api_server:
        raise ClusterError(
            "there is no API server to ask: run this in a pod, or set DEVBOX_SECRETS_API_SERVER to its address"
        )
    logs.log(settings.log_level, ("hpack", "h2", "hypercorn", "aiohttp", "asyncio"))
    asyncio.run(_run(settings))


async def _run(settings: GatewaySettings) -> None:
    certificate = None
    if settings.certificate:
        certificate = Certificate(settings.certificate, alpn=ALPN, tell_end=metrics.CERTIFICATE_END.set)
        metrics.GATEWAY_REGISTRY.register(metrics.CERTIFICATE_END)
    authority = _authority(settings)
    limits = Limits(
        body_seconds=settings.body_seconds,
        answer_seconds=settings.answer_seconds,
        idle_seconds=settings.idle_seconds,
        leave_seconds=settings.leave_seconds,
        connections=settings.connections,
    )
    rates = Rates(settings.rate_per_second, settings.rate_burst)
    audit = logs.records(f"{__name__}.audit") if settings.audit else None
    measured = await probes.serve(
        settings.metrics_port,
        unready=_well,
        unhealthy=_well,
        measure=lambda: generate_latest(metrics.GATEWAY_REGISTRY),
    )
    async with Upstream.connect(settings.api_server, authority, settings.api_server_seconds) as upstream:
        store = Store(upstream, settings.namespace, settings.reserved_names)
        followed = asyncio.create_task(_follow(settings.certificate_seconds, authority, certificate))
        waiting = Waiting(upstream, settings.wait_seconds)
        app = application(upstream, store, waiting, settings.body_seconds, rates, audit)
        # A list makes many objects: what stays for the process's life isn't looked at each time the garbage is.
        gc.collect()
        gc.freeze()
        await serve(app, settings.port, certificate, limits, leaves=waiting.stop)
        followed.cancel()
    await measured.cleanup()
    LOG.info("stopped")


def _authority(settings: GatewaySettings) -> Authority:
    try:
        return Authority(settings.api_server_ca)
    except OSError as error:  # SSLError is one
        raise ClusterError(
            f"{settings.api_server_ca}: the certificates of the API server's CA can't be read: {error}"
        ) from None


async def _follow(seconds: float, *files: Authority | Certificate | None) -> None:
    while True:
        await asyncio.sleep(seconds)
        for file in filter(None, files):
            file.refresh()


async def _well() -> None:
    """Nothing is wrong that a restart or other replicas would mend: while the API server is away calls say so."""
