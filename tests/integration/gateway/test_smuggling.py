"""Malformed HTTP and requests hidden in other requests are never answered as separate requests."""

import socket
from contextlib import closing, suppress

import h2.config
import h2.connection
import h2.events
import pytest

from integration.support.gateway import Gateway

#: A request that would get 200, placed in a body or after something malformed.
HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
#: Without a key the response is 401, as soon as the head is read.
POST = b"POST /v1/secrets HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /v1/secrets HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST = b"0\r\n\r\n"


def exchange(it: Gateway, sent: bytes) -> bytes:
    """Send bytes and return what arrives until the gateway closes the connection."""
    received = b""
    with closing(socket.create_connection(it.address, timeout=10)) as connection, suppress(ConnectionError):
        with suppress(OSError):  # the gateway may close the connection while we still send
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            received += part
    return received


def statuses(it: Gateway, sent: bytes) -> list[int]:
    """Send bytes and return the status of each response until the gateway closes the connection."""
    received = exchange(it, sent)
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        found.append(int(line.split()[1]))
        headers = dict(field.lower().split(b": ", 1) for field in fields)
        received = received[int(headers.get(b"content-length", b"0")) :]
    return found


def chunk(size: bytes, data: bytes = b"hello") -> bytes:
    """Return a chunked request whose first chunk has the given size line."""
    return POST + CHUNKED + b"\r\n" + size + b"\r\n" + data + b"\r\n" + LAST


#: The end of the body is stated in two ways, or in one that two servers may interpret differently.
AMBIGUOUS = {
    "a length and chunks": POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n" + LAST,
    "chunks and a length": POST + CHUNKED + b"Content-Length: 50\r\n\r\n" + LAST,
    "chunks and a length of zero": POST + CHUNKED + b"Content-Length: 0\r\n\r\n" + LAST,
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
    "two lengths in one field": POST + b"Content-Length: 5, 0\r\n\r\nhello",
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "a length below zero": POST + b"Content-Length: -5\r\n\r\n",
    "a length in hexadecimal": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "a length with an underscore": POST + b"Content-Length: 1_0\r\n\r\nhellohello",
    "a length with a space in it": POST + b"Content-Length: 1 0\r\n\r\nhellohello",
    "a length with another script's digit": POST + "Content-Length: \u0665\r\n\r\nhello".encode(),
    "an empty length": POST + b"Content-Length:\r\n\r\n",
    "a length over 64 bits": POST + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "chunks twice": POST + CHUNKED + CHUNKED + b"\r\n" + LAST,
    "chunks twice in one field": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + LAST,
    "chunks and the identity coding": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + LAST,
    "the identity coding and a length": POST + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "compressed chunks": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + LAST,
    "a coding after the chunks": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + LAST,
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + LAST,
    "a coding in quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + LAST,
    "a coding with a parameter": POST + b"Transfer-Encoding: chunked;a=b\r\n\r\n" + LAST,
    "a coding with a vertical tab": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n" + LAST,
    "a coding with a NUL": POST + b"Transfer-Encoding: chunked\0\r\n\r\n" + LAST,
    "an empty coding": POST + b"Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
    "a coding in a folded line": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + LAST,
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + LAST,
    "a space before a length's colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "a tab before the colon": POST + b"Transfer-Encoding\t: chunked\r\n\r\n" + LAST,
    "a space before the name": GET + b" Transfer-Encoding: chunked\r\n\r\n" + LAST,
    "a space in the name": POST + b"Content Length: 5\r\n\r\nhello",
    "a non-ASCII byte in the name": POST + b"Content-Length\xa0: 5\r\n\r\nhello",
    "a coding in HTTP/1.0": b"POST /v1/secrets HTTP/1.0\r\nHost: a\r\n" + CHUNKED + b"\r\n" + LAST,
}
LINES = {
    "a folded line": GET + b"X: a\r\n b\r\n\r\n",
    "a line without a colon": GET + b"X\r\n\r\n",
    "a field without a name": GET + b": a\r\n\r\n",
    "bare line feeds": GET.replace(b"\r\n", b"\n") + b"\n",
    "a bare line feed in a field": GET + b"X: a\nContent-Length: 50\r\n\r\n",
    "a bare line feed after the head": GET + b"X: a\r\n\n",
    "a bare carriage return in a field": GET + b"X: a\rContent-Length: 50\r\n\r\n",
    "bare carriage returns": GET.replace(b"\r\n", b"\r") + b"\r",
    "a NUL in a value": GET + b"X: a\0b\r\n\r\n",
    "a NUL in a name": GET + b"X\0: a\r\n\r\n",
    "a NUL in the path": b"GET /v1/\0secrets HTTP/1.1\r\nHost: a\r\n\r\n",
    "a control character in a value": GET + b"X: a\x7fb\r\n\r\n",
    "no host": b"GET /v1/secrets HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: b\r\n\r\n",
    "a host with a path": b"GET /v1/secrets HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a host with a user": b"GET /v1/secrets HTTP/1.1\r\nHost: b@a\r\n\r\n",
    "no version": b"GET /v1/secrets\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n",
    "HTTP/1.0": b"GET /healthz HTTP/1.0\r\n\r\n",
    "HTTP/1.2": b"GET /v1/secrets HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/2.0 in a request line": b"GET /v1/secrets HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/11.1": b"GET /v1/secrets HTTP/11.1\r\nHost: a\r\n\r\n",
    "http/1.1": b"GET /v1/secrets http/1.1\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  /v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n",
    "tabs instead of spaces": b"GET\t/v1/secrets\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in the path": b"GET /v1/secrets /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space before the method": b" GET /v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space after the version": b"GET /v1/secrets HTTP/1.1 \r\nHost: a\r\n\r\n",
    "a fragment": b"GET /v1/secrets#a HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method with a colon": b"GET: /v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n",
    "a relative path": b"GET v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n",
    "another host in the target": b"GET http://b/v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n",
    "a user in the target": b"GET http://b@a/v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n",
    "an authority as the target": b"GET a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "an asterisk as the target": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "HTTP/2 after a request's head": GET + b"X: a\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS on cleartext": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160),
}


