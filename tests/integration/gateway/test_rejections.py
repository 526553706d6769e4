"""The gateway rejects invalid input and missing rights, never with a 500 and never with the value in the message."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import h2.config
import h2.connection
import httpx
import pytest

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import Json, deny_policy, get, until
from integration.support.gateway import ENDPOINTS, Gateway, bind, endpoints, gateway, new_account, token
from integration.support.gateway_requests import create, error_message

CANARY = "canary_in_the_cage"  # also a valid variable name
LARGEST = 131_072 - len("A=") - len("\0")
LIMIT = 1 << 20


# --- Invalid input

BODIES = {
    "not JSON": (CANARY, "isn't valid JSON"),
    "an unknown field": (json.dumps({"name": "A", "value": "v", CANARY: CANARY}), "unknown field"),
    "a field twice": (f'{{"name": "A", "value": "{CANARY}", "value": "{CANARY}"}}', "duplicate field"),
    "a wrong type": (json.dumps({"name": "A", "value": [CANARY]}), "`value` must be a Unicode string"),
    "a missing field": (json.dumps({"value": CANARY}), "has no field `name`"),
    "an empty name": (json.dumps({"name": "", "value": CANARY}), "name of an environment variable"),
    "a malformed name": (json.dumps({"name": f"{CANARY} ", "value": CANARY}), "name of an environment variable"),
    "a name with a line break": (json.dumps({"name": "A\n", "value": CANARY}), "name of an environment variable"),
    "a long name": (json.dumps({"name": "A" * 254, "value": CANARY}), "the maximum is 253"),
    "a reserved name": (json.dumps({"name": "LD_PRELOAD", "value": CANARY}), "LD_PRELOAD is reserved"),
    "a NUL": (json.dumps({"name": "A", "value": f"{CANARY}\0"}), "NUL"),
    "half of a surrogate pair": (f'{{"name": "A", "value": "{CANARY}\\ud800"}}', "surrogate"),
    "a value that is too long": (json.dumps({"name": "A", "value": CANARY + "v" * LARGEST}), "131,072"),
    "a value that is too long in bytes": (json.dumps({"name": "A", "value": "é" * (LARGEST // 2 + 1)}), "131,072"),
    "a body that is too long": (json.dumps({"name": "A", "value": "v" * LIMIT}), "1,048,576"),
}


@pytest.mark.parametrize("what", BODIES)
def test_an_invalid_creation_is_rejected_with_a_helpful_message(what: str, api: httpx.Client) -> None:
    body, sentence = BODIES[what]
    answer = api.post("/v1/secrets", content=body.encode(), headers={"Content-Type": "application/json"})
    message = error_message(answer, 400, "BadRequest")
    assert sentence in message
    assert CANARY not in message
    assert api.get("/v1/secrets").json()["total_count"] == 0


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("value", ["", "v" * LARGEST, "\u0001" * LARGEST, "é", "a\nb", "👩‍💻", '"\\'])
def test_values_at_the_limits_are_accepted(
    controlplane: ControlPlane, rest: Gateway, value: str, *, http2: bool
) -> None:
    name = new_account(controlplane)
    with rest.client(token(controlplane, name), http2=http2) as api:
        create(api, "A", value)


QUERIES = ["limit=-1", "limit=5001", "limit=many", "limit=1.5", "limit=", "starting_after=", "starting_after=sec_1"]


@pytest.mark.parametrize("query", QUERIES)
def test_a_list_with_an_invalid_query_is_rejected(query: str, api: httpx.Client) -> None:
    message = error_message(api.get(f"/v1/secrets?{query}"), 400, "BadRequest")
    assert query.partition("=")[0] in message


PATHS = [
    ("GET", "/v1/secrets/MISSING", 404),
    ("GET", f"/v1/secrets/{CANARY}", 404),
    ("GET", "/v1/secrets/no-name", 404),
    ("GET", "/v1/secrets/%00", 404),
    ("GET", "/v1/secrets/%ff%fe", 404),
    ("GET", "/v1/secrets/A%2Cspec.name%3DB", 404),
    ("GET", "/v1/secrets/..%2F..%2Fpods", 404),
    ("GET", "/v1/secrets/id/sec_0", 404),
    ("GET", "/v1/secrets/id/%2E%2E", 404),
    ("GET", "/v1/secrets/", 404),
    ("GET", "/v1", 404),
    ("GET", f"/{CANARY}", 404),
    ("PUT", "/v1/secrets", 405),
    ("DELETE", "/v1/secrets/A", 405),
]


@pytest.mark.parametrize(("method", "path", "status"), PATHS)
def test_unknown_paths_and_methods_get_an_error_in_the_contracts_format(
    method: str, path: str, status: int, api: httpx.Client
) -> None:
    answer = api.request(method, path)
    assert CANARY not in error_message(answer, status, "NotFound" if status == 404 else "MethodNotAllowed")


def test_a_deletion_with_a_body_is_rejected(api: httpx.Client) -> None:
    error_message(api.post("/v1/secrets/A/delete", json={"value": CANARY}), 400, "BadRequest")


def _http2(path: bytes) -> bytes:
    """Return what a client sends that doesn't validate its path."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False))
    connection.initiate_connection()
    head = [(b":method", b"GET"), (b":path", path), (b":scheme", b"http"), (b":authority", b"a")]
    connection.send_headers(1, head, end_stream=True)
    return connection.data_to_send()


