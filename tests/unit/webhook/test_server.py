"""The webhook's server: its responses to AdmissionReviews and other requests, and its shutdown."""

import asyncio
import base64
import io
import json
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from devbox_secrets.serving import logs
from devbox_secrets.serving.tls import Certificate
from devbox_secrets.webhook import metrics, server
from devbox_secrets.webhook.server import Webhook, review
from devbox_secrets.webhook.settings import WebhookSettings
from harness import pki
from unit.serving.ports import free_port

CANARY = "canary-7d21"
CA = pki.Authority.create("ours")
NOT_A_REVIEW = "not an AdmissionReview (admission.k8s.io/v1) for a pod"


def admission_review(**pod: object) -> dict[str, Any]:
    container = {"name": "box", "image": "box", "env": [{"name": "OWN", "value": CANARY}]}
    body = {"metadata": {}, "spec": {"containers": [container]}, **pod}
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "uid-1", "object": body},
    }


OPTED_OUT = admission_review(metadata={"annotations": {"devbox-secrets.dev/inject": "false"}})


def reviews(result: str) -> float:
    sample = "devbox_secrets_admission_reviews_total"
    return metrics.REGISTRY.get_sample_value(sample, {"result": result}) or 0


def operations(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(base64.b64decode(answer["response"]["patch"]))
    return found


@pytest.mark.parametrize("path", ["optional", "required"])
def test_a_devbox_is_allowed_and_patched_as_the_path_says(path: str) -> None:
    before = reviews("patched")
    answer = review(admission_review(), path)
    entry = {"secretRef": {"name": "devbox-account-secrets", "optional": path == "optional"}}
    assert operations(answer) == [{"op": "add", "path": "/spec/containers/0/envFrom", "value": [entry]}]
    del answer["response"]["patch"]
    assert answer == {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": "uid-1", "allowed": True, "patchType": "JSONPatch"},
    }
    assert reviews("patched") == before + 1


def test_a_pod_that_opts_out_is_allowed_unchanged() -> None:
    before = reviews("unchanged")
    answer = review(OPTED_OUT, "optional")
    assert answer["response"] == {"uid": "uid-1", "allowed": True}
    assert reviews("unchanged") == before + 1


@pytest.mark.parametrize("path", ["optional/files", "required/files"])
def test_a_devbox_gets_files_if_the_path_says_so(path: str) -> None:
    *mounts, volume = operations(review(admission_review(), path))
    assert [each["path"] for each in mounts] == ["/spec/containers/0/volumeMounts"]
    assert volume["value"][0]["secret"]["optional"] == (path == "optional/files")


@pytest.mark.parametrize("path", ["", "other", "optional/", "Optional", "optional/env", "optional/files/"])
def test_other_paths_are_not_found(path: str) -> None:
    with pytest.raises(web.HTTPNotFound):
        review(admission_review(), path)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(CANARY, id="a string"),
        pytest.param(None, id="null"),
        pytest.param([CANARY], id="a list"),
        pytest.param({}, id="an empty object"),
        pytest.param({**admission_review(), "kind": CANARY}, id="another kind"),
        pytest.param({**admission_review(), "apiVersion": "admission.k8s.io/v1beta1"}, id="another version"),
        pytest.param({**admission_review(), "request": CANARY}, id="no request"),
        pytest.param({**admission_review(), "request": {"object": {"spec": {"containers": []}}}}, id="no uid"),
        pytest.param(admission_review(spec=CANARY), id="no spec"),
        pytest.param(admission_review(spec={"containers": [CANARY]}), id="no containers"),
    ],
)
def test_other_bodies_are_rejected_without_repeating_them(body: object) -> None:
    with pytest.raises(web.HTTPBadRequest) as caught:
        review(body, "optional")
    assert caught.value.text == NOT_A_REVIEW
    assert caught.value.__suppress_context__


def renew(folder: Path) -> None:
    pair = CA.server("localhost", addresses=["127.0.0.1"])
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)


@pytest.fixture
async def webhook(tmp_path: Path) -> AsyncIterator[Webhook]:
    renew(tmp_path)
    webhook = Webhook(free_port(), Certificate(tmp_path))
    async with webhook.listening():
        yield webhook


