"""Unusual HTTP/1.1 requests get a proper response, which never repeats what the client sent."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from integration.support.gateway import Gateway
from integration.support.gateway_requests import create, error_message

CANARY = b"canary_in_the_cage"
BODY = b'{"name": "A", "value": "%s"}' % CANARY
CHUNKED = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:5], BODY[5:], b""))


def exchange(rest: Gateway, key: str, line: bytes, *headers: bytes, body: bytes = b"") -> list[httpx.Response]:
    """Send a request and return the responses until the gateway closes the connection."""
    host, _, port = rest.url.removeprefix("http://").partition(":")
    head = [line, b"Host: a", b"Connection: close", f"Authorization: Bearer {key}".encode(), *headers]
    with closing(socket.create_connection((host, int(port)), timeout=20)) as connection:
        connection.sendall(b"\r\n".join(head) + b"\r\n\r\n" + body)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert CANARY not in received
    return list(_responses(received))


def _responses(received: bytes) -> Iterator[httpx.Response]:
    """Parse the responses: an interim one has only a head; the rest of the bytes is the body of the last one."""
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        answer = httpx.Response(
            int(status.split()[1]),
            headers=[(name, value) for name, _, value in (line.partition(": ") for line in lines)],
        )
        if answer.is_informational:
            yield answer
            continue
        yield httpx.Response(answer.status_code, headers=answer.headers, content=received)
        return


CREATE = b"POST /v1/secrets HTTP/1.1"
LIST = b"GET /v1/secrets HTTP/1.1"
#: What the HTTP server itself rejects before the application sees a request; the response has no error body.
MALFORMED = {
    "a length that is a word": (CREATE, b"Content-Length: %s" % CANARY, 400),
    "a length below zero": (CREATE, b"Content-Length: -1", 400),
    "a length of many digits": (CREATE, b"Content-Length: " + b"9" * 30, 400),
    "an unknown transfer coding": (CREATE, b"Transfer-Encoding: gzip", 400),
    "a length and chunks": (CREATE, b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
    "a header with a NUL": (LIST, b"X: %s\0" % CANARY, 400),
    "a header without a name": (LIST, b": %s" % CANARY, 400),
    "bytes in the query": (b"GET /v1/secrets?starting_after=\xff HTTP/1.1", b"X: x", 400),
    "a line that doesn't end": (b"GET /v1/secrets?a=" + CANARY * 10_000 + b" HTTP/1.1", b"X: x", 431),
    "a name with half an escape": (b"GET /v1/secrets/%zz%f HTTP/1.1", b"X: x", 400),
    "a tunnel": (b"CONNECT a:443 HTTP/1.1", b"X: x", 501),
    "a malformed upgrade to HTTP/2": (
        LIST,
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: !",
        400,
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_the_server_rejects_malformed_requests(what: str, rest: Gateway, key: str) -> None:
    line, header, status = MALFORMED[what]
    (answer,) = exchange(rest, key, line, header, body=BODY + b"\r\n")
    assert answer.status_code == status


def test_chunks_without_a_size_close_the_connection(rest: Gateway, key: str) -> None:
    assert exchange(rest, key, CREATE, b"Transfer-Encoding: chunked", body=BODY + b"\r\n") == []


REJECTED = {
    "a truncated body": (CREATE, [b"Content-Length: 5"], 400),
    "no length": (CREATE, [], 400),
    "an unknown expectation": (CREATE, [b"Expect: %s" % CANARY, b"Content-Length: 5"], 400),
    "a request id that isn't ASCII": (CREATE, [b"x-request-id: \xff\xfe", b"Content-Length: 5"], 400),
    "an account that isn't ASCII": (LIST, [b"X-Devbox-Secrets-Account: \xc3\xa9"], 400),
    "a number that isn't UTF-8": (b"GET /v1/secrets?limit=%ff HTTP/1.1", [], 400),
    "a number of 5,000 digits": (b"GET /v1/secrets?limit=" + b"9" * 5_000 + b" HTTP/1.1", [], 400),
    "an id that isn't UTF-8": (b"GET /v1/secrets?starting_after=%ff%00 HTTP/1.1", [], 400),
    "an id of 12,000 bytes": (b"GET /v1/secrets?starting_after=" + b"9" * 12_000 + b" HTTP/1.1", [], 400),
    "two slashes": (b"GET //v1/secrets HTTP/1.1", [], 404),
    "two slashes inside the path": (b"GET /v1//secrets HTTP/1.1", [], 404),
    "a parent directory": (b"GET /v1/secrets/../secrets HTTP/1.1", [], 404),
    "a name with a slash": (b"GET /v1/secrets/id%2Fsec_0 HTTP/1.1", [], 404),
    "no path": (b"OPTIONS * HTTP/1.1", [], 404),
    "a request for the allowed methods": (b"OPTIONS /v1/secrets HTTP/1.1", [], 405),
    "an echo": (b"TRACE /v1/secrets HTTP/1.1", [], 405),
    "an unknown method": (CANARY + b" /v1/secrets HTTP/1.1", [], 405),
}


@pytest.mark.parametrize("what", REJECTED)
def test_the_gateway_rejects_invalid_requests(what: str, rest: Gateway, key: str) -> None:
    line, headers, status = REJECTED[what]
    (answer,) = exchange(rest, key, line, *headers, body=BODY[:5] if b"Content-Length: 5" in headers else b"")
    error_message(answer, status, {400: "BadRequest", 404: "NotFound", 405: "MethodNotAllowed"}[status])
    assert status != 405 or answer.headers["allow"] == "GET, POST"


def test_a_head_request_gets_405_without_a_body(rest: Gateway, key: str) -> None:
    (answer,) = exchange(rest, key, b"HEAD /v1/secrets HTTP/1.1")
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (405, b"", "GET, POST")


def test_an_absolute_url_is_accepted_as_a_target(rest: Gateway, key: str) -> None:
    (answer,) = exchange(rest, key, b"GET http://a/v1/secrets HTTP/1.1")
    assert (answer.status_code, answer.json()["secrets"]) == (200, [])


ACCEPTED = {
    "chunks": ([b"Transfer-Encoding: chunked"], CHUNKED, [200]),
    "a body after 100 Continue": (
        [b"Expect: 100-continue", b"Content-Length: %d" % len(BODY)],
        BODY,
        [100, 200],
    ),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_a_body_is_accepted_in_each_form(what: str, rest: Gateway, key: str, api: httpx.Client) -> None:
    headers, body, statuses = ACCEPTED[what]
    answers = exchange(rest, key, CREATE, *headers, body=body)
    assert [answer.status_code for answer in answers] == statuses
    assert json.loads(answers[-1].content) == api.post("/v1/secrets/A/delete").json()


def test_an_encoded_slash_in_a_name_does_not_select_another_endpoint(
    rest: Gateway, key: str, api: httpx.Client
) -> None:
    made = create(api, "A")
    for name in (b"A%2Fdelete", b"A%2fdelete", b"id%2F" + made["id"].encode() + b"%2Fdelete"):
        (answer,) = exchange(rest, key, b"POST /v1/secrets/%s HTTP/1.1" % name, b"Content-Length: 0")
        assert answer.status_code in {400, 404}
    assert api.post("/v1/secrets/A/delete").json() == made
