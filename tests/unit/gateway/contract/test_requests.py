"""Request bodies: which are accepted, and the errors for others, which repeat nothing."""

import json

import pytest
from pydantic import SecretStr

from devbox_secrets.errors import InvalidValue
from devbox_secrets.gateway.contract.errors import ErrorResponse
from devbox_secrets.gateway.contract.requests import Body, Creation, Nothing, Update, parse_body, to_bytes

CANARY = "canary-in-the-cage"
MALFORMED = {
    "no body": b"",
    "not JSON": f"name={CANARY}".encode(),
    "truncated": b'{"name": "A", "value": "' + CANARY.encode(),
    "not UTF-8": b'{"name": "A", "value": "\xff' + CANARY.encode() + b'"}',
    "UTF-16": json.dumps({"name": "A", "value": CANARY}).encode("utf-16"),
    "too deep": b"[" * 200_000,
    "a number too long": b'{"name": "A", "value": ' + b"9" * 10_000 + b"}",
    "NaN": b'{"name": "A", "value": NaN}',
    "a list": json.dumps([CANARY]).encode(),
    "a string": json.dumps(CANARY).encode(),
    "null": b"null",
    "an unknown field": json.dumps({"name": "A", "value": "v", CANARY: CANARY}).encode(),
    "a missing field": json.dumps({"name": CANARY}).encode(),
    "a duplicate field": f'{{"name": "A", "value": "{CANARY}", "value": "{CANARY}"}}'.encode(),
    "a number": json.dumps({"name": "A", "value": 1}).encode(),
    "an object": json.dumps({"name": "A", "value": {CANARY: CANARY}}).encode(),
    "no value": json.dumps({"name": "A", "value": None}).encode(),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_body_is_rejected_without_repeating_it(what: str) -> None:
    with pytest.raises(ErrorResponse) as caught:
        parse_body(MALFORMED[what], Creation)
    assert caught.value.status == 400
    assert "body" in str(caught.value) or "field `value`" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


UNKNOWN = "the request body has an unknown field; allowed:"


@pytest.mark.parametrize(
    ("raw", "model", "sentence"),
    [
        (b"[", Creation, "the request body isn't valid JSON in UTF-8"),
        (b'{"a": NaN}', Creation, "the request body isn't valid JSON in UTF-8"),
        (b"[]", Creation, "the request body must be a JSON object"),
        (b'{"a": 1, "a": 2}', Creation, "the request body has a duplicate field"),
        (b'{"value": "v"}', Creation, "the request body has no field `name`"),
        (b'{"value": 1}', Update, "the field `value` must be a Unicode string"),
        (b'{"name": "A", "value": "v", "x": 1}', Creation, f"{UNKNOWN} `name` and `value`"),
        (b'{"value": "v", "x": 1}', Update, f"{UNKNOWN} `value`"),
        (b'{"value": "v", "\\ud800": 1}', Update, f"{UNKNOWN} `value`"),
        (b'{"x": 1}', Nothing, f"{UNKNOWN} none"),
        (b"", Update, "the request body isn't valid JSON in UTF-8"),
    ],
)
def test_the_error_for_a_malformed_body_says_what_is_wrong(raw: bytes, model: type[Body], sentence: str) -> None:
    with pytest.raises(ErrorResponse) as caught:
        parse_body(raw, model)
    assert str(caught.value) == sentence


def test_a_deletion_s_body_is_empty_or_an_empty_object() -> None:
    assert parse_body(b"", Nothing) == parse_body(b" {} ", Nothing) == Nothing()
    for raw in (b"null", b"[]", b'{"name": "A"}'):
        with pytest.raises(ErrorResponse):
            parse_body(raw, Nothing)


def test_a_value_is_never_shown() -> None:
    assert CANARY not in repr(parse_body(json.dumps({"value": CANARY}).encode(), Update))


def test_a_value_is_sent_as_utf_8() -> None:
    assert to_bytes(SecretStr("é")).get_secret_value() == b"\xc3\xa9"


def test_a_value_with_half_of_a_surrogate_pair_is_rejected() -> None:
    with pytest.raises(InvalidValue) as caught:
        to_bytes(SecretStr(f"{CANARY}\ud800"))
    assert str(caught.value) == "the field `value` contains an unpaired surrogate, which isn't valid Unicode"
    assert caught.value.__suppress_context__