@pytest.mark.parametrize("what", [*AMBIGUOUS, *LINES])
def test_a_malformed_request_is_rejected_and_closes_its_connection(what: str, rest: Gateway) -> None:
    found = statuses(rest, (AMBIGUOUS | LINES)[what] + HIDDEN)
    assert len(found) <= 1
    assert set(found) <= {400, 413, 501, 505}


#: The gateway may respond to the head before it reads the chunks.
CHUNKS = {
    "a size below zero": chunk(b"-5"),
    "a size with a sign": chunk(b"+5"),
    "a size with a prefix": chunk(b"0x5"),
    "a size with a space before it": chunk(b" 5"),
    "a size with a space after it": chunk(b"5 "),
    "a size with an underscore": chunk(b"0_5"),
    "no size": chunk(b""),
    "a size over 64 bits": chunk(b"10000000000000005"),
    "the largest size": chunk(b"ffffffffffffffff"),
    "a size that ends in a line feed": POST + CHUNKED + b"\r\n5\nhello\r\n" + LAST,
    "an extension that ends in a line feed": POST + CHUNKED + b"\r\n5;a\nhello\r\n" + LAST,
    "an extension with a carriage return": chunk(b"5;a\rb"),
    "an extension without a name": chunk(b"5;=a"),
    "an extension with an unclosed quote": chunk(b'5;a="b'),
    "an extension that is too long": chunk(b"5;a=" + b"b" * 20_000),
    "a chunk that is too long": chunk(b"5", b"hello!"),
    "a chunk that ends in a line feed": POST + CHUNKED + b"\r\n5\r\nhello\n" + LAST,
    "a chunk that ends in its data": POST + CHUNKED + b"\r\n5\r\nhello" + LAST,
    "a last chunk that ends in a line feed": POST + CHUNKED + b"\r\n0\n\n",
    "a last chunk followed by a bare line feed": POST + CHUNKED + b"\r\n0\r\n\n",
    "a trailer that sets a length": POST + CHUNKED + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a trailer that is folded": POST + CHUNKED + b"\r\n0\r\nX: a\r\n b\r\n\r\n",
    "a trailer without a colon": POST + CHUNKED + b"\r\n0\r\nX\r\n\r\n",
    "too many trailers": POST + CHUNKED + b"\r\n0\r\n" + b"X: a\r\n" * 20_000 + b"\r\n",
}


