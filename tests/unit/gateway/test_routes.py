"""The endpoints, end to end except for sockets and a real API server."""

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
from starlette.types import Message

from devbox_secrets.api.names import ACCOUNT_LABEL
from devbox_secrets.errors import Forbidden, RequestTimeout, TooManyRequests, Unreachable
from devbox_secrets.gateway.backend.auth import Authenticator
from devbox_secrets.gateway.backend.store import Store
from devbox_secrets.gateway.backend.sync_wait import SyncWaiter
from devbox_secrets.gateway.contract.errors import ACCOUNT_HEADER
from devbox_secrets.gateway.http.rate_limit import RateLimiter
from devbox_secrets.gateway.http.receive import BodyReader
from devbox_secrets.gateway.routes import Services, application
from unit.gateway.api_server import VIEW, APIServer, once, ready

CANARY = "canary_in_the_cage"


@dataclass
class Log(logging.Handler):
    """The audit log's lines."""

    lines: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(record.getMessage()))

    __hash__ = logging.Handler.__hash__


@pytest.fixture
def server() -> APIServer:
    return APIServer()


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def rate_limiter() -> RateLimiter:
    return RateLimiter(0, 1)


@pytest.fixture
async def client(server: APIServer, log: Log, rate_limiter: RateLimiter) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client without a token."""
    services = Services(
        authenticator=Authenticator(server),
        rate_limiter=rate_limiter,
        store=Store(server, "devbox-secrets", ("LD_*",)),
        sync_waiter=SyncWaiter(server, 0.05),
        body_reader=BodyReader(5),
    )
    logger = logging.Logger("audit")  # noqa: LOG001 - a separate one for each test
    logger.addHandler(log)
    transport = httpx.ASGITransport(application(services, logger))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as it:
        yield it


@pytest.fixture
def api(server: APIServer, client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Return a client with a token of the account team-a."""
    client.headers["Authorization"] = f"Bearer {server.add_account('team-a')}"
    return client


async def create(api: httpx.AsyncClient, name: str = "TOKEN", **headers: str) -> dict[str, str]:
    response = await api.post("/v1/secrets", json={"name": name, "value": "v"}, headers=headers)
    assert response.status_code == 200, response.text
    secret: dict[str, str] = response.json()
    return secret


def error(response: httpx.Response) -> tuple[int, str]:
    """Return an error's status and code."""
    assert set(response.json()) == {"message", "code"}
    return response.status_code, response.json()["code"]


# --- The contract


async def test_a_secret_is_created_read_updated_and_deleted_by_name(server: APIServer, api: httpx.AsyncClient) -> None:
    secret = await create(api)
    assert set(secret) == {"id", "name", "create_time_ms", "update_time_ms"}
    assert (await api.get("/v1/secrets/TOKEN")).json() == secret
    updated = (await api.post("/v1/secrets/TOKEN", json={"value": "w"})).json()
    assert updated["id"] == secret["id"]
    assert server.opened("team-a", "token") == b"w"
    assert (await api.post("/v1/secrets/TOKEN/delete")).json() == updated
    assert error(await api.get("/v1/secrets/TOKEN")) == (404, "NotFound")


async def test_a_secret_is_read_updated_and_deleted_by_id(server: APIServer, api: httpx.AsyncClient) -> None:
    path = f"/v1/secrets/id/{(await create(api))['id']}"
    updated = (await api.post(f"{path}/update", json={"value": "w"})).json()
    assert (await api.get(path)).json() == updated
    assert server.opened("team-a", "token") == b"w"
    assert (await api.post(f"{path}/delete", json={})).json() == updated
    assert error(await api.get(path)) == (404, "NotFound")


async def test_a_list_is_newest_first(api: httpx.AsyncClient) -> None:
    assert (await api.get("/v1/secrets")).json() == {"secrets": [], "has_more": False, "total_count": 0}
    secrets = [await create(api, f"S{number}") for number in range(3)]
    page = (await api.get("/v1/secrets", params={"limit": 2})).json()
    assert page == {"secrets": secrets[:0:-1], "has_more": True, "total_count": 3}
    after = {"starting_after": secrets[1]["id"]}
    assert (await api.get("/v1/secrets", params=after)).json()["secrets"] == secrets[:1]


