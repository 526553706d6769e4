"""Requests to an API server on the loopback: responses, errors, and what errors never repeat."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from devbox_secrets.errors import (
    APIError,
    ConfigError,
    NotLeader,
    RequestTimeout,
    ServerError,
    Unreachable,
)
from devbox_secrets.kube import connection
from devbox_secrets.kube.client import APPLY, Client, Response
from devbox_secrets.kube.config import ClientConfig
from devbox_secrets.kube.connection import Connection, Credentials, Login
from devbox_secrets.kube.kubeconfig import Target
from devbox_secrets.kube.kubeconfig_file import Cluster, User

CANARY = "canary-7d21"


class ApiServer:
    """Responds to each request with the next response; records the requests."""

    def __init__(self) -> None:
        self.responses: list[web.Response] = []
        self.requests: list[tuple[web.Request, bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def answer(self, body: object, status: int = 200) -> None:
        self.responses.append(web.json_response(body, status=status))

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((request, await request.read()))
        await self.gate.wait()
        return self.responses.pop(0)


@pytest.fixture
async def server() -> AsyncIterator[tuple[ApiServer, str]]:
    api = ApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    async with TestServer(app, host="127.0.0.1") as listening:
        yield api, f"http://127.0.0.1:{listening.port}"


@pytest.fixture
def api(server: tuple[ApiServer, str]) -> ApiServer:
    return server[0]


@pytest.fixture
async def client(server: tuple[ApiServer, str]) -> AsyncIterator[Client]:
    async with connected(server[1]) as opened:
        yield Client(opened)


def connected(server: str) -> AbstractAsyncContextManager[Connection]:
    return Connection.open(Target("context dev", Cluster(server=server), User(token="token")))  # noqa: S106 - only for tests


def refusal(status: int, **fields: object) -> dict[str, Any]:
    return {"kind": "Status", "code": status, "reason": "Reason", "message": f"no: {CANARY}", **fields}


async def test_a_response_has_the_status_and_the_body(api: ApiServer, client: Client) -> None:
    api.answer({"a": 1}, 201)
    assert await client.send("PATCH", "/x", body={}) == Response(201, {"a": 1})


async def test_a_request_has_its_arguments_and_the_caller_s_credentials(api: ApiServer, client: Client) -> None:
    api.answer({})
    await client.request("PATCH", "/x/y", query={"a": "1 2", "b": ""}, body={"c": 3}, media_type=APPLY)
    ((request, body),) = api.requests
    assert (request.method, request.path_qs) == ("PATCH", "/x/y?a=1+2")
    assert request.headers["Content-Type"] == APPLY
    assert request.headers["Accept"] == "application/json"
    assert request.headers["Authorization"] == "Bearer token"
    assert json.loads(body) == {"c": 3}


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequest"), (401, "Unauthorized"), (403, "Forbidden"), (404, "NotFound"), (409, "Conflict"),
        (410, "Expired"), (413, "TooLarge"), (422, "Invalid"), (429, "TooManyRequests"), (500, "ServerError"),
        (502, "ServerError"), (418, "ServerError"),
    ],
)  # fmt: skip
async def test_each_status_code_has_its_own_error(status: int, name: str, api: ApiServer, client: Client) -> None:
    api.answer(refusal(status), status)
    with pytest.raises(APIError) as caught:
        await client.request("GET", "/x")
    assert type(caught.value).__name__ == name
    assert str(caught.value) == f"GET /x: {status} no: {CANARY}"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_the_error_of_a_write_does_not_repeat_the_server_s_message(
    method: str, api: ApiServer, client: Client
) -> None:
    api.answer(refusal(422, details={"causes": [{"message": CANARY}]}), 422)
    with pytest.raises(APIError) as caught:
        await client.request(method, "/x", body={"data": CANARY})
    assert str(caught.value) == f"{method} /x: 422 Reason"
    assert caught.value.details == {}


async def test_the_error_of_a_write_without_a_value_can_quote_the_server_s_message(
    api: ApiServer, client: Client
) -> None:
    api.answer(refusal(409, details={"kind": "x"}), 409)
    with pytest.raises(APIError) as caught:
        await client.request("PATCH", "/x", body={}, quote=True)
    assert str(caught.value) == f"PATCH /x: 409 no: {CANARY}"
    assert caught.value.details == {"kind": "x"}


async def test_the_error_of_a_read_has_its_details(api: ApiServer, client: Client) -> None:
    api.answer(refusal(404, details={"kind": "pods", "name": "a"}), 404)
    with pytest.raises(APIError) as caught:
        await client.request("GET", "/x")
    assert caught.value.details == {"kind": "pods", "name": "a"}


@pytest.mark.parametrize("body", [b"", b"<html>canary-7d21</html>", b"[]", b'"canary-7d21"', b"{}", b"null", b"\xff"])
@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_an_error_without_a_reason_says_so(method: str, body: bytes, api: ApiServer, client: Client) -> None:
    api.responses.append(web.Response(status=503, body=body))
    with pytest.raises(ServerError) as caught:
        await client.request(method, "/x", body={})
    assert str(caught.value) == f"{method} /x: 503 no reason given"


async def test_a_proxy_s_page_is_an_error_that_does_not_repeat_it(api: ApiServer, client: Client) -> None:
    api.responses.append(web.Response(text=f"<html>{CANARY}</html>", content_type="text/html"))
    with pytest.raises(ServerError) as caught:
        await client.request("GET", "/x")
    assert str(caught.value) == "GET /x: the response isn't from an API server, but perhaps from a proxy"
    assert caught.value.__suppress_context__


async def test_a_response_that_does_not_arrive_in_time_is_a_timeout(
    api: ApiServer, server: tuple[ApiServer, str], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_TIMEOUT_SECONDS", 0.05)
    api.answer({})
    api.gate.clear()
    with pytest.raises(RequestTimeout) as caught:
        await client.request("GET", "/x")
    api.gate.set()
    assert str(caught.value) == f"cannot reach {server[1]} (context dev): no response within 0.05 seconds"


async def test_a_connection_that_breaks_is_reported_as_unreachable(
    api: ApiServer, server: tuple[ApiServer, str], client: Client
) -> None:
    class Broken(web.Response):
        async def prepare(self, request: web.BaseRequest) -> None:
            assert request.transport is not None
            request.transport.abort()

    api.responses.append(Broken())
    with pytest.raises(Unreachable) as caught:
        await client.request("POST", "/x", body={})
    assert str(caught.value) == (
        f"cannot reach {server[1]} (context dev): the connection failed (ServerDisconnectedError)"
    )


async def test_a_client_that_may_not_write_only_reads(api: ApiServer, client: Client) -> None:
    fenced = client.fenced(lambda: False)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        with pytest.raises(NotLeader, match=f"{method} /x: not sent"):
            await fenced.request(method, "/x", body={})
    api.answer({"a": 1})
    assert await fenced.request("GET", "/x") == {"a": 1}
    assert [request.method for request, _ in api.requests] == ["GET"]


async def test_a_fence_is_checked_at_the_last_moment(
    api: ApiServer, server: tuple[ApiServer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = True

    async def slow_token(_: Credentials) -> Login:
        # The Lease may be lost while the credentials are fetched.
        nonlocal may_write
        may_write = False
        return Login([], ssl.create_default_context())

    async with connected(server[1]) as opened:
        monkeypatch.setattr(Credentials, "login", slow_token)
        with pytest.raises(NotLeader):
            await Client(opened).fenced(lambda: may_write).request("PATCH", "/x", body={})
    assert api.requests == []


async def test_a_client_that_may_write_writes(api: ApiServer, client: Client) -> None:
    api.answer({"a": 1})
    assert await client.fenced(lambda: True).request("PATCH", "/x", body={}) == {"a": 1}


def page(*items: int, more: str | None = None) -> dict[str, Any]:
    metadata = {"resourceVersion": str(max(items, default=1)), **({"continue": more} if more else {})}
    return {"metadata": metadata, "items": [{"number": item} for item in items]}


async def test_a_list_is_read_page_by_page(api: ApiServer, client: Client) -> None:
    for each in (page(1, 2, more="t 1"), page(3, more="t2"), page()):
        api.answer(each)
    pages = [found["items"] async for found in client.pages("/x", {"labelSelector": "a=b"}, limit=2)]
    assert pages == [[{"number": 1}, {"number": 2}], [{"number": 3}], []]
    queries = [dict(request.query) for request, _ in api.requests]
    first = {"labelSelector": "a=b", "limit": "2"}
    assert queries == [first, {**first, "continue": "t 1"}, {**first, "continue": "t2"}]


def large(*items: int, more: str | None = None, size: int) -> dict[str, Any]:
    found = page(*items, more=more)
    found["items"] = [{**item, "text": "x" * size} for item in found["items"]]
    return found


async def test_the_number_of_objects_in_a_page_depends_on_their_size(api: ApiServer, client: Client) -> None:
    api.answer(large(1, 2, 3, 4, more="t1", size=1_000_000))
    api.answer(large(5, 6, more="t2", size=10))
    api.answer(page(7))
    numbers = [item["number"] async for found in client.pages("/x", {}, limit=8) for item in found["items"]]
    assert numbers == [1, 2, 3, 4, 5, 6, 7]
    assert [request.query["limit"] for request, _ in api.requests] == ["8", "4", "8"]
    assert client.fewest_objects == 4


async def test_a_page_that_is_too_large_is_aborted_and_requested_again(api: ApiServer, client: Client) -> None:
    api.answer(page(1, more="t1"))
    api.answer(large(*range(2, 22), more="never read", size=1_000_000))
    api.answer(large(2, 3, more="t2", size=1_000_000))
    api.answer(page(4))
    numbers = [item["number"] async for found in client.pages("/x", {}, limit=40) for item in found["items"]]
    assert numbers == [1, 2, 3, 4]
    queries = [(request.query["limit"], request.query.get("continue")) for request, _ in api.requests]
    assert queries == [("40", None), ("40", "t1"), ("10", "t1"), ("4", "t2")]


async def test_a_single_object_of_any_size_is_read(api: ApiServer, client: Client) -> None:
    for _ in range(2):
        api.answer(large(1, size=20_000_000))
    assert [len(found["items"]) async for found in client.pages("/x", {}, limit=2)] == [1]
    assert [request.query["limit"] for request, _ in api.requests] == ["2", "1"]


async def test_a_list_without_items_is_empty(api: ApiServer, client: Client) -> None:
    api.answer({**page(), "items": None})
    assert [found["items"] async for found in client.pages("/x", {})] == [[]]


async def test_only_the_metadata_of_objects_can_be_requested(api: ApiServer, client: Client) -> None:
    api.answer(page(1))
    assert [found async for found in client.pages("/x", {}, metadata_only=True)]
    ((request, _),) = api.requests
    assert request.headers["Accept"] == "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


async def test_a_whole_list_is_returned_parsed_and_with_its_version(api: ApiServer, client: Client) -> None:
    api.answer(page(1, 2, more="t"))
    api.answer(page(3))
    assert await client.list_all("/x", lambda body: body["number"] * 10, "metadata.name=a") == ([10, 20, 30], 3)
    assert {request.query["fieldSelector"] for request, _ in api.requests} == {"metadata.name=a"}


async def test_a_list_that_expires_between_two_pages_is_an_error(api: ApiServer, client: Client) -> None:
    api.answer(page(1, more="t"))
    api.answer(refusal(410), 410)
    with pytest.raises(APIError, match="410"):
        await client.list_all("/x", dict)


async def test_a_response_does_not_print_its_body() -> None:
    assert CANARY not in repr(Response(200, {"data": CANARY}))


async def test_a_client_connects_with_a_kubeconfig(
    api: ApiServer, server: tuple[ApiServer, str], tmp_path: Path
) -> None:
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"{server[1]}/base/"}}],
        "users": [{"name": "u", "user": {"as": "jane", "token": "not sent in cleartext"}}],
    }
    (kubeconfig := tmp_path / "config").write_text(yaml.safe_dump(config))
    api.answer({"a": 1})
    async with Client.connect(ClientConfig(kubeconfig)) as client:
        assert await client.request("GET", "/x") == {"a": 1}
    ((request, _),) = api.requests
    assert (request.path, request.headers["Impersonate-User"]) == ("/base/x", "jane")
    assert "Authorization" not in request.headers


async def test_a_redirect_is_not_followed(api: ApiServer, client: Client) -> None:
    api.responses.append(web.Response(status=302, headers={"Location": "https://login.example"}))
    with pytest.raises(ServerError, match="perhaps from a proxy"):
        await client.request("GET", "/x")


async def test_connecting_without_a_configuration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        async with Client.connect(ClientConfig(tmp_path / "missing")):
            pytest.fail("connected to nothing")
