"""Malformed HTTP/1.1, and requests hidden in other requests: none of them is answered as a request of its own."""

import socket
from contextlib import closing, suppress

import h2.config
import h2.connection
import h2.events
import pytest

from integration.support.gateway import Gateway

#: What would be answered with 200. It stands where a body is, or behind what is no request.
HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
#: Without a key the answer is 401, as soon as the head is read.
POST = b"POST /v1/secrets HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /v1/secrets HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST = b"0\r\n\r\n"


def answer(it: Gateway, sent: bytes) -> bytes:
    """Send these bytes, and give what comes until the gateway closes the connection."""
    received = b""
    with closing(socket.create_connection(it.address, timeout=10)) as connection, suppress(ConnectionError):
        with suppress(OSError):  # it may close while something is still sent
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            received += part
    return received


def statuses(it: Gateway, sent: bytes) -> list[int]:
    """Send these bytes, and give the status of each answer until the gateway closes the connection."""
    received = answer(it, sent)
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        found.append(int(line.split()[1]))
        headers = dict(field.lower().split(b": ", 1) for field in fields)
        received = received[int(headers.get(b"content-length", b"0")) :]
    return found


def chunk(size: bytes, data: bytes = b"hello") -> bytes:
    """Give a chunked request whose first chunk has a size line as it's given."""
    return POST + CHUNKED + b"\r\n" + size + b"\r\n" + data + b"\r\n" + LAST


#: Where a body ends is said in two ways, or in one that two servers may read differently.
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
    "chunks and no coding": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + LAST,
    "no coding and a length": POST + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "compressed chunks": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + LAST,
    "a coding behind the chunks": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + LAST,
    "a coding that is unknown": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + LAST,
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
    "a byte over ASCII in the name": POST + b"Content-Length\xa0: 5\r\n\r\nhello",
    "a coding in HTTP/1.0": b"POST /v1/secrets HTTP/1.0\r\nHost: a\r\n" + CHUNKED + b"\r\n" + LAST,
}
LINES = {
    "a folded line": GET + b"X: a\r\n b\r\n\r\n",
    "a line without a colon": GET + b"X\r\n\r\n",
    "a field without a name": GET + b": a\r\n\r\n",
    "line feeds alone": GET.replace(b"\r\n", b"\n") + b"\n",
    "a line feed alone in a field": GET + b"X: a\nContent-Length: 50\r\n\r\n",
    "a line feed alone behind the head": GET + b"X: a\r\n\n",
    "a carriage return alone in a field": GET + b"X: a\rContent-Length: 50\r\n\r\n",
    "carriage returns alone": GET.replace(b"\r\n", b"\r") + b"\r",
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
    "HTTP/2.0 as a word": b"GET /v1/secrets HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/11.1": b"GET /v1/secrets HTTP/11.1\r\nHost: a\r\n\r\n",
    "http/1.1": b"GET /v1/secrets http/1.1\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  /v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tab for a space": b"GET\t/v1/secrets\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in the path": b"GET /v1/secrets /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space before the method": b" GET /v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space behind the version": b"GET /v1/secrets HTTP/1.1 \r\nHost: a\r\n\r\n",
    "a fragment": b"GET /v1/secrets#a HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method with a colon": b"GET: /v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n",
    "a relative path": b"GET v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n",
    "another host in the target": b"GET http://b/v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n",
    "a user in the target": b"GET http://b@a/v1/secrets HTTP/1.1\r\nHost: a\r\n\r\n",
    "an authority for a target": b"GET a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "an asterisk for a target": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "HTTP/2 behind a request's head": GET + b"X: a\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS on cleartext": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160),
}


@pytest.mark.parametrize("what", [*AMBIGUOUS, *LINES])
def test_what_is_no_request_is_refused_and_ends_its_connection(what: str, rest: Gateway) -> None:
    found = statuses(rest, (AMBIGUOUS | LINES)[what] + HIDDEN)
    assert len(found) <= 1
    assert set(found) <= {400, 413, 501, 505}


#: What comes in chunks shows only after the answer to its head, which needs no body.
CHUNKS = {
    "a size below zero": chunk(b"-5"),
    "a size with a sign": chunk(b"+5"),
    "a size with a prefix": chunk(b"0x5"),
    "a size with a space before it": chunk(b" 5"),
    "a size with a space behind it": chunk(b"5 "),
    "a size with an underscore": chunk(b"0_5"),
    "no size": chunk(b""),
    "a size over 64 bits": chunk(b"10000000000000005"),
    "the largest size": chunk(b"ffffffffffffffff"),
    "a size that ends in a line feed": POST + CHUNKED + b"\r\n5\nhello\r\n" + LAST,
    "an extension that ends in a line feed": POST + CHUNKED + b"\r\n5;a\nhello\r\n" + LAST,
    "an extension with a carriage return": chunk(b"5;a\rb"),
    "an extension without a name": chunk(b"5;=a"),
    "an extension whose quote doesn't end": chunk(b'5;a="b'),
    "an extension that is too long": chunk(b"5;a=" + b"b" * 20_000),
    "a chunk that is too long": chunk(b"5", b"hello!"),
    "a chunk that ends in a line feed": POST + CHUNKED + b"\r\n5\r\nhello\n" + LAST,
    "a chunk that ends in its data": POST + CHUNKED + b"\r\n5\r\nhello" + LAST,
    "a last chunk that ends in a line feed": POST + CHUNKED + b"\r\n0\n\n",
    "a last chunk with a hidden line feed": POST + CHUNKED + b"\r\n0\r\n\n",
    "a trailer that sets a length": POST + CHUNKED + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a trailer that is folded": POST + CHUNKED + b"\r\n0\r\nX: a\r\n b\r\n\r\n",
    "a trailer without a colon": POST + CHUNKED + b"\r\n0\r\nX\r\n\r\n",
    "too many trailers": POST + CHUNKED + b"\r\n0\r\n" + b"X: a\r\n" * 20_000 + b"\r\n",
}


