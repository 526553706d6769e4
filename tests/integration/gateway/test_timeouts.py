"""Slow and greedy clients on real sockets lose their connection and don't block other clients."""

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import h2.config
import h2.connection
import h2.events
import h2.settings
import httpx
import pytest
from hyperframe.frame import DataFrame

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import until
from integration.support.connections import connections
from integration.support.gateway import Gateway, gateway
from integration.support.gateway_requests import create

CANARY = "canary_in_the_cage"
SECRETS = 400
MAX_CONNECTIONS = 20
GET = "GET /v1/secrets?limit=5000 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n"


@pytest.fixture(scope="module")
def it(controlplane: ControlPlane, tenant: Account) -> Iterator[Gateway]:
    """A gateway with short timeouts."""
    seconds = {f"{what}_timeout_seconds": "2" for what in ("body", "response", "idle")}
    with gateway(controlplane, None, None, max_connections=str(MAX_CONNECTIONS), **seconds) as own:
        yield own


@pytest.fixture
def api(it: Gateway, key: str) -> Iterator[httpx.Client]:
    """Another client, which is always served; afterwards the others have no connection, request or value in the log."""
    with it.client(key) as client:
        # A new connection for each request: a kept one could exceed the idle timeout just when it is used.
        client.headers["Connection"] = "close"
        assert client.get("/v1/secrets").status_code == 200
        yield client
        assert client.get("/v1/secrets").status_code == 200
        until("the others' connections are closed", lambda: connections(it.address[1]) <= 1)
        until(
            "no request is in progress",
            lambda: it.process.metric("devbox_secrets_gateway_http_requests_in_flight") == 0,
        )
    assert CANARY not in it.log
    assert "Traceback" not in it.log
    assert not {line["status"] for line in it.audit} & {500}


