"""Slow and greedy clients, with real sockets: each loses its own connection, and holds back nobody."""

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
MOST = 20
GET = "GET /v1/secrets?limit=5000 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n"


@pytest.fixture(scope="module")
def it(controlplane: ControlPlane, tenant: Account) -> Iterator[Gateway]:
    """A gateway with short timeouts."""
    seconds = {f"{what}_timeout_seconds": "2" for what in ("body", "response", "idle")}
    with gateway(controlplane, None, None, max_connections=str(MOST), **seconds) as own:
        yield own


@pytest.fixture
def api(it: Gateway, key: str) -> Iterator[httpx.Client]:
    """Someone else, who is served throughout; and afterwards nothing is left of the others, nor logged of them."""
    with it.client(key) as client:
        # A connection for each call: one that is kept may be idle for too long in the very moment it is used.
        client.headers["Connection"] = "close"
        assert client.get("/v1/secrets").status_code == 200
        yield client
        assert client.get("/v1/secrets").status_code == 200
        until("they are gone", lambda: connections(it.address[1]) <= 1)
        until("so are their calls", lambda: it.process.metric("devbox_secrets_gateway_http_requests_in_flight") == 0)
    assert CANARY not in it.log
    assert "Traceback" not in it.log
    assert not {line["status"] for line in it.audit} & {500}


def connect(it: Gateway, receive_bytes: int = 0) -> socket.socket:
    """Connect; with a small buffer the system reads no more than that in the client's name."""
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(20)
    connection.connect(it.address)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Read what there is, and tell whether that is all there will be."""
    connection.settimeout(0.05)
    try:
        return connection.recv(65536) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def served(api: httpx.Client) -> bool:
    return api.get("/v1/secrets").status_code == 200


def test_a_head_that_does_not_come_ends_its_connection(it: Gateway, api: httpx.Client) -> None:
    with closing(connect(it)) as slow:
        slow.sendall(f"GET /v1/secrets HTTP/1.1\r\nHost: a\r\n{CANARY}: ".encode())
        until("it is closed", lambda: is_closed(slow))
    assert served(api)


def test_heads_that_come_too_slowly_hold_back_nobody(it: Gateway, api: httpx.Client) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(connect(it))) for _ in range(MOST * 3)]

        def trickle() -> bool:
            for connection in slow:
                with suppress(ConnectionError):
                    connection.sendall(CANARY.encode())
            return served(api) and all(is_closed(connection) for connection in slow[:MOST])

        for connection in slow:
            connection.sendall(b"GET /v1/secrets HTTP/1.1\r\nHost: a\r\nX: ")
        until("those that came first are closed", trickle)


@pytest.mark.parametrize("known", [False, True])
def test_a_body_that_comes_too_slowly_ends_its_connection(
    it: Gateway, api: httpx.Client, key: str, *, known: bool
) -> None:
    with closing(connect(it)) as slow:
        head = f"POST /v1/secrets HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key if known else CANARY}\r\n"
        slow.sendall(f"{head}Content-Length: 100000\r\n\r\n{{".encode())
        answer = slow.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 " if known else b"HTTP/1.1 401 ")
        assert served(api)
        until("it is closed", lambda: is_closed(slow))


@pytest.mark.parametrize("size", [200_000, 3_000_000])
def test_who_sends_first_and_reads_then_gets_the_answer(it: Gateway, api: httpx.Client, size: int) -> None:
    with closing(connect(it)) as eager:
        head = f"POST /v1/secrets HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {CANARY}\r\nContent-Length: {size}"
        eager.sendall(f"{head}\r\n\r\n".encode() + b"v" * size)
        answer = eager.recv(65536)
        assert answer.startswith(b"HTTP/1.1 401 ")
    assert served(api)


@pytest.fixture(scope="module")
def many(it: Gateway, key: str) -> None:
    """So many secrets that their list fills every buffer on the way."""
    with it.client(key) as api:
        for number in range(SECRETS):
            create(api, f"{'N' * 240}_{number}")


@pytest.mark.usefixtures("many")
def test_an_answer_that_is_not_read_ends_its_connection(it: Gateway, api: httpx.Client, key: str) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(connect(it, 4096))) for _ in range(5)]
        for connection in slow:
            connection.sendall(GET.format(key).encode() * 20)
        until("they are closed", lambda: served(api) and connections(it.address[1]) <= 1)


def test_of_too_many_connections_those_without_a_request_go(it: Gateway, api: httpx.Client, key: str) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(closing(connect(it))) for _ in range(MOST * 2)]
        with closing(connect(it)) as new:
            new.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert new.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert served(api)
        assert f"all {MOST} connections are in use" in it.log
        until("all of them are closed", lambda: all(is_closed(connection) for connection in idle))


# --- HTTP/2


class Http2:
    """A client of HTTP/2 that does as it likes."""

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

    def begin(self, key: str, method: str = "POST", path: str = "/v1/secrets", *, end: bool = False) -> int:
        """Send a request's head."""
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

    def hear(self) -> list[h2.events.Event]:
        """Wait for what comes."""
        data = self.socket.recv(65536)
        assert data, "the connection is closed"
        found = self.protocol.receive_data(data)
        for event in found:
            if isinstance(event, h2.events.DataReceived):
                self.protocol.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        self.flush()
        return found

    def status(self, stream: int) -> str:
        """Wait for the answer of a stream."""
        while True:
            for event in self.hear():
                if isinstance(event, h2.events.ResponseReceived) and event.stream_id == stream:
                    return str(dict(event.headers or [])[":status"])  # type: ignore[index]  # by its config they are text


