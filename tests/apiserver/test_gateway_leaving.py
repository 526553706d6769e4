"""The end of a gateway's process: whoever is connected is sent elsewhere, and nobody's request is lost."""

import os
import signal
import socket
from collections.abc import Iterator

import httpx
import pytest
from h2.connection import H2Connection
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, SettingsFrame

from apiserver.chart import until
from apiserver.gateway import Gateway, gateway
from cluster.controlplane import ControlPlane


@pytest.fixture
def leaving(controlplane: ControlPlane, rest: Gateway) -> Iterator[Gateway]:
    with gateway(controlplane, leave_seconds="2") as it:
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
    with leaving.client("none", http2=True) as api:
        tell(leaving)
        answers = [api.get("/healthz") for _ in range(3)]
    assert len({it.extensions["network_stream"] for it in answers}) == 3


def test_a_connection_of_http_2_is_told_in_the_end_and_what_is_on_its_way_is_answered(leaving: Gateway) -> None:
    client, url = H2Connection(), httpx.URL(leaving.url)
    client.initiate_connection()
    asked = client.get_next_available_stream_id()
    opening = client.data_to_send()
    authority = f"{url.host}:{url.port}"
    path = [(":method", "GET"), (":path", "/healthz"), (":scheme", "http"), (":authority", authority)]
    client.send_headers(asked, path, end_stream=True)
    request = client.data_to_send()
    with socket.create_connection((url.host, url.port), timeout=10) as connection:
        connection.sendall(opening)
        frames = received(connection)
        assert isinstance(next(frames), SettingsFrame)
        tell(leaving)
        until_frame(frames, GoAwayFrame, 0)
        connection.sendall(request)  # sent before the client could know
        until_frame(frames, HeadersFrame, asked)
        until_frame(frames, DataFrame, asked)


def received(connection: socket.socket) -> Iterator[Frame]:
    """Give each frame that arrives."""
    with connection.makefile("rb") as file:
        while head := file.read(9):
            frame, length = Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(file.read(length)))
            yield frame


def until_frame(frames: Iterator[Frame], kind: type[Frame], stream_id: int) -> None:
    assert any(isinstance(it, kind) and it.stream_id == stream_id for it in frames), f"no {kind.__name__} came"


def test_then_it_ends(leaving: Gateway) -> None:
    tell(leaving)
    assert httpx.get(f"{leaving.url}/readyz", trust_env=False).is_success
    until("it ended", lambda: "stopped" in leaving.log)
