"""One request to the API server over HTTP: what is sent, and which error each failure causes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from devbox_secrets.errors import (
    APIError,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    RequestTimeout,
    ServerError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from devbox_secrets.gateway import metrics
from devbox_secrets.gateway.backend.upstream import Body, Upstream
from devbox_secrets.serving.tls import Authority

PATH = "/apis/devbox-secrets.dev/v1beta1/namespaces/canary/accountsecrets/canary"
NO_TLS = cast("Authority", SimpleNamespace(context=True))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[Upstream]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return a function that starts a server with a handler, and connects to it."""
    closing: list[Any] = []

    async def start(handler: Handler) -> Upstream:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        server = TestServer(app)
        await server.start_server()
        connection = Upstream.connect(str(server.make_url("/")), NO_TLS, 1)  # long enough for a busy machine
        closing.append((connection, server))
        return await connection.__aenter__()

    yield start
    for connection, server in closing:
        await connection.__aexit__(None, None, None)
        await server.close()


def counted(code: str) -> float:
    return metrics.REGISTRY.get_sample_value("devbox_secrets_gateway_upstream_requests_total", {"code": code}) or 0


async def test_a_request_carries_the_caller_s_token_and_its_body(serve: Serve) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "request": f"{request.method} {request.path_qs}",
                "authorization": request.headers["Authorization"],
                "type": request.content_type,
                "body": await request.json(),
            }
        )

    upstream, before = await serve(echo), counted("2xx")
    headers = {"Content-Type": "application/merge-patch+json"}
    assert await upstream.request("t", "PATCH", "/a", query={"b": "c"}, body={"d": 1}, headers=headers) == {
        "request": "PATCH /a?b=c",
        "authorization": "Bearer t",
        "type": "application/merge-patch+json",
        "body": {"d": 1},
    }
    assert counted("2xx") == before + 1


async def test_cookies_of_one_caller_are_not_sent_with_another_s_request(serve: Serve) -> None:
    seen = []

    async def set_cookie(request: web.Request) -> web.Response:
        seen.append(dict(request.cookies))
        response = web.json_response({})
        response.set_cookie("session", "one")
        return response

    upstream = await serve(set_cookie)
    await upstream.request("one", "GET", "/")
    await upstream.request("two", "GET", "/")
    assert seen == [{}, {}]


STATUSES: list[tuple[int, type[APIError]]] = [
    (302, ServerError),
    (400, BadRequest),
    (401, Unauthorized),
    (403, Forbidden),
    (404, NotFound),
    (409, Conflict),
    (410, Expired),
    (413, TooLarge),
    (422, Invalid),
    (500, ServerError),
    (503, ServerError),
]


@pytest.mark.parametrize(("status", "error"), STATUSES)
async def test_each_status_causes_an_error_that_repeats_nothing(
    status: int, error: type[APIError], serve: Serve
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"message": "canary"}, status=status, headers={"Location": "/elsewhere"})

    upstream, code = await serve(refuse), f"{status // 100}xx"
    before = counted(code)
    with pytest.raises(APIError) as caught:
        await upstream.request("t", "GET", PATH)
    assert type(caught.value) is error
    assert str(caught.value) == f"GET /apis/devbox-secrets.dev/v1beta1: {status}"
    assert counted(code) == before + 1


@pytest.mark.parametrize(("header", "seconds"), [("3", 3), ("soon", 1), ("", 1), ("-1", 1), ("99999", 1)])
async def test_429_says_when_to_retry(header: str, seconds: int, serve: Serve) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({}, status=429, headers={"Retry-After": header})

    upstream, before = await serve(refuse), counted("429")
    with pytest.raises(TooManyRequests) as caught:
        await upstream.request("t", "GET", "/")
    assert caught.value.retry_after == seconds
    assert counted("429") == before + 1


async def test_a_response_that_takes_too_long_is_a_timeout(serve: Serve) -> None:
    async def sleep(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.json_response({})

    upstream, before = await serve(sleep), counted("timeout")
    with pytest.raises(RequestTimeout, match="no response within"):
        await upstream.request("t", "GET", "/")
    assert counted("timeout") == before + 1


async def test_without_a_server_the_error_is_unreachable() -> None:
    before = counted("error")
    async with Upstream.connect(f"http://127.0.0.1:{unused_port()}", NO_TLS, 0.3) as upstream:
        with pytest.raises(Unreachable, match="GET /: ClientConnectorError"):
            await upstream.request("t", "GET", "/")
    assert counted("error") == before + 1


async def test_a_response_that_is_not_json_is_a_server_error(serve: Serve) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>canary")

    upstream = await serve(page)
    with pytest.raises(ServerError) as caught:
        await upstream.request("t", "GET", "/")
    assert "canary" not in str(caught.value)


# --- Watches


def events(*parts: bytes) -> Handler:
    async def stream(request: web.Request) -> web.StreamResponse:
        assert request.query["watch"] == "true"
        response = web.StreamResponse()
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(0)
        return response

    return stream


def event(kind: str, **body: object) -> bytes:
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


def until_two(_: str, body: Body) -> str | None:
    return "two" if body.get("number") == 2 else None


async def test_a_watch_ends_with_the_expected_event(serve: Serve) -> None:
    whole = event("ADDED", number=1) + event("MODIFIED", number=2) + event("MODIFIED", number=3)
    upstream = await serve(events(whole[:20], whole[20:70], whole[70:]))
    assert await upstream.watch("t", "/", {}, until_two) == "two"


async def test_a_watch_that_ends_earlier_returns_nothing(serve: Serve) -> None:
    upstream = await serve(events(event("ADDED", number=1)))
    assert await upstream.watch("t", "/", {}, until_two) is None


async def test_an_error_in_a_watch_is_raised(serve: Serve) -> None:
    upstream = await serve(events(event("ERROR", code=410, message="canary")))
    with pytest.raises(Expired, match="watch /: 410"):
        await upstream.watch("t", "/", {}, until_two)
