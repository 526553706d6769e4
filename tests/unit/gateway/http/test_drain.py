"""A server that shuts down finishes its HTTP/2 requests before it sends GOAWAY, and starts no others."""

import asyncio
from unittest.mock import Mock

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from devbox_secrets.gateway.http.drain import Drain


class Endpoint:
    """Responds once `may_respond` is set."""

    def __init__(self) -> None:
        self.started = 0
        self.may_respond = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started += 1
        await self.may_respond.wait()
        await PlainTextResponse("done")(scope, receive, send)


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def drain(endpoint: Endpoint) -> Drain:
    return Drain(endpoint)


@pytest.fixture
def shutdown() -> Mock:
    return Mock()


async def request(drain: Drain, version: str = "2") -> tuple[int, dict[bytes, bytes]]:
    """Send a request; return its response's status and headers."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    await drain({"type": "http", "method": "GET", "http_version": version, "headers": []}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])


async def begin(drain: Drain, endpoint: Endpoint, version: str = "2") -> asyncio.Task[tuple[int, dict[bytes, bytes]]]:
    it, before = asyncio.create_task(request(drain, version)), endpoint.started
    await asyncio.sleep(0)
    assert endpoint.started == before + 1
    return it


async def test_a_request_in_progress_is_finished_before_the_shutdown(
    drain: Drain, endpoint: Endpoint, shutdown: Mock
) -> None:
    async with asyncio.timeout(5):
        first = await begin(drain, endpoint)
        end = asyncio.create_task(drain.end(shutdown, 60))
        await asyncio.sleep(0.2)
        shutdown.assert_not_called()
        endpoint.may_respond.set()
        assert (await first)[0] == 200
        shutdown.assert_not_called()
        await end
    shutdown.assert_called_once_with()


async def test_a_request_during_the_drain_is_rejected_after_the_shutdown(
    drain: Drain, endpoint: Endpoint, shutdown: Mock
) -> None:
    async with asyncio.timeout(5):
        first = await begin(drain, endpoint)
        end = asyncio.create_task(drain.end(shutdown, 60))
        await asyncio.sleep(0)
        late = asyncio.create_task(request(drain))
        endpoint.may_respond.set()
        await first
        assert not late.done()
        status, headers = await late
        shutdown.assert_called_once_with()
        await end
    assert (status, headers[b"retry-after-ms"]) == (503, b"100")
    assert endpoint.started == 1


async def test_a_request_that_never_ends_is_waited_for_until_the_timeout(
    drain: Drain, endpoint: Endpoint, shutdown: Mock
) -> None:
    async with asyncio.timeout(5):
        first = await begin(drain, endpoint)
        await drain.end(shutdown, 0.05)
        shutdown.assert_called_once_with()
        endpoint.may_respond.set()
        await first


async def test_http_1_requests_are_neither_waited_for_nor_rejected(
    drain: Drain, endpoint: Endpoint, shutdown: Mock
) -> None:
    async with asyncio.timeout(5):
        first = await begin(drain, endpoint, "1.1")
        await drain.end(shutdown, 60)
        shutdown.assert_called_once_with()
        late = await begin(drain, endpoint, "1.1")
        endpoint.may_respond.set()
        assert [(await each)[0] for each in (first, late)] == [200, 200]