RAW = {
    "not HTTP": b"\x16\x03\x01 hello\r\n\r\n",
    "bytes in the path": b"GET /v1/secrets/\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "an endless header": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000,
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "an upgrade to a WebSocket": (
        b"GET /v1/secrets HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
    "an HTTP/2 path that isn't ASCII": _http2(b"/v1/secrets/\xff"),
    "a broken preface": b"PRI * HTTP/2.0\r\n\r\nno\r\n\r\n" + b"\0" * 100,
}


@pytest.mark.parametrize("what", RAW)
def test_bytes_that_are_not_a_request_affect_only_their_own_connection(
    what: str, rest: Gateway, api: httpx.Client
) -> None:
    host, _, port = rest.url.removeprefix("http://").partition(":")
    with closing(socket.create_connection((host, int(port)), timeout=20)) as connection:
        connection.sendall(RAW[what])
        with suppress(OSError):  # it may be closed already
            connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: _receive(connection), b""))
    assert b" 500 " not in answer
    assert api.get("/v1/secrets").status_code == 200
    assert "Traceback" not in rest.log


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def test_a_body_that_arrives_too_slowly_gets_408(controlplane: ControlPlane, rest: Gateway, key: str) -> None:
    with gateway(controlplane, body_timeout_seconds="0.5") as it:
        host, _, port = it.url.removeprefix("http://").partition(":")
        with closing(socket.create_connection((host, int(port)), timeout=20)) as connection:
            connection.sendall(
                b"POST /v1/secrets HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n"
                + f'Authorization: Bearer {key}\r\n\r\n{{"name": "A", '.encode()
            )
            answer = connection.recv(65536) + connection.recv(65536)  # head and body
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"RequestTimeout"' in answer


# --- Missing rights

TOKENS = {
    "no token": {},
    "an empty header": {"Authorization": ""},
    "another scheme": {"Authorization": "Basic YTpi"},
    "an unknown token": {"Authorization": f"Bearer {CANARY}"},
    "an unknown token for an account": {"Authorization": f"Bearer {CANARY}", "X-Devbox-Secrets-Account": "default"},
}


@pytest.mark.parametrize("what", TOKENS)
def test_a_request_without_a_valid_token_gets_401(what: str, rest: Gateway) -> None:
    answer = httpx.get(f"{rest.url}/v1/secrets", headers=TOKENS[what], trust_env=False)
    message = error_message(answer, 401, "Unauthorized")
    assert CANARY not in message
    assert "devbox-secrets apikey create" in message