def test_streams_without_end_are_answered_and_hold_back_no_other_stream(
    it: Gateway, api: httpx.Client, key: str
) -> None:
    with closing(connect(it)) as connection:
        client = Http2(connection)
        endless = [client.begin(key) for _ in range(50)]
        for stream in endless:
            client.send(stream, b"{")
        assert client.status(client.begin(key, "GET", end=True)) == "200"
        assert served(api)
        assert client.status(endless[-1]) == "408"
        for stream in endless:  # what comes late ends nothing but its stream
            client.send_late(stream, b" " * 100)
        assert client.status(client.begin(key, "GET", end=True)) == "200"


def test_a_body_that_is_not_wanted_ends_no_other_stream(it: Gateway, api: httpx.Client, key: str) -> None:
    with closing(connect(it)) as connection:
        client = Http2(connection)
        stranger = client.begin(CANARY)
        for _ in range(40):  # many small parts: more than the server keeps for a stream
            client.send(stranger, b"v")
        assert client.status(stranger) == "401"
        client.send_late(stranger, b"v", end=True)
        assert client.status(client.begin(key, "GET", end=True)) == "200"


@pytest.mark.usefixtures("many")
def test_streams_that_nobody_reads_are_reset(it: Gateway, api: httpx.Client, key: str) -> None:
    with closing(connect(it)) as connection:
        client = Http2(connection, window=0)
        unread = {client.begin(key, "GET", "/v1/secrets?limit=5000", end=True) for _ in range(10)}
        assert served(api)
        reset: set[int | None] = set()
        while reset != unread:
            reset |= {event.stream_id for event in client.hear() if isinstance(event, h2.events.StreamReset)}


@pytest.mark.usefixtures("many")
def test_a_connection_of_http_2_that_is_not_read_at_all_is_closed(it: Gateway, api: httpx.Client, key: str) -> None:
    with closing(connect(it, 4096)) as connection:
        client = Http2(connection)
        for _ in range(50):
            client.begin(key, "GET", "/v1/secrets?limit=5000", end=True)
        assert served(api)
        until("it is closed", lambda: connections(it.address[1]) <= 1)


def test_streams_that_are_begun_and_reset_end_the_connection_and_hold_back_nobody(
    it: Gateway, api: httpx.Client
) -> None:
    with closing(connect(it)) as connection:
        client = Http2(connection)
        with suppress(ConnectionError):
            for _ in range(1000):
                client.protocol.reset_stream(client.begin(CANARY, "GET", end=True))
                client.flush()
        assert served(api)
        until("it is closed", lambda: is_closed(connection))


def test_a_client_that_breaks_off_leaves_nothing(it: Gateway, api: httpx.Client, key: str) -> None:
    for _ in range(20):
        with closing(connect(it)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no farewell
            body = json.dumps({"name": "A", "value": CANARY})[:-5]
            head = f"POST /v1/secrets HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: 9999"
            connection.sendall(f"{head}\r\n\r\n{body}".encode())
    assert served(api)
