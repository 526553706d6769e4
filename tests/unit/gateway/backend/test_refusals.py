"""When a 403 of the API server is returned to the caller, and when the request should be retried instead."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from devbox_secrets.errors import APIError, Conflict, Forbidden, NotReady
from devbox_secrets.gateway.backend import refusals
from devbox_secrets.gateway.backend.refusals import ConfirmingUpstream
from devbox_secrets.serving.tls import Authority

NO_TLS = cast("Authority", SimpleNamespace(context=True))
READY = "/readyz"
REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@dataclass
class APIServer:
    """Responds to each path with its next status, and then with its last one."""

    statuses: dict[str, list[int]]
    requested: list[str] = field(default_factory=list)
    connections: list[object] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.requested.append(request.path)
        self.connections.append(request.transport)
        if request.path == READY:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            await asyncio.sleep(0.01)  # long enough for all concurrent requests to arrive
            self.at_once -= 1
        left = self.statuses[request.path]
        return web.json_response({}, status=left.pop(0) if len(left) > 1 else left[0])


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "SETTLING_SECONDS", 0)


@pytest.fixture
def server() -> APIServer:
    return APIServer({"/a": [403], READY: [200], REVIEW: [201]})


@pytest.fixture
async def upstream(server: APIServer) -> AsyncIterator[ConfirmingUpstream]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    async with TestServer(app) as it, ConfirmingUpstream.connect(str(it.make_url("/")), NO_TLS, 3) as upstream:
        yield upstream


async def outcome(upstream: ConfirmingUpstream, token: str = "t") -> type[APIError] | None:  # noqa: S107 - not a password
    try:
        await upstream.request(token, "POST", "/a", body={})
    except APIError as error:
        return type(error)
    return None


#: The statuses of the request, of /readyz and of the review; the resulting error.
OUTCOMES: dict[str, tuple[list[int], list[int], list[int], type[APIError] | None]] = {
    "it's allowed": ([200], [500], [500], None),
    "it's rejected by an API server that is ready": ([403], [200], [500], Forbidden),
    "it's rejected, and the API server becomes ready": ([403, 200], [200], [500], None),
    "it's rejected, and then fails in another way": ([403, 409], [200], [500], Conflict),
    "the API server isn't ready": ([403], [500], [500], NotReady),
    "the API server shuts down": ([403], [503], [500], NotReady),
    "no roles are loaded yet": ([403], [403], [403], NotReady),
    "the token is no longer valid": ([403], [401], [401], NotReady),
    "nobody may read /readyz, but Kubernetes' other roles are loaded": ([403], [403], [201], Forbidden),
    "the same, and the caller's roles are loaded a moment later": ([403, 200], [403], [201], None),
}


@pytest.mark.parametrize("what", OUTCOMES)
async def test_the_outcome_of_a_request(what: str, server: APIServer, upstream: ConfirmingUpstream) -> None:
    request, ready, review, expected = OUTCOMES[what]
    server.statuses = {"/a": request, READY: ready, REVIEW: review}
    assert await outcome(upstream) == expected


async def test_an_allowed_request_causes_no_other_request(server: APIServer, upstream: ConfirmingUpstream) -> None:
    server.statuses["/a"] = [200]
    await outcome(upstream)
    assert server.requested == ["/a"]


async def test_a_rejection_is_confirmed_on_one_connection_and_so_by_one_api_server(
    server: APIServer, upstream: ConfirmingUpstream
) -> None:
    server.statuses[READY] = [403]
    await outcome(upstream)
    assert server.requested == ["/a", READY, REVIEW, "/a"]
    assert server.connections[0] not in server.connections[1:]
    assert len(set(server.connections[1:])) == 1


@pytest.mark.parametrize(("ready", "expected"), [(200, Forbidden), (500, NotReady)])
async def test_for_a_moment_an_outcome_is_reused_for_all_rejections_of_its_token(
    ready: int,
    expected: type[APIError],
    server: APIServer,
    upstream: ConfirmingUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.statuses[READY] = [ready]
    for _ in range(20):
        assert await outcome(upstream) == expected
    assert server.requested.count(READY) == 1
    assert await outcome(upstream, "another") == expected
    assert server.requested.count(READY) == 2
    monkeypatch.setattr(refusals, "REMEMBERED_SECONDS", 0)
    for _ in range(2):
        await outcome(upstream, "a third")
    assert server.requested.count(READY) == 4


async def test_at_most_16_rejections_are_confirmed_at_once(server: APIServer, upstream: ConfirmingUpstream) -> None:
    assert await asyncio.gather(*(outcome(upstream, f"t{number}") for number in range(50))) == [Forbidden] * 50
    assert server.requested.count(READY) == 50
    assert server.most_at_once == 16