READS = {"list", "list after", "get", "get by id"}


@pytest.fixture(scope="module")
def theirs(controlplane: ControlPlane, rest: Gateway) -> tuple[Account, Json]:
    """Another account, with one secret."""
    it = Account.of(controlplane, new_account(controlplane))
    with rest.client(token(controlplane, it.name)) as api:
        return it, create(api, "THEIRS")


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_token_of_another_account_sees_and_changes_nothing(
    endpoint: str, rest: Gateway, key: str, theirs: tuple[Account, Json], *, named: bool
) -> None:
    them, secret = theirs
    method, path, body = endpoints(secret)[endpoint]
    before = get(them.controlplane, "accountsecrets", "-n", them.name)["items"]
    with rest.client(key, them.name if named else None) as api:
        answer = api.request(method, path, json=body)
        if endpoint == "create" and not named:
            api.post("/v1/secrets/MINE_NOW/delete")
    assert get(them.controlplane, "accountsecrets", "-n", them.name)["items"] == before
    if named:
        error_message(answer, 403, "Forbidden")
    elif endpoint in {"create", "list", "list after"}:  # these use the caller's own account
        assert (answer.status_code, "THEIRS" in answer.text) == (200, False)
    else:
        error_message(answer, 404, "NotFound")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_viewer_can_read_but_not_change_secrets(
    endpoint: str, controlplane: ControlPlane, rest: Gateway, theirs: tuple[Account, Json]
) -> None:
    them, secret = theirs
    method, path, body = endpoints(secret)[endpoint]
    before = get(controlplane, "accountsecrets", "-n", them.name)["items"]
    with rest.client(token(controlplane, them.name, "viewer")) as api:
        answer = api.request(method, path, json=body)
    if endpoint in READS:
        assert answer.status_code == 200
    else:
        assert "devbox-secrets-edit" in error_message(answer, 403, "Forbidden")
    assert get(controlplane, "accountsecrets", "-n", them.name)["items"] == before


def test_a_user_of_several_accounts_selects_one_with_a_header(
    controlplane: ControlPlane, rest: Gateway, tenant: Account, key: str
) -> None:
    other = new_account(controlplane)
    bind(controlplane, other, f"{tenant.name}:editor", "edit")
    with rest.client(key, other) as api:
        until("the binding takes effect", lambda: api.get("/v1/secrets").status_code == 200)
        create(api, "ELSEWHERE")
    with rest.client(key) as api:
        error_message(api.get("/v1/secrets/ELSEWHERE"), 404, "NotFound")
    with rest.client(key, "No Account") as api:
        assert "X-Devbox-Secrets-Account" in error_message(api.get("/v1/secrets"), 400, "BadRequest")


@pytest.fixture
def closed(controlplane: ControlPlane) -> Iterator[str]:
    """An account in which a policy denies new AccountSecrets."""
    name = new_account(controlplane)
    policy = json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": deny_policy("devbox-secrets.dev", "accountsecrets")}
    )
    controlplane.kubectl("create", "-f", "-", input=policy)
    controlplane.kubectl("label", "namespace", name, "closed=accountsecrets")
    yield name
    controlplane.kubectl("delete", "-f", "-", input=policy)


def test_a_denial_by_a_cluster_policy_gets_422_without_the_policys_message(
    controlplane: ControlPlane, rest: Gateway, closed: str
) -> None:
    with rest.client(token(controlplane, closed)) as api:

        def refused() -> httpx.Response | None:
            answer = api.post("/v1/secrets", json={"name": "A", "value": CANARY})
            api.post("/v1/secrets/A/delete")
            return None if answer.status_code == 200 else answer

        answer = until("the policy takes effect", refused)
    assert answer is not None
    assert "policies" in error_message(answer, 422, "UnprocessableEntity")
