"""The gateway's graceful shutdown: no request is lost, and no connection is accepted that wouldn't be served."""

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

#: The head of a request whose body follows later.
HEAD = (
    "POST /v1/secrets HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n"
    "Content-Length: {}\r\n\r\n"
)
BODY = b'{"name": "LAST", "value": "v"}'
IN_FLIGHT = "devbox_secrets_gateway_http_requests_in_flight"
#: The gateway rejects this body without the API server, which may respond with 429 right after the CRD's installation.
INVALID = b'{"name": "LAST"}'
#: The process must stop within this time.
MAX_SECONDS = 10


@pytest.fixture
def stopping(controlplane: ControlPlane, rest: Gateway) -> Iterator[Gateway]:
    with gateway(controlplane) as it:
        yield it


def terminate(it: Gateway) -> None:
    os.kill(it.component.pid, signal.SIGTERM)
    until("the shutdown starts", lambda: "shutting down" in it.log)


def has_stopped(it: Gateway) -> bool:
    return "stopped" in it.log


def test_a_request_in_progress_is_answered_before_its_connection_closes(stopping: Gateway, key: str) -> None:
    with closing(socket.create_connection(stopping.address, timeout=20)) as connection:
        connection.sendall(HEAD.format(key, len(INVALID)).encode())
        until("the request is in progress", lambda: stopping.process.metric(IN_FLIGHT) == 1)
        terminate(stopping)
        connection.sendall(INVALID)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 400 ")
    until("the process stopped", lambda: has_stopped(stopping))


def test_new_connections_are_refused_during_shutdown(stopping: Gateway, key: str) -> None:
    with closing(socket.create_connection(stopping.address, timeout=20)) as holding:
        holding.sendall(HEAD.format(key, len(BODY)).encode())
        until("the request is in progress", lambda: stopping.process.metric(IN_FLIGHT) == 1)
        terminate(stopping)

        def is_refused() -> bool:
            try:
                socket.create_connection(stopping.address, timeout=20).close()
            except (ConnectionRefusedError, ConnectionResetError):  # a connection that wasn't accepted yet is reset
                return True
            return False

        until("connections are refused", is_refused)
        assert not has_stopped(stopping)


def test_an_endless_request_does_not_delay_the_shutdown(stopping: Gateway, key: str) -> None:
    with closing(socket.create_connection(stopping.address, timeout=20)) as endless:
        endless.sendall(HEAD.format(key, len(BODY)).encode())
        until("the request is in progress", lambda: stopping.process.metric(IN_FLIGHT) == 1)
        started = time.monotonic()
        terminate(stopping)
        until("the process stopped", lambda: has_stopped(stopping))
    assert time.monotonic() - started < MAX_SECONDS


def test_an_endless_http_2_request_does_not_delay_the_shutdown(stopping: Gateway, key: str) -> None:
    with h2_connection(stopping, key) as (client, connection, _):
        start_request(stopping, key, client, connection)
        started = time.monotonic()
        terminate(stopping)
        until("the process stopped", lambda: has_stopped(stopping))
    assert time.monotonic() - started < MAX_SECONDS


@pytest.mark.parametrize("head", [b"", b"GET /healthz HTTP/1.1\r\nHo"])
def test_a_connection_without_a_request_is_closed(stopping: Gateway, head: bytes) -> None:
    with closing(socket.create_connection(stopping.address, timeout=20)) as idle:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 200 ")
        idle.sendall(head)
        terminate(stopping)
        assert idle.recv(65536) == b""
    until("the process stopped", lambda: has_stopped(stopping))


def test_an_http_2_connection_gets_goaway_and_its_request_is_answered(stopping: Gateway, key: str) -> None:
    with h2_connection(stopping, key) as (client, connection, frames):
        stream = start_request(stopping, key, client, connection)
        terminate(stopping)
        until_frame(frames, GoAwayFrame)
        # Node.js does this after a GOAWAY.
        client.send_data(stream, b"{}", end_stream=True)
        client.close_connection()
        connection.sendall(client.data_to_send())
        until_frame(frames, HeadersFrame)
        until_frame(frames, DataFrame)
        list(frames)  # until the connection is closed
    until("the process stopped", lambda: has_stopped(stopping))


