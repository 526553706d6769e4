"""Reading request bodies: the limits of size and time for each, and of memory for all."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from devbox_secrets.gateway.contract.errors import ErrorResponse
from devbox_secrets.gateway.contract.requests import MAX_BYTES
from devbox_secrets.gateway.http.receive import BodyReader

LONG = b"x" * 100_000
#: Enough for two long bodies.
MOST_BYTES = 200_000


class Body:
    """A request's body, whose parts arrive when the test sends them."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = asyncio.Queue[Message]()
        for part in parts:
            self.send(part)
        self.request = Request({"type": "http", "headers": [], "method": "POST"}, self.parts.get)

    def send(self, part: bytes, *, more: bool = True) -> None:
        self.parts.put_nowait({"type": "http.request", "body": part, "more_body": more})

    def end(self) -> None:
        self.send(b"", more=False)

    def disconnect(self) -> None:
        self.parts.put_nowait({"type": "http.disconnect"})


@pytest.fixture
def reader() -> BodyReader:
    return BodyReader(5, MOST_BYTES)


@pytest.fixture
async def reading(reader: BodyReader) -> AsyncIterator[list[Body]]:
    """Yield two long bodies that are being read."""
    bodies = [Body(LONG), Body(LONG)]
    tasks = [asyncio.create_task(reader.read(body.request)) for body in bodies]
    await asyncio.sleep(0)
    yield bodies
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def status_of(reader: BodyReader, *parts: bytes) -> HTTPStatus:
    body = Body(*parts)
    body.end()
    try:
        await reader.read(body.request)
    except ErrorResponse as error:
        return error.status
    return HTTPStatus.OK


async def test_a_body_is_the_sum_of_its_parts(reader: BodyReader) -> None:
    body = Body(b"a", b"", b"b")
    body.end()
    assert await reader.read(body.request) == b"ab"


async def test_a_body_that_is_too_long_is_a_bad_request(reader: BodyReader) -> None:
    large = BodyReader(5)
    assert await status_of(large, b"x" * MAX_BYTES) == HTTPStatus.OK
    assert await status_of(large, b"x" * MAX_BYTES, b"x") == HTTPStatus.BAD_REQUEST
    assert await status_of(reader, b"x" * (MAX_BYTES + 1)) == HTTPStatus.BAD_REQUEST


async def test_a_body_that_does_not_arrive_in_time_is_a_timeout() -> None:
    with pytest.raises(ErrorResponse, match=r"0\.01 seconds") as found:
        await BodyReader(0.01).read(Body(b"{").request)
    assert found.value.status == HTTPStatus.REQUEST_TIMEOUT


async def test_too_many_long_bodies_are_rejected_and_short_ones_are_read(
    reader: BodyReader, reading: list[Body]
) -> None:
    assert await status_of(reader, LONG) == HTTPStatus.SERVICE_UNAVAILABLE
    assert await status_of(reader, b"x" * 10_000) == HTTPStatus.OK
    reading[0].end()
    await asyncio.sleep(0)
    assert await status_of(reader, LONG) == HTTPStatus.OK


async def test_the_memory_of_a_body_is_free_when_its_client_disconnects(reader: BodyReader) -> None:
    for _ in range(10):
        body = Body(LONG)
        body.disconnect()
        with pytest.raises(ClientDisconnect):
            await reader.read(body.request)
    assert await status_of(reader, LONG) == HTTPStatus.OK
