"""The audit log's line and the metrics of a request, whatever becomes of it."""

import hashlib
import json
import logging
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from devbox_secrets.gateway import metrics
from devbox_secrets.gateway.http.audit import AuditMiddleware, audit_entry

CANARY = "canary-in-the-cage"


class Route:
    path = "/v1/secrets/{name}"


async def respond(scope: Scope, receive: Receive, send: Send) -> None:
    """An endpoint that finds a secret."""
    scope["route"] = Route
    entry = audit_entry(scope)
    entry.set_user("u" * 300)
    entry.set_secret("team-a", "TOKEN", "sec_1")
    await receive()
    await send({"type": "http.response.start", "status": 200})


def scope(path: str = f"/v1/secrets/{CANARY}", method: str = "GET", **headers: str) -> Scope:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "headers": pairs, "http_version": "2"}


async def send(_: Message) -> None:
    """Send nothing to nobody."""


def receive(kind: str = "http.request") -> Callable[[], Awaitable[Message]]:
    async def it() -> Message:
        return {"type": kind}

    return it


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    caplog.set_level(logging.INFO)
    return logging.getLogger("audit-of-a-test")


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(record.getMessage()) for record in caplog.records]


def counted(handler: str, method: str, code: str) -> float:
    labels = {"handler": handler, "method": method, "code": code}
    return metrics.REGISTRY.get_sample_value("devbox_secrets_gateway_http_requests_total", labels) or 0


async def test_a_line_says_who_did_what_and_how_it_went(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    before = counted("/v1/secrets/{name}", "GET", "2xx")
    await AuditMiddleware(respond, log)(scope(x_request_id="one"), receive(), send)
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
    assert counted("/v1/secrets/{name}", "GET", "2xx") == before + 1
    assert CANARY not in caplog.text


async def test_what_matches_no_route_is_none_and_an_odd_method_is_other(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    async def astray(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404})

    before = counted("none", "other", "4xx")
    await AuditMiddleware(astray, log)(scope(method=CANARY.upper()), receive(), send)
    (line,) = lines(caplog)
    assert (line["request"], line["user"], line["account"], line["secret"]) == ("other none", None, None, None)
    assert line["request_id_hash"] is None
    assert counted("none", "other", "4xx") == before + 1


async def test_a_response_that_nobody_receives_has_no_status(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    before = counted("/v1/secrets/{name}", "GET", "none")
    await AuditMiddleware(respond, log)(scope(), receive("http.disconnect"), send)
    assert lines(caplog)[0]["status"] is None
    assert counted("/v1/secrets/{name}", "GET", "none") == before + 1


async def test_a_request_that_fails_has_its_line_too(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: Scope, __: Receive, ___: Send) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await AuditMiddleware(fail, log)(scope(), receive(), send)
    assert lines(caplog)[0]["status"] is None


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_probe_has_none(path: str, log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    async def probe(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})

    await AuditMiddleware(probe, log)(scope(path), receive(), send)
    assert caplog.records == []


async def test_without_a_log_requests_are_counted_all_the_same() -> None:
    app: ASGIApp = AuditMiddleware(respond, None)
    before = counted("/v1/secrets/{name}", "POST", "2xx")
    await app(scope(method="POST"), receive(), send)
    assert counted("/v1/secrets/{name}", "POST", "2xx") == before + 1
