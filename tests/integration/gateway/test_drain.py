"""The end of a gateway's process: whoever is connected is sent elsewhere, and nobody's request is lost."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from h2.connection import H2Connection
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, SettingsFrame

from harness.controlplane import ControlPlane
from integration.support.chart import until
from integration.support.gateway import Gateway, gateway


@pytest.fixture
def leaving(controlplane: ControlPlane, rest: Gateway) -> Iterator[Gateway]:
    with gateway(controlplane, drain_seconds="2") as it:
        yield it


def tell(it: Gateway) -> None:
    os.kill(it.component.pid, signal.SIGTERM)
    until("it knows", lambda: "told to stop" in it.log)


def test_a_connection_of_http_1_gets_one_more_answer_which_says_so(leaving: Gateway) -> None:
    with leaving.client("none") as api:
        before = api.get("/healthz")
        tell(leaving)
        last, of_a_new_one = api.get("/healthz"), api.get("/healthz")
    assert "connection" not in before.headers
    assert last.headers["connection"] == of_a_new_one.headers["connection"] == "close"


def test_a_connection_of_http_2_is_told_with_its_next_answer(leaving: Gateway) -> None:
    with h2_connection(leaving) as (connection, frames, request, _):
        tell(leaving)
        connection.sendall(request)
        until_frame(frames, HeadersFrame)
        until_frame(frames, GoAwayFrame)


def test_one_without_requests_is_told_in_the_end_and_what_is_on_its_way_is_answered(leaving: Gateway) -> None:
    with h2_connection(leaving) as (connection, frames, request, farewell):
        tell(leaving)
        until_frame(frames, GoAwayFrame)
        # Sent before the client could know; and then it knows, and says so, as Node.js does.
        connection.sendall(request + farewell)
        until_frame(frames, HeadersFrame)
        until_frame(frames, DataFrame)


@contextmanager
def h2_connection(it: Gateway) -> Iterator[tuple[socket.socket, Iterator[Frame], bytes, bytes]]:
    """Open a connection; give it, the frames that arrive, and what a client sends to ask and to go."""
    client, url = H2Connection(), httpx.URL(it.url)
    client.initiate_connection()
    opening = client.data_to_send()
    path = [(":method", "GET"), (":path", "/healthz"), (":scheme", "http"), (":authority", url.host)]
    client.send_headers(client.get_next_available_stream_id(), path, end_stream=True)
    request = client.data_to_send()
    client.close_connection()
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(opening)
        frames = received(connection)
        until_frame(frames, SettingsFrame)
        yield connection, frames, request, client.data_to_send()


def received(connection: socket.socket) -> Iterator[Frame]:
    """Give each frame that arrives."""
    with connection.makefile("rb") as file:
        while head := file.read(9):
            frame, length = Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(file.read(length)))
            yield frame


def until_frame(frames: Iterator[Frame], kind: type[Frame]) -> None:
    assert any(isinstance(it, kind) for it in frames), f"no {kind.__name__} came"


def test_then_it_ends(leaving: Gateway) -> None:
    tell(leaving)
    assert httpx.get(f"{leaving.url}/readyz", trust_env=False).is_success
    until("it ended", lambda: "stopped" in leaving.log)
