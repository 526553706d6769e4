"""The webhook's process: serves AdmissionReviews of pods.

It has no rights and needs no connection to the API server. A pod's body may hold values: nothing of one is logged.
"""

import asyncio
import base64
import json
import logging
import signal
import ssl
from contextlib import suppress
from typing import Any, Literal

import kopf
from aiohttp import web
from prometheus_client import disable_created_metrics, generate_latest
from pydantic import BaseModel, ConfigDict, ValidationError

from devbox_secrets.serving import health, logs
from devbox_secrets.serving.tls import Certificate
from devbox_secrets.webhook import metrics
from devbox_secrets.webhook.injection import Pod, patch
from devbox_secrets.webhook.settings import WebhookSettings

LOG = logging.getLogger(__name__)
_PATHS = ("optional", "required")
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


async def review(request: Any, *, webhook: str | None = None, **_: object) -> Any:  # noqa: ANN401 - kopf's signature
    """Answer an AdmissionReview of a pod; the webhook's path says whether its secrets are required or optional.

    Raises:
        HTTPNotFound: there is no such path.
        HTTPBadRequest: it's something else.
    """
    if webhook not in _PATHS:
        raise web.HTTPNotFound
    try:
        asked = _Review.model_validate(request).request
    except ValidationError:
        # From None, and without a word of it: it may hold values.
        raise web.HTTPBadRequest(text="not an AdmissionReview (admission.k8s.io/v1) of a pod") from None
    answer: dict[str, object] = {"uid": asked.uid, "allowed": True}
    operations = patch(asked.object, optional=webhook == "optional")
    if operations:
        answer |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(operations).encode()).decode()}
    metrics.ADMISSION_REVIEWS.labels("patched" if operations else "unchanged").inc()
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}


class Webhook(kopf.WebhookServer):
    """kopf's server with three differences: large bodies, no traceback for what can't be read, and an end without loss.

    kopf itself would stop listening to load a new certificate; here the context takes care of that.
    """

    def __init__(self, port: int, certificate: Certificate) -> None:
        super().__init__(port=port, context=certificate.context, certfile=certificate.file, pkeyfile=certificate.key)
        self._own_port = port
        self.draining = False

    async def _serve(self, fn: kopf.WebhookFn, request: web.Request) -> web.Response:  # type: ignore[override]
        # kopf's is a static method and is called as one of the object; ours needs to know whether we drain.
        try:
            response = await kopf.WebhookServer._serve(fn, request.clone(client_max_size=_MOST_BYTES))  # noqa: SLF001
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
                _, writer = await asyncio.open_connection("localhost", self._own_port, ssl=itself)
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
    # One writes a line for each request, the other what it couldn't read of one.
    logs.configure(settings.log_level, {"aiohttp.access": logging.WARNING, "aiohttp.server": logging.CRITICAL})
    disable_created_metrics()  # a second series for each counter, which nobody asks for
    asyncio.run(_run(settings))


async def _run(settings: WebhookSettings) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    certificate = Certificate(settings.certificate_dir, on_expiration=metrics.CERTIFICATE_EXPIRATION.set)
    async with Webhook(settings.tls_port, certificate) as webhook:
        await anext(aiter(webhook(review)))  # it listens from now on
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