@pytest.mark.parametrize("what", CHUNKS)
def test_a_malformed_body_closes_its_connection_after_one_response(what: str, rest: Gateway) -> None:
    found = statuses(rest, CHUNKS[what] + HIDDEN)
    assert len(found) <= 1
    assert set(found) <= {400, 401, 413}


#: Well-formed requests, each with another request in its body; some also ask for another protocol.
BODIES = {
    "a length": POST + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "the same length twice": POST + b"Content-Length: %d\r\n" % len(HIDDEN) * 2 + b"\r\n" + HIDDEN,
    "a length with zeros": POST + b"Content-Length: 000%d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "chunks": POST + CHUNKED + b"\r\n%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n" + LAST,
    "chunks in capitals": POST + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n%X\r\n" % len(HIDDEN) + HIDDEN + b"\r\n" + LAST,
    "chunks with extensions": chunk(b'%x;a;b=c;d="e;\\"f"' % len(HIDDEN), HIDDEN),
    "chunks with a trailer": POST + CHUNKED + b"\r\n%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\nX: a\r\n\r\n",
    "a method without a body": GET + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "an unknown method": b"NONE /v1/secrets HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "an unknown path": b"POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "an expectation": POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "an unknown expectation": POST + b"Expect: 200-ok\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "an upgrade to another protocol": POST
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN)
    + HIDDEN,
    "a header that replaces the path": POST
    + b"X-Original-URL: /healthz\r\nX-Rewrite-URL: /healthz\r\nX-HTTP-Method-Override: GET\r\n"
    + b"Content-Length: %d\r\n\r\n" % len(HIDDEN)
    + HIDDEN,
    "a length listed in the connection header": POST
    + b"Connection: Content-Length\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN)
    + HIDDEN,
    "a length with an empty connection header": POST
    + b"Connection:\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN)
    + HIDDEN,
}


@pytest.mark.parametrize("what", BODIES)
def test_a_request_in_a_body_is_not_answered(what: str, rest: Gateway) -> None:
    found = [status for status in statuses(rest, BODIES[what]) if status != 100]
    assert len(found) == 1
    assert found[0] in {400, 401, 404, 405}


@pytest.mark.parametrize("what", ["a length", "chunks", "a method without a body"])
def test_a_request_after_a_body_is_answered(what: str, rest: Gateway) -> None:
    assert statuses(rest, BODIES[what] + HIDDEN) == [401, 200]


def test_pipelined_requests_are_answered_in_order(rest: Gateway) -> None:
    assert statuses(rest, HIDDEN + GET + b"\r\n" + HIDDEN) == [200, 401, 200]


def test_a_request_after_connection_close_is_not_answered(rest: Gateway) -> None:
    assert statuses(rest, GET + b"Connection: close\r\n\r\n" + HIDDEN) == [401]


#: Requests to upgrade to another protocol, which the gateway ignores or applies only to what follows.
UPGRADES = {
    "HTTP/2": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "HTTP/2 without settings": b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    "HTTP/2 with malformed settings": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: !!\r\n",
    "TLS": b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n",
    "a WebSocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
}