async def test_id_delete_deletes_the_secret_named_id(api: httpx.AsyncClient) -> None:
    secret = await create(api, "id")
    assert (await api.post("/v1/secrets/id/delete")).json() == secret


async def test_an_encoded_slash_belongs_to_the_name(api: httpx.AsyncClient) -> None:
    secret = await create(api, "A")
    assert error(await api.post("/v1/secrets/A%2Fdelete", json={"value": "w"})) == (404, "NotFound")
    assert (await api.get("/v1/secrets/A")).json() == secret


async def test_a_retry_with_the_same_request_id_is_executed_once(server: APIServer, api: httpx.AsyncClient) -> None:
    retry = {"x-request-id": "stainless-python-retry-1"}
    assert await create(api, **retry) == await create(api, **retry)
    assert len(server.objects) == 1


REJECTED = {
    "a body that isn't JSON": ("POST", "/v1/secrets", CANARY, 400),
    "a reserved name": ("POST", "/v1/secrets", '{"name": "LD_PRELOAD", "value": "v"}', 400),
    "a body over 1 MiB": ("POST", "/v1/secrets", "v" * (1 << 20) + "v", 400),
    "a deletion with a value": ("POST", "/v1/secrets/A/delete", '{"value": "v"}', 400),
    "a limit out of range": ("GET", "/v1/secrets?limit=5001", "", 400),
    "a wait that is neither true nor false": ("POST", "/v1/secrets?wait=yes", '{"name": "A", "value": "v"}', 400),
    "a deletion that waits": ("POST", "/v1/secrets/A/delete?wait=true", "", 400),
    "an absent name": ("GET", f"/v1/secrets/{CANARY}", "", 404),
    "an absent path": ("GET", f"/{CANARY}", "", 404),
    "a trailing slash": ("GET", "/v1/secrets/", "", 404),
}


@pytest.mark.parametrize("what", REJECTED)
async def test_an_error_has_the_contract_s_shape_and_repeats_nothing(what: str, api: httpx.AsyncClient) -> None:
    method, path, body, status = REJECTED[what]
    response = await api.request(method, path, content=body.encode())
    assert error(response)[0] == status
    assert CANARY not in response.text


async def test_the_error_for_another_method_lists_the_allowed_ones(api: httpx.AsyncClient) -> None:
    response = await api.delete("/v1/secrets/id/delete")
    assert error(response) == (405, "MethodNotAllowed")
    assert response.headers["Allow"] == "GET, POST"


# --- Authenticate, rate limit, audit


@pytest.mark.parametrize("token", [None, "unknown"])
async def test_without_a_known_token_nothing_is_served(token: str | None, client: httpx.AsyncClient) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    response = await client.post("/v1/secrets", headers=headers)
    assert error(response) == (401, "Unauthorized")
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_request_for_another_account_needs_permissions_there(server: APIServer, api: httpx.AsyncClient) -> None:
    server.add_account("team-b")
    there = {ACCOUNT_HEADER: "team-b"}
    assert error(await api.get("/v1/secrets", headers=there)) == (403, "Forbidden")
    server.rights["token-of-team-a", "team-b"] = VIEW
    assert (await api.get("/v1/secrets", headers=there)).status_code == 200


async def test_a_creation_outside_the_home_names_the_home(server: APIServer, api: httpx.AsyncClient) -> None:
    server.namespaces["team-a"] = {ACCOUNT_LABEL: "platform"}
    response = await api.post("/v1/secrets", json={"name": "A", "value": CANARY})
    assert error(response) == (422, "UnprocessableEntity")
    assert "the account platform" in response.text


class TestRateLimit:
    @pytest.fixture
    def rate_limiter(self) -> RateLimiter:
        return RateLimiter(1, 1, lambda: 0.0)

    async def test_the_response_to_one_request_too_many_says_when_to_retry(
        self, server: APIServer, api: httpx.AsyncClient, log: Log
    ) -> None:
        assert (await api.get("/v1/secrets")).status_code == 200
        before = len(server.requests)
        response = await api.get("/v1/secrets")
        assert error(response) == (429, "TooManyRequests")
        assert (response.headers["Retry-After"], response.headers["Retry-After-Ms"]) == ("1", "1000")
        assert len(server.requests) == before
        assert log.lines[-1]["user"] == "system:serviceaccount:team-a:editor"


