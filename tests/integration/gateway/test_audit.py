"""The gateway's audit log and metrics have a line for each request, but nothing that clients sent."""

import hashlib
import re
from collections.abc import Iterator
from datetime import datetime

import httpx
import pytest

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import Json, until
from integration.support.gateway import ENDPOINTS, Gateway, bind, endpoints, gateway, new_account, token
from integration.support.gateway_requests import create

#: Each is a valid variable name, and the first is a valid account name.
CANARIES = [f"canary{number}" for number in range(12)]


@pytest.fixture(scope="module")
def it(controlplane: ControlPlane, tenant: Account) -> Iterator[Gateway]:
    """A gateway that only this module calls."""
    with gateway(controlplane) as own:
        yield own


@pytest.fixture
def api(it: Gateway, key: str) -> Iterator[httpx.Client]:
    with it.client(key) as client:
        yield client


def line_of(it: Gateway, answer: httpx.Response) -> Json:
    """Return the audit line of a request, identified by its request id."""
    wanted = hashlib.sha256(answer.request.headers["x-request-id"].encode()).hexdigest()[:16]
    return (
        until("the request has its line", lambda: next((a for a in it.audit if a["request_id_hash"] == wanted), None))
        or {}
    )


REQUESTS = {
    "create": "POST /v1/secrets",
    "list": "GET /v1/secrets",
    "list after": "GET /v1/secrets",
    "get": "GET /v1/secrets/{name}",
    "update": "POST /v1/secrets/{name}",
    "delete": "POST /v1/secrets/{name}/delete",
    "get by id": "GET /v1/secrets/id/{id}",
    "update by id": "POST /v1/secrets/id/{id}/update",
    "delete by id": "POST /v1/secrets/id/{id}/delete",
}


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_each_request_has_a_line_with_its_user_action_and_secret(
    endpoint: str, it: Gateway, tenant: Account, key: str, *, http2: bool
) -> None:
    with it.client(key, http2=http2) as api:
        secret = create(api, "TOKEN")
        method, path, body = endpoints(secret)[endpoint]
        answer = api.request(method, path, json=body, headers={"x-request-id": f"{endpoint} {http2}"})
        for name in ("TOKEN", "MINE_NOW"):
            api.post(f"/v1/secrets/{name}/delete")
    line = line_of(it, answer)
    about = answer.json() if "list" not in endpoint else {"name": None, "id": None}
    assert line == {
        "time": line["time"],
        "user": f"system:serviceaccount:{tenant.name}:editor",
        "account": tenant.name,
        "request": REQUESTS[endpoint],
        "secret": about["name"],
        "id": about["id"],
        "status": 200,
        "duration_ms": line["duration_ms"],
        "request_id_hash": line["request_id_hash"],
        "protocol": "HTTP/2" if http2 else "HTTP/1.1",
    }
    assert datetime.fromisoformat(line["time"]).tzinfo
    assert 0 < line["duration_ms"] < 60_000


def test_a_rejected_request_has_a_line_with_the_secret_that_was_found(
    controlplane: ControlPlane, it: Gateway, api: httpx.Client, tenant: Account
) -> None:
    create(api, "FOUND")
    with it.client(token(controlplane, tenant.name, "viewer")) as viewer:
        refused = viewer.post("/v1/secrets/FOUND/delete", headers={"x-request-id": "refused"})
    api.post("/v1/secrets/FOUND/delete")
    line = line_of(it, refused)
    assert (line["status"], line["secret"], line["user"]) == (
        403,
        "FOUND",
        f"system:serviceaccount:{tenant.name}:viewer",
    )


def test_the_line_of_a_request_with_an_unknown_token_has_no_user(it: Gateway) -> None:
    with it.client("made-up") as nobody:
        line = line_of(it, nobody.get("/v1/secrets/TOKEN", headers={"x-request-id": "nobody's"}))
    assert [line[name] for name in ("user", "account", "secret", "status")] == [None, None, None, 401]


def test_the_line_has_the_account_from_the_header_only_if_the_account_has_secrets(
    controlplane: ControlPlane, it: Gateway, tenant: Account, key: str
) -> None:
    other = new_account(controlplane)
    bind(controlplane, other, f"{tenant.name}:editor", "edit")
    with it.client(key, other) as api:
        until("the binding takes effect", lambda: api.get("/v1/secrets").status_code == 200)
        empty = api.get("/v1/secrets", headers={"x-request-id": "empty"})
        create(api, "THERE")
        filled = api.get("/v1/secrets", headers={"x-request-id": "filled"})
    assert [line_of(it, answer)["account"] for answer in (empty, filled)] == [None, other]