@pytest.mark.parametrize("what", UPGRADES)
def test_an_upgrade_to_another_protocol_hides_no_request(what: str, rest: Gateway) -> None:
    received = exchange(rest, GET + UPGRADES[what] + b"Connection: close\r\n\r\n" + HIDDEN)
    assert received.count(b"HTTP/1.1 ") <= 1
    assert b"HTTP/1.1 200" not in received
    assert what == "HTTP/2" or b"HTTP/1.1 101" not in received


# --- HTTP/2 fields that an HTTP/1.1 server could read as further lines of a request

HEAD = {":method": "GET", ":scheme": "http", ":authority": "a", ":path": "/v1/secrets"}
FIELDS = {
    "a line break in a key": [("authorization", "Bearer a\r\nImpersonate-User: admin")],
    "a line feed in a value": [("x", "a\nb")],
    "a carriage return in a value": [("x", "a\rb")],
    "a NUL in a value": [("x", "a\0b")],
    "a space around a value": [("x", " a ")],
    "a line break in a name": [("x\r\ny", "a")],
    "a colon in a name": [("x:y", "a")],
    "a space in a name": [("x y", "a")],
    "a capital in a name": [("X", "a")],
    "an empty name": [("", "a")],
    "a transfer coding": [("transfer-encoding", "chunked")],
    "a connection header": [("connection", "close")],
    "an upgrade header": [("upgrade", "h2c")],
    "a different host": [("host", "b")],
    "two hosts": [("host", "a"), ("host", "a")],
    "a length without a body": [("content-length", "5")],
    "two lengths": [("content-length", "0"), ("content-length", "5")],
    "a second path": [(":path", "/healthz")],
    "an unknown pseudo-header": [(":x", "a")],
}
PSEUDO = {
    "a line break in the path": {":path": "/v1/secrets HTTP/1.1\r\nHost: a"},
    "a space in the path": {":path": "/v1/ secrets"},
    "a path without a slash": {":path": "v1/secrets"},
    "an empty path": {":path": ""},
    "a line break in the method": {":method": "GET /healthz HTTP/1.1\r\nX: a"},
    "a space in the method": {":method": "GET /healthz"},
    "a line break in the host": {":authority": "a\r\nX: a"},
    "a path in the host": {":authority": "a/b"},
    "a user in the host": {":authority": "b@a"},
    "a line break in the scheme": {":scheme": "http\r\nX: a"},
}


def status_over_http_2(it: Gateway, head: list[tuple[str, str]]) -> str | None:
    """Send a request without a body over HTTP/2 and return its status, or None if it's reset."""
    ours = h2.config.H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="utf-8"
    )
    protocol = h2.connection.H2Connection(ours)
    with closing(socket.create_connection(it.address, timeout=10)) as connection:
        protocol.initiate_connection()
        protocol.send_headers(1, head, end_stream=True)
        connection.sendall(protocol.data_to_send())
        while True:
            for event in protocol.receive_data(connection.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    return str(dict(event.headers or [])[":status"])  # type: ignore[index]  # header_encoding makes them text
                if isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                    return None


@pytest.mark.parametrize("what", FIELDS)
def test_a_field_that_could_become_another_line_is_rejected(what: str, rest: Gateway) -> None:
    assert status_over_http_2(rest, [*HEAD.items(), *FIELDS[what]]) in {None, "400"}


@pytest.mark.parametrize("what", PSEUDO)
def test_a_pseudo_header_that_could_become_another_line_is_rejected(what: str, rest: Gateway) -> None:
    assert status_over_http_2(rest, [*(HEAD | PSEUDO[what]).items()]) in {None, "400"}


def test_the_same_request_with_valid_fields_is_answered(rest: Gateway) -> None:
    assert status_over_http_2(rest, [*HEAD.items(), ("x", "a\tb"), ("host", "a"), ("te", "trailers")]) == "401"
