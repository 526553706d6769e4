"""The webhook's process: serves AdmissionReviews for pods.

It has no permissions and needs no connection to the API server. Nothing from a pod is logged, since it may contain
values.
"""

import asyncio
import base64
import json
import logging
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

from aiohttp import web
from prometheus_client import disable_created_metrics, generate_latest
from pydantic import BaseModel, ConfigDict, ValidationError

from devbox_secrets.serving import health, logs
from devbox_secrets.serving.tls import Certificate
from devbox_secrets.webhook import metrics
from devbox_secrets.webhook.injection import Pod, patch
from devbox_secrets.webhook.settings import WebhookSettings

LOG = logging.getLogger(__name__)
_PATHS = ("optional", "optional/files", "required", "required/files")
#: The API server accepts pods of 3 MiB and adds managed fields; aiohttp's default is 1 MiB.
_MOST_BYTES = 8 << 20
_HANDSHAKE_SECONDS = 2


class _Request(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    uid: str
    object: Pod


class _Review(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    apiVersion: Literal["admission.k8s.io/v1"]  # noqa: N815 - Kubernetes' own
    kind: Literal["AdmissionReview"]
    request: _Request


def review(body: object, path: str) -> dict[str, Any]:
    """Answer an AdmissionReview for a pod; the path says whether its secrets are required and whether it gets files.

    Raises:
        HTTPNotFound: the path is unknown.
        HTTPBadRequest: the body isn't an AdmissionReview for a pod.
    """
    if path not in _PATHS:
        raise web.HTTPNotFound
    try:
        asked = _Review.model_validate(body).request
    except ValidationError:
        # From None, and without its text: it may contain values.
        raise web.HTTPBadRequest(text="not an AdmissionReview (admission.k8s.io/v1) for a pod") from None
    answer: dict[str, object] = {"uid": asked.uid, "allowed": True}
    when, _, files = path.partition("/")
    operations = patch(asked.object, optional=when == "optional", as_files=bool(files))
    if operations:
        answer |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(operations).encode()).decode()}
    metrics.ADMISSION_REVIEWS.labels("patched" if operations else "unchanged").inc()
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}


class Webhook:
    """Serves reviews on a port, with TLS."""

    def __init__(self, port: int, certificate: Certificate) -> None:
        self.port = port
        self.draining = False
        self._certificate = certificate

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen; at the end, wait until the requests in progress have finished.

        Raises:
            OSError: the port is taken.
        """
        app = web.Application(client_max_size=_MOST_BYTES)
        app.add_routes([web.post("/{path:.*}", self._respond)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, port=self.port, ssl_context=self._certificate.context).start()
            yield
        finally:
            await runner.cleanup()

    async def _respond(self, request: web.Request) -> web.Response:
        try:
            response = web.json_response(review(await request.json(), request.match_info["path"]))
        except web.HTTPException:
            metrics.ADMISSION_REVIEWS.labels("rejected").inc()
            raise
        except Exception as error:  # noqa: BLE001 - an invalid charset, endless lists, whatever is sent
            # Only the type: a text or a traceback might contain what was being read.
            LOG.warning("cannot read a request: %s", type(error).__name__)
            metrics.ADMISSION_REVIEWS.labels("rejected").inc()
            raise web.HTTPBadRequest from None
        if self.draining:
            response.force_close()  # the API server's next request goes to another replica
        return response

    async def unready(self) -> str | None:
        """Return why no request should be sent to this replica, or None."""
        return "shutting down" if self.draining else await self.unhealthy()

    async def unhealthy(self) -> str | None:
        """Return why the process should be restarted, or None: it checks that clients can connect."""
        itself = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        itself.check_hostname = False
        itself.verify_mode = ssl.CERT_NONE
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                _, writer = await asyncio.open_connection("localhost", self.port, ssl=itself)
                writer.close()
                await writer.wait_closed()
        except OSError as error:  # TimeoutError is one
            return f"cannot connect to the webhook's port: {type(error).__name__}"
        return None


def run(settings: WebhookSettings) -> None:
    """Run the webhook until it receives SIGTERM.

    Raises:
        OSError: the certificate can't be used, or the port is taken.
    """
    # aiohttp.server logs input that it can't read.
    logs.configure(settings.log_level, settings.log_format, {"aiohttp.server": logging.CRITICAL})
    disable_created_metrics()  # each would add a series to a counter, and nobody uses them
    asyncio.run(_run(settings))


async def _run(settings: WebhookSettings) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    certificate = Certificate(settings.certificate_dir, on_expiration=metrics.CERTIFICATE_EXPIRATION.set)
    webhook = Webhook(settings.tls_port, certificate)
    async with webhook.listening():
        runner = await health.serve(
            settings.port,
            unready=webhook.unready,
            unhealthy=webhook.unhealthy,
            measure=lambda: generate_latest(metrics.REGISTRY),
        )
        LOG.info("ready")
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), settings.certificate_refresh_seconds)
            certificate.refresh()
        # Requests still arrive until every API server knows that this replica is shutting down.
        webhook.draining = True
        LOG.info("shutting down; serving for another %.0fs", settings.drain_seconds)
        await asyncio.sleep(settings.drain_seconds)
    await runner.cleanup()