async def test_each_request_has_a_line_in_the_audit_log(api: httpx.AsyncClient, log: Log) -> None:
    secret = await create(api)
    (line,) = log.lines
    assert {name: line[name] for name in ("user", "account", "request", "secret", "id", "status")} == {
        "user": "system:serviceaccount:team-a:editor",
        "account": "team-a",
        "request": "POST /v1/secrets",
        "secret": "TOKEN",
        "id": secret["id"],
        "status": 200,
    }


async def test_the_line_of_a_rejected_update_names_the_secret_that_was_found(
    server: APIServer, api: httpx.AsyncClient, log: Log
) -> None:
    await create(api)
    server.rights["token-of-team-a", "team-a"] = VIEW
    assert error(await api.post("/v1/secrets/TOKEN", json={"value": "w"})) == (403, "Forbidden")
    assert (log.lines[-1]["secret"], log.lines[-1]["status"]) == ("TOKEN", 403)


async def test_an_account_that_the_request_names_is_only_in_the_line_if_it_has_secrets(
    server: APIServer, api: httpx.AsyncClient, log: Log
) -> None:
    server.add_account("team-b")
    server.rights["token-of-team-a", "team-b"] = VIEW
    there = {ACCOUNT_HEADER: "team-b"}
    await api.get("/v1/secrets", headers=there)
    server.put("team-b", "token", "TOKEN")
    await api.get("/v1/secrets", headers=there)
    assert [line["account"] for line in log.lines] == [None, "team-b"]


async def test_probes_need_no_token_and_have_no_line(client: httpx.AsyncClient, log: Log) -> None:
    assert [(await client.get(path)).text for path in ("/healthz", "/readyz")] == ["ok", "ok"]
    assert log.lines == []


async def test_requests_other_than_http_are_rejected(server: APIServer) -> None:
    services = Services(
        Authenticator(server), RateLimiter(0, 1), Store(server, "", ()), SyncWaiter(server, 1), BodyReader(5)
    )
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/secrets", "headers": []}
    await application(services, None)(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


# --- Waiting


async def test_a_request_that_waits_succeeds_when_devboxes_have_the_value(
    server: APIServer, api: httpx.AsyncClient
) -> None:
    server.put("team-a", "token", "TOKEN")
    await server.set_status("team-a", "token", ready(2))
    response = await api.post("/v1/secrets/TOKEN", params={"wait": "true"}, json={"value": "w"})
    assert response.status_code == 200


async def test_a_wait_that_takes_too_long_can_be_retried(api: httpx.AsyncClient) -> None:
    body = {"name": "TOKEN", "value": "v"}
    response = await api.post("/v1/secrets", params={"wait": "true"}, json=body)
    assert error(response) == (503, "ServiceUnavailable")
    assert response.headers["Retry-After"] == "2"


# --- The API server's errors


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Forbidden("403"), (403, "Forbidden")),
        (TooManyRequests("429", retry_after=3), (429, "TooManyRequests")),
        (RequestTimeout("late"), (503, "ServiceUnavailable")),
        (Unreachable("away"), (503, "ServiceUnavailable")),
    ],
)
async def test_errors_of_the_api_server_become_errors_of_the_contract(
    failure: Forbidden, expected: tuple[int, str], server: APIServer, api: httpx.AsyncClient
) -> None:
    server.before = once(failure, "GET")
    assert error(await api.get("/v1/secrets")) == expected


async def test_only_the_place_and_the_type_of_an_unexpected_error_are_logged(
    server: APIServer, api: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, log: Log
) -> None:
    def fail(method: str, path: str) -> None:
        if "accountsecrets" in path:
            raise ZeroDivisionError(CANARY)

    server.before = fail
    response = await api.get("/v1/secrets")
    assert error(response) == (500, "InternalServerError")
    assert "ZeroDivisionError" in caplog.text
    assert CANARY not in caplog.text + response.text
    assert log.lines[-1]["status"] == 500


# --- The document


async def test_the_document_and_its_page_need_no_token(client: httpx.AsyncClient) -> None:
    assert (await client.get("/openapi.json")).json()["openapi"].startswith("3.1")
    page = await client.get("/docs")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