def test_probes_are_neither_logged_nor_counted(it: Gateway) -> None:
    for path in ("/healthz", "/readyz"):
        httpx.get(f"{it.url}{path}", headers={"x-request-id": "a probe"}, trust_env=False)
    httpx.get(f"{it.url}/neither", headers={"x-request-id": "no probe"}, trust_env=False)
    until("the last request has its line", lambda: it.audit[-1]["status"] == 404)
    assert not {line["request"] for line in it.audit} & {"GET /healthz", "GET /readyz"}
    assert "z" not in "".join(re.findall(r'handler="/(.*?)"', it.process.get("/metrics")))


def test_the_audit_log_can_be_turned_off(controlplane: ControlPlane, tenant: Account, key: str) -> None:
    with gateway(controlplane, audit="false") as it, it.client(key) as api:
        assert api.get("/v1/secrets").status_code == 200
        assert it.process.metric(counted("GET", "/v1/secrets", "2xx")) == 1
        assert it.audit == []


def counted(method: str, handler: str, code: str) -> str:
    labels = f'code="{code}",handler="{handler}",method="{method}"'
    return f"devbox_secrets_gateway_http_requests_total{{{labels}}}"


def test_requests_are_counted_by_handler_method_and_code(it: Gateway, api: httpx.Client) -> None:
    for method, path, handler, label, code in (
        ("GET", "/v1/secrets", "/v1/secrets", "GET", "2xx"),
        ("GET", "/v1/secrets/ABSENT", "/v1/secrets/{name}", "GET", "4xx"),
        ("GET", "/elsewhere", "none", "GET", "4xx"),
        ("BREW", "/v1/secrets", "/v1/secrets", "other", "4xx"),
    ):
        before = it.process.metric(counted(label, handler, code))
        api.request(method, path)
        until("the request is counted", lambda: it.process.metric(counted(label, handler, code)) == before + 1)  # noqa: B023
    timed = 'devbox_secrets_gateway_http_request_duration_seconds_count{handler="none",method="GET"}'
    assert it.process.metric(timed) >= 1
    assert it.process.metric("devbox_secrets_gateway_http_requests_in_flight") == 0
    assert it.process.metric('devbox_secrets_gateway_upstream_requests_total{code="2xx"}') >= 1


def test_the_public_port_has_no_metrics(it: Gateway) -> None:
    assert httpx.get(f"{it.url}/metrics", trust_env=False).status_code == 404


def test_neither_the_log_nor_the_metrics_contain_what_clients_sent(it: Gateway, tenant: Account, key: str) -> None:
    canary = iter(CANARIES)
    with it.client(key) as api, it.client(next(canary)) as nobody, it.client(key, next(canary)) as elsewhere:
        sent = [
            api.post("/v1/secrets", json={"name": "GOOD", "value": next(canary)}),
            api.post("/v1/secrets", json={"name": next(canary), "value": "a\0"}),
            api.post("/v1/secrets", json={next(canary): "v"}),
            api.get(f"/v1/secrets/{next(canary)}"),
            api.get(f"/{next(canary)}"),
            api.get("/v1/secrets", params={"starting_after": next(canary), "limit": next(canary)}),
            api.get("/v1/secrets", headers={"x-request-id": next(canary), "user-agent": next(canary)}),
            api.request(next(canary).upper(), "/v1/secrets"),
            nobody.get("/v1/secrets"),
            elsewhere.get("/v1/secrets"),
        ]
        assert next(canary, None) is None
        api.post("/v1/secrets/GOOD/delete")
    assert [answer.status_code for answer in sent] == [200, 400, 400, 404, 404, 400, 200, 405, 401, 403]
    lines = len(sent) + 1
    until("each request has its line", lambda: len(it.audit) >= lines)
    kept = {"the log at DEBUG, with the audit log": it.log, "metrics": it.process.get("/metrics")}
    for text in [*CANARIES, key]:
        assert [where for where, found in kept.items() if text.lower() in found.lower()] == []
    assert tenant.name in kept["the log at DEBUG, with the audit log"]


def test_the_account_header_is_not_logged_during_an_api_server_outage(
    controlplane: ControlPlane, it: Gateway, tenant: Account, key: str
) -> None:
    with it.client(key, CANARIES[0]) as api:
        assert api.get("/v1/secrets").status_code == 403  # the token is now cached
        controlplane.apiserver.stop()
        try:
            assert api.get("/v1/secrets").status_code == 503
        finally:
            controlplane.apiserver.start()
            controlplane.apiserver.wait_ready()
    assert CANARIES[0] not in it.log
    assert "GET /apis/devbox-secrets.dev/v1beta1: ClientConnectorError" in it.log