def connect(it: Gateway, receive_bytes: int = 0) -> socket.socket:
    """Connect; a small buffer limits how much the system receives before the client reads."""
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(20)
    connection.connect(it.address)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Read available bytes and return whether the connection is closed."""
    connection.settimeout(0.05)
    try:
        return connection.recv(65536) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def is_served(api: httpx.Client) -> bool:
    return api.get("/v1/secrets").status_code == 200


def test_an_incomplete_head_closes_its_connection(it: Gateway, api: httpx.Client) -> None:
    with closing(connect(it)) as slow:
        slow.sendall(f"GET /v1/secrets HTTP/1.1\r\nHost: a\r\n{CANARY}: ".encode())
        until("the connection is closed", lambda: is_closed(slow))
    assert is_served(api)


def test_slow_heads_do_not_block_others(it: Gateway, api: httpx.Client) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(connect(it))) for _ in range(MAX_CONNECTIONS * 3)]

        def trickle() -> bool:
            for connection in slow:
                with suppress(ConnectionError):
                    connection.sendall(CANARY.encode())
            return is_served(api) and all(is_closed(connection) for connection in slow[:MAX_CONNECTIONS])

        for connection in slow:
            connection.sendall(b"GET /v1/secrets HTTP/1.1\r\nHost: a\r\nX: ")
        until("the first connections are closed", trickle)


@pytest.mark.parametrize("known", [False, True])
def test_a_slow_body_closes_its_connection(it: Gateway, api: httpx.Client, key: str, *, known: bool) -> None:
    with closing(connect(it)) as slow:
        head = f"POST /v1/secrets HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key if known else CANARY}\r\n"
        slow.sendall(f"{head}Content-Length: 100000\r\n\r\n{{".encode())
        answer = slow.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 " if known else b"HTTP/1.1 401 ")
        assert is_served(api)
        until("the connection is closed", lambda: is_closed(slow))


@pytest.mark.parametrize("size", [200_000, 3_000_000])
def test_a_client_that_sends_the_whole_body_before_it_reads_gets_the_response(
    it: Gateway, api: httpx.Client, size: int
) -> None:
    with closing(connect(it)) as eager:
        head = f"POST /v1/secrets HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {CANARY}\r\nContent-Length: {size}"
        eager.sendall(f"{head}\r\n\r\n".encode() + b"v" * size)
        answer = eager.recv(65536)
        assert answer.startswith(b"HTTP/1.1 401 ")
    assert is_served(api)


@pytest.fixture(scope="module")
def many(it: Gateway, key: str) -> None:
    """Enough secrets that a list of them fills every buffer between the gateway and the client."""
    with it.client(key) as api:
        for number in range(SECRETS):
            create(api, f"{'N' * 240}_{number}")


@pytest.mark.usefixtures("many")
def test_an_unread_response_closes_its_connection(it: Gateway, api: httpx.Client, key: str) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(connect(it, 4096))) for _ in range(5)]
        for connection in slow:
            connection.sendall(GET.format(key).encode() * 20)
        until("the connections are closed", lambda: is_served(api) and connections(it.address[1]) <= 1)


def test_idle_connections_are_closed_when_there_are_too_many(it: Gateway, api: httpx.Client, key: str) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(closing(connect(it))) for _ in range(MAX_CONNECTIONS * 2)]
        with closing(connect(it)) as new:
            new.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert new.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert is_served(api)
        assert f"all {MAX_CONNECTIONS} connections are in use" in it.log
        until("all idle connections are closed", lambda: all(is_closed(connection) for connection in idle))


# --- HTTP/2


class Http2:
    """An HTTP/2 client that can also violate the protocol."""

    def __init__(self, connection: socket.socket, window: int | None = None) -> None:
        self.socket = connection
        self.protocol = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        if window is not None:
            values = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
            self.protocol.local_settings = h2.settings.Settings(client=True, initial_values=values)
        self.protocol.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.protocol.data_to_send())

    def start_request(self, key: str, method: str = "POST", path: str = "/v1/secrets", *, end: bool = False) -> int:
        """Send a request's head and return its stream."""
        stream = self.protocol.get_next_available_stream_id()
        head = {":method": method, ":path": path, ":scheme": "http", ":authority": "a"}
        head["authorization"] = f"Bearer {key}"
        self.protocol.send_headers(stream, list(head.items()), end_stream=end)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        self.protocol.send_data(stream, data, end_stream=end)
        self.flush()

    def send_late(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send to a stream that the server has reset."""
        self.socket.sendall(DataFrame(stream, data, flags=["END_STREAM"] if end else []).serialize())

    def receive(self) -> list[h2.events.Event]:
        """Wait for events and return them."""
        data = self.socket.recv(65536)
        assert data, "the connection is closed"
        found = self.protocol.receive_data(data)
        for event in found:
            if isinstance(event, h2.events.DataReceived):
                self.protocol.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        self.flush()
        return found

    def status(self, stream: int) -> str:
        """Wait for the response of a stream and return its status."""
        while True:
            for event in self.receive():
                if isinstance(event, h2.events.ResponseReceived) and event.stream_id == stream:
                    return str(dict(event.headers or [])[":status"])  # type: ignore[index]  # header_encoding makes them text


def test_endless_streams_get_408_and_do_not_block_other_streams(it: Gateway, api: httpx.Client, key: str) -> None:
    with closing(connect(it)) as connection:
        client = Http2(connection)
        endless = [client.start_request(key) for _ in range(50)]
        for stream in endless:
            client.send(stream, b"{")
        assert client.status(client.start_request(key, "GET", end=True)) == "200"
        assert is_served(api)
        assert client.status(endless[-1]) == "408"
        for stream in endless:  # late data affects only its own stream
            client.send_late(stream, b" " * 100)
        assert client.status(client.start_request(key, "GET", end=True)) == "200"


def test_an_unwanted_body_does_not_affect_other_streams(it: Gateway, api: httpx.Client, key: str) -> None:
    with closing(connect(it)) as connection:
        client = Http2(connection)
        stranger = client.start_request(CANARY)
        for _ in range(40):  # many small parts: more than the server keeps for a stream
            client.send(stranger, b"v")
        assert client.status(stranger) == "401"
        client.send_late(stranger, b"v", end=True)
        assert client.status(client.start_request(key, "GET", end=True)) == "200"


@pytest.mark.usefixtures("many")
def test_unread_streams_are_reset(it: Gateway, api: httpx.Client, key: str) -> None:
    with closing(connect(it)) as connection:
        client = Http2(connection, window=0)
        unread = {client.start_request(key, "GET", "/v1/secrets?limit=5000", end=True) for _ in range(10)}
        assert is_served(api)
        reset: set[int | None] = set()
        while reset != unread:
            reset |= {event.stream_id for event in client.receive() if isinstance(event, h2.events.StreamReset)}


@pytest.mark.usefixtures("many")
def test_an_unread_http_2_connection_is_closed(it: Gateway, api: httpx.Client, key: str) -> None:
    with closing(connect(it, 4096)) as connection:
        client = Http2(connection)
        for _ in range(50):
            client.start_request(key, "GET", "/v1/secrets?limit=5000", end=True)
        assert is_served(api)
        until("the connection is closed", lambda: connections(it.address[1]) <= 1)


def test_rapid_resets_close_the_connection_and_do_not_block_others(it: Gateway, api: httpx.Client) -> None:
    with closing(connect(it)) as connection:
        client = Http2(connection)
        with suppress(ConnectionError):
            for _ in range(1000):
                client.protocol.reset_stream(client.start_request(CANARY, "GET", end=True))
                client.flush()
        assert is_served(api)
        until("the connection is closed", lambda: is_closed(connection))


def test_nothing_remains_of_a_client_that_disconnects(it: Gateway, api: httpx.Client, key: str) -> None:
    for _ in range(20):
        with closing(connect(it)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
            body = json.dumps({"name": "A", "value": CANARY})[:-5]
            head = f"POST /v1/secrets HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: 9999"
            connection.sendall(f"{head}\r\n\r\n{body}".encode())
    assert is_served(api)
