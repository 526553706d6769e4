"""The webhook's process: serves AdmissionReviews of pods.

It has no rights and needs no connection to the API server. A pod's body may hold values: nothing of one is logged.
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
#: The API server takes 3 MiB of a pod and adds managed fields; what aiohttp takes unasked is 1 MiB.
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
    """Answer an AdmissionReview of a pod; the path says whether its secrets are required, and whether it gets files.

    Raises:
        HTTPNotFound: there is no such path.
        HTTPBadRequest: it's something else.
    """
    if path not in _PATHS:
        raise web.HTTPNotFound
    try:
        asked = _Review.model_validate(body).request
    except ValidationError:
        # From None, and without a word of it: it may hold values.
        raise web.HTTPBadRequest(text="not an AdmissionReview (admission.k8s.io/v1) of a pod") from None
    answer: dict[str, object] = {"uid": asked.uid, "allowed": True}
    when, _, files = path.partition("/")
    operations = patch(asked.object, optional=when == "optional", as_files=bool(files))
    if operations:
        answer |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(operations).encode()).decode()}
    metrics.ADMISSION_REVIEWS.labels("patched" if operations else "unchanged").inc()
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}


class Webhook:
    """Answers reviews on a port, over TLS."""

    def __init__(self, port: int, certificate: Certificate) -> None:
        self.port = port
        self.draining = False
        self._certificate = certificate

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen, and at the end let the requests that are in progress end.

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
        except Exception as error:  # noqa: BLE001 - no text of its charset, lists without end, whatever is sent
            # The type alone: a text or a traceback might carry what was being read.
            LOG.warning("a request can't be read: %s", type(error).__name__)
            metrics.ADMISSION_REVIEWS.labels("rejected").inc()
            raise web.HTTPBadRequest from None
        if self.draining:
            response.force_close()  # the API server's next request goes to another replica
        return response

    async def unready(self) -> str | None:
        """Say why no request should be sent here."""
        return "stopping" if self.draining else await self.unhealthy()

    async def unhealthy(self) -> str | None:
        """Say why the process should be restarted: nobody can connect to it."""
        itself = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        itself.check_hostname = False
        itself.verify_mode = ssl.CERT_NONE
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                _, writer = await asyncio.open_connection("localhost", self.port, ssl=itself)
                writer.close()
                await writer.wait_closed()
        except OSError as error:  # TimeoutError is one
            return f"no connection to the webhook's port: {type(error).__name__}"
        return None


def run(settings: WebhookSettings) -> None:
    """Run the webhook until it's told to stop.

    Raises:
        OSError: the certificate can't be used, or the port is taken.
    """
    # aiohttp.server writes what it couldn't read.
    logs.configure(settings.log_level, settings.log_format, {"aiohttp.server": logging.CRITICAL})
    disable_created_metrics()  # a second series for each counter, which nobody asks for
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
        # Until every API server has heard that this replica goes, requests still come here.
        webhook.draining = True
        LOG.info("told to stop: requests are answered for another %.0f s", settings.drain_seconds)
        await asyncio.sleep(settings.drain_seconds)
    await runner.cleanup()