def test_an_idle_http_2_connection_gets_goaway_and_is_closed(stopping: Gateway, key: str) -> None:
    with h2_connection(stopping, key) as (_, _, frames):
        terminate(stopping)
        until_frame(frames, GoAwayFrame)
        list(frames)  # until the connection is closed
    until("the process stopped", lambda: has_stopped(stopping))


@pytest.mark.parametrize("http2", [False, True])
def test_a_creation_without_a_response_was_not_carried_out(
    stopping: Gateway, tenant: Account, key: str, *, http2: bool
) -> None:
    """Clients create secrets without a pause while the gateway shuts down."""
    made: list[str] = []
    unanswered: list[str] = []

    def keep_creating(number: int) -> None:
        with stopping.client(key, http2=http2) as api:
            for count in range(100_000):
                name = f"S{number}_{count}_{http2}".upper()
                try:
                    answer = api.post("/v1/secrets", json={"name": name, "value": "v"})
                except httpx.TransportError:
                    unanswered.append(name)
                    return
                if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:  # which asks to try again
                    unanswered.append(name)
                    return
                if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:  # from the API server, so nothing was created
                    continue
                assert answer.status_code == 200, answer.text
                made.append(name)

    threads = [threading.Thread(target=keep_creating, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    until("all clients create secrets", lambda: len(made) > len(threads))
    terminate(stopping)
    for each in threads:
        each.join()
    items = tenant.controlplane.request("GET", account_secrets_path(tenant.name))["items"]
    found = {each["spec"]["name"] for each in items}
    assert len(unanswered) == len(threads)
    assert not found & set(unanswered)
    assert set(made) <= found


def test_the_typescript_sdk_does_not_hang_if_it_connects_during_shutdown(
    stopping: Gateway, tenant: Account, key: str, tmp_path: Path
) -> None:
    program = typescript.installed(tmp_path)
    with h2_connection(stopping, key) as (client, connection, _):
        start_request(stopping, key, client, connection)
        with program.start("create", "1", url=stopping.url, key=key) as process:
            terminate(stopping)
            stdout, stderr = process.communicate(timeout=20)
        assert stdout.split() in (["LARGE"], ["503"], ["none"]), stderr
    until("the process stopped", lambda: has_stopped(stopping))


@contextmanager
def h2_connection(it: Gateway, key: str) -> Iterator[tuple[H2Connection, socket.socket, Iterator[Frame]]]:
    """Open a connection; yield the client's HTTP/2 state, the socket and the frames that arrive."""
    client = H2Connection()
    client.initiate_connection()
    with closing(socket.create_connection(it.address, timeout=20)) as connection:
        connection.sendall(client.data_to_send())
        frames = received(connection)
        until_frame(frames, SettingsFrame)
        yield client, connection, frames


def start_request(it: Gateway, key: str, client: H2Connection, connection: socket.socket) -> int:
    """Send a request without its body, wait until it is in progress, and return its stream."""
    stream = client.get_next_available_stream_id()
    headers = [(":method", "POST"), (":path", "/v1/secrets"), (":scheme", "http"), (":authority", "a")]
    client.send_headers(stream, [*headers, ("authorization", f"Bearer {key}")])
    connection.sendall(client.data_to_send())
    until("the request is in progress", lambda: it.process.metric(IN_FLIGHT) == 1)
    return stream


def received(connection: socket.socket) -> Iterator[Frame]:
    """Yield each frame that arrives."""
    with connection.makefile("rb") as file:
        while head := file.read(9):
            frame, length = Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(file.read(length)))
            yield frame


def until_frame(frames: Iterator[Frame], kind: type[Frame]) -> None:
    assert any(isinstance(it, kind) for it in frames), f"no {kind.__name__} arrived"
