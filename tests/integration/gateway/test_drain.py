"""The end of a gateway's process: no request is lost, and nothing is accepted that would not be served."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
from h2.connection import H2Connection
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, SettingsFrame

from devbox_secrets.api.names import account_secrets_path
from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import until
from integration.support.gateway import Gateway, gateway
from runloop import typescript

#: A request whose body is yet to come.
HEAD = (
    "POST /v1/secrets HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n"
    "Content-Length: {}\r\n\r\n"
)
BODY = b'{"name": "LAST", "value": "v"}'
IN_FLIGHT = "devbox_secrets_gateway_http_requests_in_flight"
#: A body for which the API server isn't asked: right after the CRD was installed it may answer 429.
DECLINED = b'{"name": "LAST"}'
#: It must end within 10 s.
MOST_SECONDS = 10


@pytest.fixture
def leaving(controlplane: ControlPlane, rest: Gateway) -> Iterator[Gateway]:
    with gateway(controlplane) as it:
        yield it


def tell(it: Gateway) -> None:
    os.kill(it.component.pid, signal.SIGTERM)
    until("it knows", lambda: "shutting down" in it.log)


def has_ended(it: Gateway) -> bool:
    return "stopped" in it.log


def test_a_request_in_progress_is_answered_and_is_its_connections_last(leaving: Gateway, key: str) -> None:
    with closing(socket.create_connection(leaving.address, timeout=20)) as connection:
        connection.sendall(HEAD.format(key, len(DECLINED)).encode())
        until("it is in progress", lambda: leaving.process.metric(IN_FLIGHT) == 1)
        tell(leaving)
        connection.sendall(DECLINED)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 400 ")
    until("it ended", lambda: has_ended(leaving))


def test_nothing_is_accepted_that_would_not_be_served(leaving: Gateway, key: str) -> None:
    with closing(socket.create_connection(leaving.address, timeout=20)) as holding:
        holding.sendall(HEAD.format(key, len(BODY)).encode())
        until("it is in progress", lambda: leaving.process.metric(IN_FLIGHT) == 1)
        tell(leaving)

        def is_refused() -> bool:
            try:
                socket.create_connection(leaving.address, timeout=20).close()
            except (ConnectionRefusedError, ConnectionResetError):  # that which waited is reset
                return True
            return False

        until("connections are refused", is_refused)
        assert not has_ended(leaving)


def test_a_request_that_does_not_end_is_ended_in_time(leaving: Gateway, key: str) -> None:
    with closing(socket.create_connection(leaving.address, timeout=20)) as endless:
        endless.sendall(HEAD.format(key, len(BODY)).encode())
        until("it is in progress", lambda: leaving.process.metric(IN_FLIGHT) == 1)
        started = time.monotonic()
        tell(leaving)
        until("it ended", lambda: has_ended(leaving))
    assert time.monotonic() - started < MOST_SECONDS


def test_a_request_over_http_2_that_does_not_end_is_ended_in_time(leaving: Gateway, key: str) -> None:
    with h2_connection(leaving, key) as (client, connection, _):
        begin(leaving, key, client, connection)
        started = time.monotonic()
        tell(leaving)
        until("it ended", lambda: has_ended(leaving))
    assert time.monotonic() - started < MOST_SECONDS


@pytest.mark.parametrize("head", [b"", b"GET /healthz HTTP/1.1\r\nHo"])
def test_a_connection_without_a_request_is_closed_at_once(leaving: Gateway, head: bytes) -> None:
    with closing(socket.create_connection(leaving.address, timeout=20)) as idle:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 200 ")
        idle.sendall(head)
        tell(leaving)
        assert idle.recv(65536) == b""
    until("it ended", lambda: has_ended(leaving))


def test_a_connection_of_http_2_is_told_and_what_is_in_progress_is_answered(leaving: Gateway, key: str) -> None:
    with h2_connection(leaving, key) as (client, connection, frames):
        stream = begin(leaving, key, client, connection)
        tell(leaving)
        until_frame(frames, GoAwayFrame)
        # As Node.js does when it is told.
        client.send_data(stream, b"{}", end_stream=True)
        client.close_connection()
        connection.sendall(client.data_to_send())
        until_frame(frames, HeadersFrame)
        until_frame(frames, DataFrame)
        list(frames)  # until it is closed
    until("it ended", lambda: has_ended(leaving))


def test_an_idle_connection_of_http_2_is_told_and_closed(leaving: Gateway, key: str) -> None:
    with h2_connection(leaving, key) as (_, _, frames):
        tell(leaving)
        until_frame(frames, GoAwayFrame)
        list(frames)  # until it is closed
    until("it ended", lambda: has_ended(leaving))


@pytest.mark.parametrize("http2", [False, True])
def test_requests_that_never_pause_are_all_answered_or_never_taken(
    leaving: Gateway, tenant: Account, key: str, *, http2: bool
) -> None:
    """Each creation that is done is answered: what isn't answered was never done."""
    made: list[str] = []
    unanswered: list[str] = []

    def keep_making(number: int) -> None:
        with leaving.client(key, http2=http2) as api:
            for count in range(100_000):
                name = f"S{number}_{count}_{http2}".upper()
                try:
                    answer = api.post("/v1/secrets", json={"name": name, "value": "v"})
                except httpx.TransportError:
                    unanswered.append(name)
                    return
                if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:  # and "try again"
                    unanswered.append(name)
                    return
                if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:  # the API server's, which was not done either
                    continue
                assert answer.status_code == 200, answer.text
                made.append(name)

    threads = [threading.Thread(target=keep_making, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    until("they are at it", lambda: len(made) > len(threads))
    tell(leaving)
    for each in threads:
        each.join()
    items = tenant.controlplane.request("GET", account_secrets_path(tenant.name))["items"]
    found = {each["spec"]["name"] for each in items}
    assert len(unanswered) == len(threads)
    assert not found & set(unanswered)
    assert set(made) <= found


def test_the_typescript_sdk_does_not_hang_when_it_comes_while_the_server_ends(
    leaving: Gateway, tenant: Account, key: str, tmp_path: Path
) -> None:
    program = typescript.installed(tmp_path)
    with h2_connection(leaving, key) as (client, connection, _):
        begin(leaving, key, client, connection)
        with program.start("create", "1", url=leaving.url, key=key) as process:
            tell(leaving)
            shown, said = process.communicate(timeout=20)
        assert shown.split() in (["LARGE"], ["503"], ["none"]), said
    until("it ended", lambda: has_ended(leaving))


@contextmanager
def h2_connection(it: Gateway, key: str) -> Iterator[tuple[H2Connection, socket.socket, Iterator[Frame]]]:
    """Open a connection; give its client's state, it, and the frames that arrive."""
    client = H2Connection()
    client.initiate_connection()
    with closing(socket.create_connection(it.address, timeout=20)) as connection:
        connection.sendall(client.data_to_send())
        frames = received(connection)
        until_frame(frames, SettingsFrame)
        yield client, connection, frames


def begin(it: Gateway, key: str, client: H2Connection, connection: socket.socket) -> int:
    """Send a request without its body, and give its stream when it is in progress."""
    stream = client.get_next_available_stream_id()
    headers = [(":method", "POST"), (":path", "/v1/secrets"), (":scheme", "http"), (":authority", "a")]
    client.send_headers(stream, [*headers, ("authorization", f"Bearer {key}")])
    connection.sendall(client.data_to_send())
    until("it is in progress", lambda: it.process.metric(IN_FLIGHT) == 1)
    return stream


def received(connection: socket.socket) -> Iterator[Frame]:
    """Give each frame that arrives."""
    with connection.makefile("rb") as file:
        while head := file.read(9):
            frame, length = Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(file.read(length)))
            yield frame


def until_frame(frames: Iterator[Frame], kind: type[Frame]) -> None:
    assert any(isinstance(it, kind) for it in frames), f"no {kind.__name__} came"