class Caller:
    """Posts to the webhook as the API server does."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self.port = port
        self.session = session

    async def post(self, path: str, body: bytes, **headers: str) -> tuple[int, str, bool]:
        """Return the status, the body, and whether the connection stays open."""
        url = f"https://127.0.0.1:{self.port}/{path}"
        async with self.session.post(
            url, data=io.BytesIO(body), headers={"Content-Type": "application/json", **headers}
        ) as found:
            return found.status, await found.text(), found.headers.get("Connection") != "close"


@pytest.fixture
async def caller(webhook: Webhook) -> AsyncIterator[Caller]:
    context = ssl.create_default_context(cadata=CA.pem.decode())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield Caller(webhook.port, session)


async def test_a_review_is_answered_over_tls(caller: Caller) -> None:
    status, text, stays = await caller.post("required", json.dumps(admission_review()).encode())
    assert (status, stays) == (200, True)
    assert operations(json.loads(text))[0]["path"] == "/spec/containers/0/envFrom"


async def test_a_large_pod_is_accepted(caller: Caller) -> None:
    large = admission_review(metadata={"annotations": {"large": "x" * (4 << 20)}})
    status, _, _ = await caller.post("optional", json.dumps(large).encode())
    assert status == 200


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        pytest.param("other", json.dumps(admission_review()).encode(), {}, 404, id="another path"),
        pytest.param("optional", json.dumps({CANARY: CANARY}).encode(), {}, 400, id="not a review"),
        pytest.param("optional", CANARY.encode(), {}, 400, id="not JSON"),
        pytest.param("optional", b"\xff" + CANARY.encode(), {}, 400, id="not text"),
        pytest.param("optional", b"[" * 100_000, {}, 400, id="nested too deeply"),
        pytest.param(
            "optional",
            CANARY.encode(),
            {"Content-Type": "application/json; charset=none"},
            400,
            id="an unknown charset",
        ),
    ],
)
async def test_an_unreadable_request_is_rejected_counted_and_not_repeated(
    path: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
    caller: Caller,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    before = reviews("rejected")
    found, text, _ = await caller.post(path, body, **headers)
    assert found == status
    assert reviews("rejected") == before + 1
    assert CANARY not in text
    assert CANARY not in caplog.text


async def test_a_body_that_is_larger_than_any_pod_is_rejected(caller: Caller) -> None:
    before = reviews("rejected")
    status, text, _ = await caller.post("optional", CANARY.encode() * (1 << 20))
    assert status == 413
    assert CANARY not in text
    assert reviews("rejected") == before + 1


async def test_a_server_that_listens_is_ready_and_healthy(webhook: Webhook) -> None:
    assert await webhook.unready() is None
    assert await webhook.unhealthy() is None


async def test_a_server_that_drains_is_not_ready_but_responds_and_closes_the_connection(
    webhook: Webhook, caller: Caller
) -> None:
    webhook.draining = True
    assert await webhook.unready() == "shutting down"
    assert await webhook.unhealthy() is None
    status, _, stays = await caller.post("optional", json.dumps(admission_review()).encode())
    assert (status, stays) == (200, False)


async def test_a_server_that_does_not_listen_is_unhealthy(tmp_path: Path) -> None:
    renew(tmp_path)
    webhook = Webhook(free_port(), Certificate(tmp_path))
    assert await webhook.unhealthy() == "cannot connect to the webhook's port: ConnectionRefusedError"
    assert await webhook.unready() == await webhook.unhealthy()


async def test_a_server_that_does_not_complete_a_handshake_is_unhealthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_HANDSHAKE_SECONDS", 0.05)
    renew(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        webhook = Webhook(silent.getsockname()[1], Certificate(tmp_path))
        assert await webhook.unhealthy() == "cannot connect to the webhook's port: TimeoutError"


async def test_a_process_drains_and_exits_on_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renew(tmp_path)
    settings = WebhookSettings(
        port=free_port(),
        tls_port=free_port(),
        certificate_dir=tmp_path,
        certificate_refresh_seconds=0.01,
        drain_seconds=0,
    )
    ready = asyncio.Event()  # it's refreshed once the server listens, and then periodically
    monkeypatch.setattr(Certificate, "refresh", lambda _: ready.set())
    process = asyncio.create_task(server._run(settings))  # noqa: SLF001 - `run` would start another event loop
    await ready.wait()
    async with aiohttp.ClientSession() as session:
        for path, text in {"readyz": "ok", "healthz": "ok", "metrics": "devbox_secrets_admission_reviews"}.items():
            async with session.get(f"http://127.0.0.1:{settings.port}/{path}") as response:
                assert response.status == 200
                assert text in await response.text()
    os.kill(os.getpid(), signal.SIGTERM)
    await process


def test_a_process_without_a_certificate_fails_and_logs_no_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured: list[tuple[object, ...]] = []
    monkeypatch.setattr(logs, "configure", lambda *args: configured.append(args))
    with pytest.raises(FileNotFoundError):
        server.run(WebhookSettings(certificate_dir=tmp_path))
    assert configured == [("INFO", "text", {"aiohttp.server": logging.CRITICAL})]
