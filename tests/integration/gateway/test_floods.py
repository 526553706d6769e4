"""HTTP/2 floods use little memory or cost the client its connection; other clients are still served."""

import secrets
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from statistics import median

import httpx
import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from harness.controlplane import ControlPlane
from integration.support.chart import until
from integration.support.gateway import Gateway, gateway

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
LAST = PingFrame(0, b"the last").serialize()
LAST_ANSWER = PingFrame(0, b"the last", flags=["ACK"]).serialize()
STREAMS = 2000
FRAMES = 50_000
CONNECTIONS, STRANGERS = 100, 200
#: A field with a name of one letter and a value of 4,000 bytes (127 + 0x21 + (0x1e << 7)), without indexing.
FIELD = b"\x00\x01x\x7f\xa1\x1e" + b"v" * 4000
#: The most that a flood may add to the process's memory.
MEBIBYTES = 64
#: Limits for the responses to others: the median, and each of them, because other tests use the machine too.
SECONDS, MAX_SECONDS = 1.0, 5.0


@pytest.fixture(scope="module")
def it(controlplane: ControlPlane, rest: Gateway) -> Iterator[Gateway]:
    """A gateway that only this module calls, so its memory depends on nothing else."""
    with gateway(controlplane, None, None) as own:
        for _ in range(20):  # memory that is allocated once doesn't count
            request_time(own)
        yield own


def head(method: str = "POST", **more: str) -> bytes:
    """Return a request's head without a key."""
    fields = {":method": method, ":path": "/v1/secrets", ":scheme": "http", ":authority": "a", **more}
    return Encoder().encode(fields.items(), huffman=False)


def requests(next_frame: Callable[[int], Frame], method: str = "POST") -> bytes:
    """Return requests, each followed by a frame."""
    block, flags = head(method), ["END_HEADERS", *(["END_STREAM"] if method == "GET" else [])]
    streams = range(1, 2 * STREAMS, 2)
    return b"".join(HeadersFrame(n, block, flags=flags).serialize() + next_frame(n).serialize() for n in streams)


def indexed_fields() -> bytes:
    """Return heads of 16,000 bytes; each byte refers to an indexed field of 4,000 bytes."""
    first = HeadersFrame(1, head() + b"\x40" + FIELD[1:], flags=["END_HEADERS", "END_STREAM"]).serialize()
    bombs = range(3, 401, 2)
    return first + b"".join(
        HeadersFrame(n, head() + b"\xbe" * 16_000, flags=["END_HEADERS", "END_STREAM"]).serialize() for n in bombs
    )


def open_body(*frames: Frame) -> bytes:
    """Return a request whose body is incomplete, followed by frames."""
    return HeadersFrame(1, head(), flags=["END_HEADERS"]).serialize() + b"".join(each.serialize() for each in frames)


ENDING = ContinuationFrame(1, flags=["END_HEADERS"])


def open_head(*frames: Frame) -> bytes:
    """Return a request whose head is incomplete, followed by frames."""
    return HeadersFrame(1, head()).serialize() + b"".join(each.serialize() for each in frames)


#: The bytes to send, and whether the connection is closed; None if that depends on how fast the gateway reads.
FLOODS: dict[str, tuple[bytes, bool | None]] = {
    "pings": (PingFrame(0, b"12345678").serialize() * FRAMES, False),
    "settings": (SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1}).serialize() * FRAMES, False),
    "priorities": (PriorityFrame(1, depends_on=3, stream_weight=1).serialize() * FRAMES, False),
    "windows": (WindowUpdateFrame(0, window_increment=1).serialize() * FRAMES, False),
    "windows above the maximum": (WindowUpdateFrame(0, window_increment=2**31 - 1).serialize() * 2, True),
    "unknown frames": ((b"\0\0\x64\xee\0" + bytes(4) + b"x" * 100) * FRAMES, False),
    "continuations": (open_head(*[ContinuationFrame(1, FIELD)] * 400), True),
    "endless continuations": (open_head(*[ContinuationFrame(1, b"\x00\x01x\x01v")] * FRAMES), True),
    "empty continuations": (open_head(*[ContinuationFrame(1)] * FRAMES, ENDING), False),
    "empty data": (open_body(*[DataFrame(1)] * FRAMES), False),
    "data with padding only": (open_body(*[DataFrame(1, pad_length=255, flags=["PADDED"])] * FRAMES), None),
    "data in single bytes": (open_body(*[DataFrame(1, b"x")] * FRAMES), False),
    "indexed fields": (indexed_fields(), False),
    "requests that are reset": (requests(RstStreamFrame, "GET"), True),
    "requests that must be reset": (requests(lambda n: WindowUpdateFrame(n, window_increment=2**31 - 1)), False),
    "requests on a closed stream": (requests(lambda n: DataFrame(n, b"x"), "GET"), False),
}


def connect(it: Gateway) -> socket.socket:
    connection = socket.create_connection(it.address, timeout=5)
    connection.settimeout(5)
    return connection