@pytest.mark.parametrize("what", CHUNKS)
def test_a_damaged_body_ends_its_connection_after_one_answer(what: str, rest: Gateway) -> None:
    found = statuses(rest, CHUNKS[what] + HIDDEN)
    assert len(found) <= 1
    assert set(found) <= {400, 401, 413}


#: Well-formed requests, each of which has a body that holds another request, or asks for another protocol.
BODIES = {
    "a length": POST + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "the same length twice": POST + b"Content-Length: %d\r\n" % len(HIDDEN) * 2 + b"\r\n" + HIDDEN,
    "a length with zeros": POST + b"Content-Length: 000%d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "chunks": POST + CHUNKED + b"\r\n%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n" + LAST,
    "chunks in capitals": POST + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n%X\r\n" % len(HIDDEN) + HIDDEN + b"\r\n" + LAST,
    "chunks with extensions": chunk(b'%x;a;b=c;d="e;\\"f"' % len(HIDDEN), HIDDEN),
    "chunks with a trailer": POST + CHUNKED + b"\r\n%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\nX: a\r\n\r\n",
    "a method that has none": GET + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a method that is unknown": b"NONE /v1/secrets HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN)
    + HIDDEN,
    "a path that is unknown": b"POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "an expectation": POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "an expectation that is unknown": POST + b"Expect: 200-ok\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "an offer of another protocol": POST
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN)
    + HIDDEN,
    "a header that replaces the path": POST
    + b"X-Original-URL: /healthz\r\nX-Rewrite-URL: /healthz\r\nX-HTTP-Method-Override: GET\r\n"
    + b"Content-Length: %d\r\n\r\n" % len(HIDDEN)
    + HIDDEN,
    "its length among the connection's headers": POST
    + b"Connection: Content-Length\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN)
    + HIDDEN,
    "its length in an empty connection header": POST
    + b"Connection:\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN)
    + HIDDEN,
}


@pytest.mark.parametrize("what", BODIES)
def test_a_request_within_a_body_is_not_answered(what: str, rest: Gateway) -> None:
    found = [status for status in statuses(rest, BODIES[what]) if status != 100]
    assert len(found) == 1
    assert found[0] in {400, 401, 404, 405}


@pytest.mark.parametrize("what", ["a length", "chunks", "a method that has none"])
def test_the_request_behind_a_body_is_answered(what: str, rest: Gateway) -> None:
    assert statuses(rest, BODIES[what] + HIDDEN) == [401, 200]


def test_requests_behind_one_another_are_answered_in_their_order(rest: Gateway) -> None:
    assert statuses(rest, HIDDEN + GET + b"\r\n" + HIDDEN) == [200, 401, 200]


def test_nothing_behind_a_request_that_closes_its_connection_is_answered(rest: Gateway) -> None:
    assert statuses(rest, GET + b"Connection: close\r\n\r\n" + HIDDEN) == [401]


#: Offers of another protocol, which aren't taken, or taken for what follows alone.
OFFERS = {
    "HTTP/2": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "HTTP/2 without settings": b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    "HTTP/2 with damaged settings": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: !!\r\n",
    "TLS": b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n",
    "a websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
}


@pytest.mark.parametrize("what", OFFERS)
def test_an_offer_of_another_protocol_hides_no_request(what: str, rest: Gateway) -> None:
    received = answer(rest, GET + OFFERS[what] + b"Connection: close\r\n\r\n" + HIDDEN)
    assert received.count(b"HTTP/1.1 ") <= 1
    assert b"HTTP/1.1 200" not in received
    assert what == "HTTP/2" or b"HTTP/1.1 101" not in received


# --- HTTP/2, whose fields could become lines of another request

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
    "a connection's header": [("connection", "close")],
    "an offer of another protocol": [("upgrade", "h2c")],
    "a host of its own": [("host", "b")],
    "two hosts": [("host", "a"), ("host", "a")],
    "a length of no body": [("content-length", "5")],
    "two lengths": [("content-length", "0"), ("content-length", "5")],
    "a second path": [(":path", "/healthz")],
    "a pseudo-header that is unknown": [(":x", "a")],
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


def ending(it: Gateway, head: list[tuple[str, str]]) -> str | None:
    """Send a request without a body over HTTP/2, and give its status, or nothing when it's reset."""
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
                    return str(dict(event.headers or [])[":status"])  # type: ignore[index]  # by `ours` they are text
                if isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                    return None


@pytest.mark.parametrize("what", FIELDS)
def test_a_field_that_could_be_another_line_is_refused(what: str, rest: Gateway) -> None:
    assert ending(rest, [*HEAD.items(), *FIELDS[what]]) in {None, "400"}


@pytest.mark.parametrize("what", PSEUDO)
def test_a_pseudo_header_that_could_be_another_line_is_refused(what: str, rest: Gateway) -> None:
    assert ending(rest, [*(HEAD | PSEUDO[what]).items()]) in {None, "400"}


def test_the_same_request_without_it_is_answered(rest: Gateway) -> None:
    assert ending(rest, [*HEAD.items(), ("x", "a\tb"), ("host", "a"), ("te", "trailers")]) == "401"
