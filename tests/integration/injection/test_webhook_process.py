"""The webhook's process alone: its certificate, its end, and what it can't read."""

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
def alone(tmp_path: Path, authority: Authority) -> Iterator[Webhook]:
    """A webhook of this test alone."""
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


# --- Its certificate.


def renew(it: Webhook, authority: Authority) -> None:
    renewed = certificate(authority)
    mount(it.certificate, files(renewed))
    until("the new certificate is served", lambda: it.served() == renewed.certificate)


def test_a_renewed_one_is_served_without_restart_and_without_a_lost_request(
    alone: Webhook, authority: Authority
) -> None:
    stop, answered = Event(), list[int]()

    def ask() -> None:
        while not stop.is_set():
            with alone.connect(authority) as connection:
                connection.request("POST", "/optional", review(POD))
                answered.append(connection.getresponse().status)

    with alone.connect(authority) as kept, ThreadPoolExecutor() as threads:
        asking = threads.submit(ask)
        try:
            for _ in range(3):
                renew(alone, authority)
                count = len(answered) + 2
                until("requests go on", lambda: len(answered) > count)  # noqa: B023 - awaited at once
        finally:
            stop.set()
        asking.result()
        assert set(answered) == {200}
        kept.request("POST", "/optional", review(POD))
        assert kept.getresponse().status == 200
    assert alone.log.count("INFO devbox_secrets.webhook.server: ready") == 1


@pytest.mark.parametrize("broken", ["of another key", "no certificate", "nothing"])
def test_one_that_cannot_be_used_does_not_replace_the_one_that_can(
    broken: str, alone: Webhook, authority: Authority
) -> None:
    before, one, other = alone.served(), certificate(authority), certificate(authority)
    wrong = {
        "of another key": {"tls.crt": one.certificate, "tls.key": other.key},
        "no certificate": {"tls.crt": b"-----BEGIN CERTIFICATE-----\n", "tls.key": one.key},
        "nothing": {},
    }
    mount(alone.certificate, wrong[broken])
    until("it says so", lambda: "cannot use the new certificate; keeping the old one" in alone.log)
    assert alone.served() == before
    assert alone.get("/healthz") == "ok"
    mount(alone.certificate, files(one))
    until("the right one is served", lambda: alone.served() == one.certificate)


def test_it_tells_when_its_certificate_ends(alone: Webhook) -> None:
    end = x509.load_pem_x509_certificate(alone.served()).not_valid_after_utc
    assert alone.metric("devbox_secrets_certificate_expiration_timestamp_seconds") == end.timestamp()


def test_without_a_certificate_it_ends_with_a_sentence(tmp_path: Path) -> None:
    env = {**os.environ, "DEVBOX_SECRETS_CERTIFICATE_DIR": str(tmp_path)}
    done = subprocess.run([COMMAND, "webhook"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"devbox-secrets: {tmp_path}/tls.crt: No such file or directory\n"


# --- Its end.


def test_while_it_stops_it_is_not_ready_but_answers_and_closes_connections(
    tmp_path: Path, authority: Authority
) -> None:
    with webhook(tmp_path, files(certificate(authority)), drain_seconds="3") as it, it.connect(authority) as kept:
        os.kill(it.component.pid, signal.SIGTERM)
        until("it isn't ready", lambda: status(it, "/readyz") == 503)
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


# --- What it can't read, and what it never writes.

JSON = {"Content-Type": "application/json"}
LATIN = {"Content-Type": "application/json; charset=no-such"}
GARBAGE: dict[str, tuple[int, str, str, bytes, Mapping[str, str]]] = {
    "nothing": (400, "POST", "/optional", b"", JSON),
    "text": (400, "POST", "/optional", CANARY.encode(), JSON),
    "bytes": (400, "POST", "/optional", b"\xff\xfe" + CANARY.encode(), JSON),
    "an unknown charset": (400, "POST", "/optional", review(POD), LATIN),
    "a broken compression": (400, "POST", "/optional", CANARY.encode(), JSON | {"Content-Encoding": "gzip"}),
    "lists without end": (400, "POST", "/optional", b"[" * 100_000, JSON),
    "a text as JSON": (400, "POST", "/optional", json.dumps(CANARY).encode(), JSON),
    "null": (400, "POST", "/optional", b"null", JSON),
    "another object": (400, "POST", "/optional", json.dumps(POD | {"x": CANARY}).encode(), JSON),
    "another version": (400, "POST", "/optional", review(POD, apiVersion="admission.k8s.io/v1beta1"), JSON),
    "another kind": (400, "POST", "/optional", review(POD, kind="Review"), JSON),
    "no request": (400, "POST", "/optional", review(POD, request=None), JSON),
    "no uid": (400, "POST", "/optional", review(POD, request={"object": POD}), JSON),
    "a deletion": (400, "POST", "/optional", review(POD, request={"uid": "u-1", "object": None}), JSON),
    "no pod": (400, "POST", "/optional", review({"metadata": {"name": CANARY}}), JSON),
    "a pod of other types": (400, "POST", "/optional", review(POD | {"spec": {"containers": CANARY}}), JSON),
    "too much": (413, "POST", "/optional", b"x" * (9 << 20), JSON),
    "no path": (404, "POST", "/", review(POD), JSON),
    "another path": (404, "POST", f"/{CANARY}", review(POD), JSON),
    "a path below": (404, "POST", "/optional/x", review(POD), JSON),
    "another method": (405, "GET", "/optional", b"", {}),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_is_refused_without_a_word_of_it(what: str, shared: Webhook, authority: Authority) -> None:
    expected, method, path, body, headers = GARBAGE[what]
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
def test_what_is_no_http_is_not_written_down_either(line: str, shared: Webhook, authority: Authority) -> None:
    with shared.connect(authority) as connection:
        connection.send(f"{line}\r\n\r\n".encode())
        assert connection.sock.recv(1 << 16).startswith(b"HTTP/1.0 400 ")
    assert shared.get("/healthz") == "ok"
    assert CANARY not in shared.log
    assert "Traceback" not in shared.log


def test_an_answer_repeats_the_uid_and_nothing_else(shared: Webhook, authority: Authority) -> None:
    with shared.connect(authority) as connection:
        connection.request("POST", "/required?timeout=5s", review(pod(POD["spec"], DEVBOX, {INJECT: "false"})))
        assert json.loads(connection.getresponse().read()) == {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {"uid": "u-1", "allowed": True},
        }