def send(connection: socket.socket, data: bytes) -> None:
    """Send while the gateway reads."""
    with suppress(OSError):
        connection.sendall(PREFACE + data)


def is_answered(connection: socket.socket) -> bool:
    """Read until the last ping is acknowledged (True) or the gateway closes the connection (False)."""
    tail = b""
    with suppress(ConnectionError):
        while part := connection.recv(1 << 20):
            tail = (tail + part)[-(1 << 20) :]
            if LAST_ANSWER in tail:
                return True
    return False


def request_time(it: Gateway) -> float:
    """Return the seconds that a request takes."""
    started = time.monotonic()
    assert httpx.get(f"{it.url}/healthz", trust_env=False, timeout=MAX_SECONDS).is_success
    return time.monotonic() - started


def memory(it: Gateway, field: str) -> float:
    """Return the process's memory in MiB: VmRSS is the current one, VmHWM the peak since `reset_peak`."""
    lines = Path(f"/proc/{it.component.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def reset_peak(it: Gateway) -> None:
    Path(f"/proc/{it.component.pid}/clear_refs").write_text("5")


@pytest.fixture
def bounded(it: Gateway) -> Iterator[None]:
    """Check that the process's memory stays within its limit and that no request remains."""
    reset_peak(it)
    before = memory(it, "VmRSS")
    yield
    assert memory(it, "VmHWM") - before < MEBIBYTES
    until("no request remains", lambda: it.process.metric("devbox_secrets_gateway_http_requests_in_flight") == 0)
    assert "Traceback" not in it.log
    assert "panicked" not in it.log


def others_are_served_until(it: Gateway, end: Future[None] | Future[bool]) -> None:
    """Send requests until `end` is done, at least five, and check how long they take."""
    took = [request_time(it) for _ in range(5)]
    while not end.done():
        took.append(request_time(it))
    assert median(took) < SECONDS


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("what", FLOODS)
def test_a_flood_is_bounded_and_does_not_block_others(what: str, it: Gateway) -> None:
    data, costs_the_connection = FLOODS[what]
    with ThreadPoolExecutor(2) as pool, closing(connect(it)) as connection:
        answered = pool.submit(is_answered, connection)
        pool.submit(send, connection, data + LAST)
        others_are_served_until(it, answered)
        assert costs_the_connection is None or answered.result() is not costs_the_connection


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("what", ["pings", "settings", "requests that must be reset", "requests on a closed stream"])
def test_a_flood_with_unread_responses_is_bounded_and_does_not_block_others(what: str, it: Gateway) -> None:
    with ThreadPoolExecutor(1) as pool, closing(connect(it)) as connection:
        others_are_served_until(it, pool.submit(send, connection, FLOODS[what][0] * 4))


HEADS = {
    "HTTP/1.1": b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
    + b"".join(b"X%d: %s\r\n" % (n, b"v" * 8000) for n in range(99)),
    "HTTP/2": PREFACE + open_head(*[ContinuationFrame(1, FIELD)] * 400),
}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("protocol", HEADS)
def test_endless_heads_are_bounded_and_do_not_block_others(protocol: str, it: Gateway) -> None:
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(closing(connect(it)))
            with suppress(OSError):
                connection.sendall(HEADS[protocol])
        assert median(request_time(it) for _ in range(5)) < SECONDS


def http_1_body(token: str) -> bytes:
    """Return an HTTP/1.1 request with a token and the longest body that is allowed."""
    line = f"POST /v1/secrets HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
    return f"{line}Content-Length: {1 << 20}\r\n\r\n".encode() + b"v" * (1 << 20)


def http_2_body(token: str) -> bytes:
    """Return the same in HTTP/2, regardless of the flow-control windows."""
    block = head(authorization=f"Bearer {token}")
    data = DataFrame(1, b"v" * 16_384).serialize() * 64
    return PREFACE + HeadersFrame(1, block, flags=["END_HEADERS"]).serialize() + data


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("body", [http_2_body, http_1_body])
def test_bodies_sent_before_their_tokens_are_checked_are_bounded(body: Callable[[str], bytes], it: Gateway) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        connections = [stack.enter_context(closing(connect(it))) for _ in range(STRANGERS)]

        def send_body(connection: socket.socket) -> None:
            with suppress(OSError):
                connection.sendall(body(secrets.token_hex(40)))

        sent = pool.map(send_body, connections)
        assert median(request_time(it) for _ in range(5)) < SECONDS
        assert len(list(sent)) == STRANGERS


@pytest.mark.usefixtures("bounded")
def test_endless_bodies_are_bounded_and_do_not_block_others(it: Gateway) -> None:
    streams = range(1, 201, 2)
    data = b"".join(HeadersFrame(n, head(), flags=["END_HEADERS"]).serialize() for n in streams)
    data += b"".join(DataFrame(n, b"v" * 16_000).serialize() for n in [*streams] * 4)
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(closing(connect(it)))
            with suppress(OSError):
                connection.sendall(PREFACE + data)
        assert median(request_time(it) for _ in range(5)) < SECONDS
