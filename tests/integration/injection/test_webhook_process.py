"""The webhook's process: its certificate, its shutdown and invalid requests."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from cryptography import x509

from harness.pki import Authority, KeyPair
from integration.support.chart import DEVBOX, Json, container, pod, until
from integration.support.pod_cases import INJECT
from integration.support.processes import COMMAND
from integration.support.webhook import HOST, Webhook, mount, webhook

CANARY = "canary-3f1c9a"
POD = pod({"containers": [container("a")]}, DEVBOX)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("test")


@pytest.fixture
def separate(tmp_path: Path, authority: Authority) -> Iterator[Webhook]:
    """A webhook that only one test uses."""
    with webhook(tmp_path, files(certificate(authority))) as it:
        yield it


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Webhook]:
    with webhook(tmp_path_factory.mktemp("webhook"), files(certificate(authority))) as it:
        yield it


def certificate(authority: Authority) -> KeyPair:
    return authority.server(HOST, addresses=[])


def files(pair: KeyPair) -> dict[str, bytes]:
    return {"tls.crt": pair.certificate, "tls.key": pair.key}


def review(of: Json, **fields: object) -> bytes:
    asked = {"uid": "u-1", "operation": "CREATE", "object": of}
    return json.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked} | fields
    ).encode()


# --- Certificate


def renew(it: Webhook, authority: Authority) -> None:
    renewed = certificate(authority)
    mount(it.certificate, files(renewed))
    until("the new certificate is served", lambda: it.served() == renewed.certificate)


def test_a_renewed_certificate_is_served_without_a_restart_or_a_lost_request(
    separate: Webhook, authority: Authority
) -> None:
    stop, answered = Event(), list[int]()

    def ask() -> None:
        while not stop.is_set():
            with separate.connect(authority) as connection:
                connection.request("POST", "/optional", review(POD))
                answered.append(connection.getresponse().status)

    with separate.connect(authority) as kept, ThreadPoolExecutor() as threads:
        asking = threads.submit(ask)
        try:
            for _ in range(3):
                renew(separate, authority)
                count = len(answered) + 2
                until("requests continue", lambda: len(answered) > count)  # noqa: B023 - runs in this iteration
        finally:
            stop.set()
        asking.result()
        assert set(answered) == {200}
        kept.request("POST", "/optional", review(POD))
        assert kept.getresponse().status == 200
    assert separate.log.count("INFO devbox_secrets.webhook.server: ready") == 1


@pytest.mark.parametrize("broken", ["with another key", "no certificate", "no files"])
def test_an_unusable_certificate_does_not_replace_the_current_one(
    broken: str, separate: Webhook, authority: Authority
) -> None:
    before, one, other = separate.served(), certificate(authority), certificate(authority)
    wrong = {
        "with another key": {"tls.crt": one.certificate, "tls.key": other.key},
        "no certificate": {"tls.crt": b"-----BEGIN CERTIFICATE-----\n", "tls.key": one.key},
        "no files": {},
    }
    mount(separate.certificate, wrong[broken])
    until("the error is logged", lambda: "cannot use the new certificate; keeping the old one" in separate.log)
    assert separate.served() == before
    assert separate.get("/healthz") == "ok"
    mount(separate.certificate, files(one))
    until("the valid certificate is served", lambda: separate.served() == one.certificate)


def test_a_metric_has_the_certificates_expiration_time(separate: Webhook) -> None:
    end = x509.load_pem_x509_certificate(separate.served()).not_valid_after_utc
    assert separate.metric("devbox_secrets_certificate_expiration_timestamp_seconds") == end.timestamp()


def test_without_a_certificate_it_exits_with_an_error(tmp_path: Path) -> None:
    env = {**os.environ, "DEVBOX_SECRETS_CERTIFICATE_DIR": str(tmp_path)}
    done = subprocess.run([COMMAND, "webhook"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"devbox-secrets: {tmp_path}/tls.crt: No such file or directory\n"


# --- Shutdown


def test_during_shutdown_it_is_not_ready_but_answers_and_closes_connections(
    tmp_path: Path, authority: Authority
) -> None:
    with webhook(tmp_path, files(certificate(authority)), drain_seconds="3") as it, it.connect(authority) as kept:
        os.kill(it.component.pid, signal.SIGTERM)
        until("the webhook isn't ready", lambda: status(it, "/readyz") == 503)
        assert status(it, "/healthz") == 200
        kept.request("POST", "/required", review(POD))
        answer = kept.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")


def status(it: Webhook, path: str) -> int:
    try:
        it.get(path)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


# --- Invalid requests

JSON = {"Content-Type": "application/json"}
LATIN = {"Content-Type": "application/json; charset=no-such"}
INVALID: dict[str, tuple[int, str, str, bytes, Mapping[str, str]]] = {
    "an empty body": (400, "POST", "/optional", b"", JSON),
    "text": (400, "POST", "/optional", CANARY.encode(), JSON),
    "invalid UTF-8": (400, "POST", "/optional", b"\xff\xfe" + CANARY.encode(), JSON),
    "an unknown charset": (400, "POST", "/optional", review(POD), LATIN),
    "malformed gzip": (400, "POST", "/optional", CANARY.encode(), JSON | {"Content-Encoding": "gzip"}),
    "deeply nested lists": (400, "POST", "/optional", b"[" * 100_000, JSON),
    "a JSON string": (400, "POST", "/optional", json.dumps(CANARY).encode(), JSON),
    "null": (400, "POST", "/optional", b"null", JSON),
    "an object that isn't a review": (400, "POST", "/optional", json.dumps(POD | {"x": CANARY}).encode(), JSON),
    "another version": (400, "POST", "/optional", review(POD, apiVersion="admission.k8s.io/v1beta1"), JSON),
    "another kind": (400, "POST", "/optional", review(POD, kind="Review"), JSON),
    "no request": (400, "POST", "/optional", review(POD, request=None), JSON),
    "no uid": (400, "POST", "/optional", review(POD, request={"object": POD}), JSON),
    "a deletion": (400, "POST", "/optional", review(POD, request={"uid": "u-1", "object": None}), JSON),
    "an object that isn't a pod": (400, "POST", "/optional", review({"metadata": {"name": CANARY}}), JSON),
    "a pod with a wrong type": (400, "POST", "/optional", review(POD | {"spec": {"containers": CANARY}}), JSON),
    "a body that is too long": (413, "POST", "/optional", b"x" * (9 << 20), JSON),
    "the root path": (404, "POST", "/", review(POD), JSON),
    "another path": (404, "POST", f"/{CANARY}", review(POD), JSON),
    "a longer path": (404, "POST", "/optional/x", review(POD), JSON),
    "another method": (405, "GET", "/optional", b"", {}),
}


@pytest.mark.parametrize("what", INVALID)
def test_an_invalid_request_is_rejected_without_repeating_it(what: str, shared: Webhook, authority: Authority) -> None:
    expected, method, path, body, headers = INVALID[what]
    with shared.connect(authority) as connection:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        assert answer.status == expected
        assert CANARY not in f"{answer.reason} {answer.read().decode()}"
    assert CANARY not in shared.log
    assert "Traceback" not in shared.log
    assert "ERROR" not in shared.log


@pytest.mark.parametrize(
    "line", [CANARY, f"POST /{CANARY} HTTP/9", f"POST / HTTP/1.1\r\n{CANARY}"], ids=["text", "version", "header"]
)
def test_malformed_http_is_not_logged(line: str, shared: Webhook, authority: Authority) -> None:
    with shared.connect(authority) as connection:
        connection.send(f"{line}\r\n\r\n".encode())
        assert connection.sock.recv(1 << 16).startswith(b"HTTP/1.0 400 ")
    assert shared.get("/healthz") == "ok"
    assert CANARY not in shared.log
    assert "Traceback" not in shared.log


def test_the_response_repeats_only_the_uid(shared: Webhook, authority: Authority) -> None:
    with shared.connect(authority) as connection:
        connection.request("POST", "/required?timeout=5s", review(pod(POD["spec"], DEVBOX, {INJECT: "false"})))
        assert json.loads(connection.getresponse().read()) == {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {"uid": "u-1", "allowed": True},
        }
