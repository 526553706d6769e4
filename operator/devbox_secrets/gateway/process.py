"""The gateway's process: a server for callers, a server for Prometheus, and the certificates that it reloads."""

import asyncio
import gc
import logging
import signal
from typing import Any

import uvloop
from prometheus_client import disable_created_metrics, generate_latest

from devbox_secrets.errors import ConfigError
from devbox_secrets.gateway import metrics
from devbox_secrets.gateway.backend.auth import Authenticator
from devbox_secrets.gateway.backend.refusals import ConfirmingUpstream
from devbox_secrets.gateway.backend.store import Store
from devbox_secrets.gateway.backend.sync_wait import SyncWaiter
from devbox_secrets.gateway.backend.upstream import Upstream
from devbox_secrets.gateway.http.rate_limit import RateLimiter
from devbox_secrets.gateway.http.receive import BodyReader
from devbox_secrets.gateway.http.server import Limits, Server
from devbox_secrets.gateway.routes import Services, application
from devbox_secrets.gateway.settings import GatewaySettings
from devbox_secrets.serving import health, logs
from devbox_secrets.serving.tls import Authority, Certificate

LOG = logging.getLogger(__name__)


def run(settings: GatewaySettings) -> None:
    """Run the gateway until it receives SIGTERM or SIGINT.

    Raises:
        ConfigError: the API server's address is unknown, or its CA certificates can't be read.
        OSError: the gateway's certificate can't be used, or a port is taken.
    """
    if not settings.api_server:
        raise ConfigError(
            "the API server's address is unknown; run the gateway in a pod, or set DEVBOX_SECRETS_API_SERVER"
        )
    logs.configure(settings.log_level, settings.log_format)
    disable_created_metrics()  # each would add a series to a counter, and nobody uses them
    uvloop.run(_run(settings))


async def _run(settings: GatewaySettings) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    loop.set_exception_handler(_report)
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopping.set)
    certificate = None
    if settings.certificate_dir:
        certificate = Certificate(settings.certificate_dir, on_expiration=metrics.CERTIFICATE_EXPIRATION.set)
        metrics.REGISTRY.register(metrics.CERTIFICATE_EXPIRATION)
    authority = _authority(settings)
    limits = Limits(
        body_timeout_seconds=settings.body_timeout_seconds,
        response_timeout_seconds=settings.response_timeout_seconds,
        idle_timeout_seconds=settings.idle_timeout_seconds,
        max_connections=settings.max_connections,
    )
    audit_log = logs.records(f"{__name__}.audit") if settings.audit else None
    probes = await health.serve(
        settings.metrics_port,
        unready=_no_problem,
        unhealthy=_no_problem,
        measure=lambda: generate_latest(metrics.REGISTRY),
    )
    async with ConfirmingUpstream.connect(
        settings.api_server, authority, settings.api_server_timeout_seconds
    ) as upstream:
        services = _services(settings, upstream)
        server = Server(application(services, audit_log), settings.port, certificate, limits, settings.log_format)
        # Listing creates many objects; the garbage collector need not scan those that live as long as the process.
        gc.collect()
        gc.freeze()
        await server.renew()
        jobs = [server.watch(), _refresh(settings.certificate_refresh_seconds, authority, certificate, server)]
        tasks = [asyncio.create_task(job) for job in jobs]
        await stopping.wait()
        LOG.info("shutting down; accepting no new connections")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        services.sync_waiter.stop()
        await server.stop()
    await probes.cleanup()
    LOG.info("stopped")


def _services(settings: GatewaySettings, upstream: Upstream) -> Services:
    return Services(
        authenticator=Authenticator(upstream),
        rate_limiter=RateLimiter(settings.rate_limit_per_second, settings.rate_limit_burst),
        store=Store(upstream, settings.namespace, settings.reserved_names),
        sync_waiter=SyncWaiter(upstream, settings.sync_wait_timeout_seconds),
        body_reader=BodyReader(settings.body_timeout_seconds),
    )


def _authority(settings: GatewaySettings) -> Authority:
    try:
        return Authority(settings.api_server_ca)
    except OSError as error:  # SSLError is one
        raise ConfigError(
            f"cannot read the API server's CA certificates from {settings.api_server_ca}: {error}"
        ) from None


async def _refresh(seconds: float, authority: Authority, certificate: Certificate | None, server: Server) -> None:
    """Reload the CA and the certificate when their files change."""
    is_new = False
    while True:
        await asyncio.sleep(seconds)
        authority.refresh()
        is_new = bool(certificate and certificate.refresh()) or is_new
        if is_new:
            try:
                await server.renew()
                is_new = False
            except (OSError, ValueError) as error:
                LOG.warning("cannot serve the new certificate yet: %s", error)


async def _no_problem() -> None:
    """Report no problem: a restart would fix none, and while the API server is unavailable the responses say so."""


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log that a task failed; only the error's type, since its text may repeat what was sent."""
    LOG.error("a task failed: %s", type(context.get("exception")).__name__)
