"""The line in the audit log and the metrics of a request, with any outcome."""

import hashlib
import json
import logging
from contextlib import suppress

import pytest
from starlette.requests import ClientDisconnect, Request

from devbox_secrets.gateway import metrics
from devbox_secrets.gateway.http.audit import audited

CANARY = "canary-in-the-cage"


TEMPLATE = "/v1/secrets/{name}"


def request(path: str = f"/v1/secrets/{CANARY}", method: str = "GET", **headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": method, "path": path, "headers": pairs, "http_version": "2"})


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    caplog.set_level(logging.INFO)
    return logging.getLogger("audit-of-a-test")


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(record.getMessage()) for record in caplog.records]


def counted(handler: str, method: str, code: str) -> float:
    labels = {"handler": handler, "method": method, "code": code}
    return metrics.REGISTRY.get_sample_value("devbox_secrets_gateway_http_requests_total", labels) or 0


def test_a_line_has_the_user_the_request_and_the_outcome(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    before = counted(TEMPLATE, "GET", "2xx")
    with audited(request(x_request_id="one"), TEMPLATE, log) as entry:
        entry.set_user("u" * 300)
        entry.set_secret("team-a", "TOKEN", "sec_1")
        entry.status = 200
    (line,) = lines(caplog)
    assert list(line) == [
        *("time", "user", "account", "request", "secret", "id"),
        *("status", "duration_ms", "request_id_hash", "protocol"),
    ]
    assert line | {"time": "", "duration_ms": 0} == {
        "time": "",
        "user": "u" * 256,
        "account": "team-a",
        "request": "GET /v1/secrets/{name}",
        "secret": "TOKEN",
        "id": "sec_1",
        "status": 200,
        "duration_ms": 0,
        "request_id_hash": hashlib.sha256(b"one").hexdigest()[:16],
        "protocol": "HTTP/2",
    }
    assert counted(TEMPLATE, "GET", "2xx") == before + 1
    assert CANARY not in caplog.text


def test_an_unknown_path_is_logged_as_none_and_an_unknown_method_as_other(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    before = counted("none", "other", "4xx")
    with audited(request(method=CANARY.upper()), None, log) as entry:
        entry.status = 404
    (line,) = lines(caplog)
    assert (line["request"], line["user"], line["account"], line["secret"]) == ("other none", None, None, None)
    assert line["request_id_hash"] is None
    assert counted("none", "other", "4xx") == before + 1


def test_a_request_without_a_response_has_no_status(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    before = counted(TEMPLATE, "GET", "none")
    with suppress(ClientDisconnect), audited(request(), TEMPLATE, log):
        raise ClientDisconnect
    assert lines(caplog)[0]["status"] is None
    assert counted(TEMPLATE, "GET", "none") == before + 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_probe_has_no_line(path: str, log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    with audited(request(path), path, log) as entry:
        entry.status = 200
    assert caplog.records == []
    assert counted(path, "GET", "2xx") == 0


def test_requests_are_counted_even_without_a_log() -> None:
    before = counted(TEMPLATE, "POST", "2xx")
    with audited(request(method="POST"), TEMPLATE, None) as entry:
        entry.status = 200
    assert counted(TEMPLATE, "POST", "2xx") == before + 1
