"""The envelope: the vectors are its specification; the other tests check its properties."""

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretBytes

from devbox_secrets.api.validation import SEALED_MAX_LENGTH, SEALED_MIN_LENGTH, SEALED_PATTERN, VARIABLE_MAX_BYTES
from devbox_secrets.crypto.envelope import KeyPair, Keyring, PublicKey, key_id_of
from devbox_secrets.errors import (
    CannotOpen,
    DevboxSecretsError,
    InvalidKey,
    InvalidName,
    InvalidValue,
    NotSealed,
    UnknownKey,
    ValueTooLarge,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "dbs1.json").read_text())
NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = KeyPair(SecretBytes(bytes.fromhex(VECTORS["key"]["seed"])), NOW)
RING = Keyring([KEY])
SEALED = KEY.public.seal(SecretBytes(b"value"), account="a", name="B")
ONE_LINE = "contains whitespace or a line break; write it on one line without whitespace"
STAGES: dict[str, type[DevboxSecretsError]] = {
    "format": NotSealed,
    "key": UnknownKey,
    "open": CannotOpen,
    "value": InvalidValue,
}

accounts = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
variables = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,30}", fullmatch=True)
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).map(
    lambda text: SecretBytes(text.encode())
)


def about(vector: dict[str, Any]) -> str:
    return str(vector["about"])


def test_the_public_key_of_a_seed_is_that_of_x_wing() -> None:
    assert str(KEY.public) == VECTORS["key"]["public"]
    assert KEY.public.id == VECTORS["key"]["id"]


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=about)
def test_a_valid_vector_opens_to_its_value(vector: dict[str, str]) -> None:
    value = RING.open(vector["sealed"], account=vector["account"], name=vector["name"])
    assert value.get_secret_value() == base64.b64decode(vector["value"])


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=about)
def test_an_invalid_vector_is_rejected_at_its_stage(vector: dict[str, str]) -> None:
    with pytest.raises(STAGES[vector["stage"]]) as caught:
        RING.open(vector["sealed"], account=vector["account"], name=vector["name"])
    assert type(caught.value) is STAGES[vector["stage"]]
    # The error shows neither the input nor its cause.
    assert vector["sealed"] == "" or vector["sealed"] not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_every_failure_to_open_has_the_same_message() -> None:
    messages = set()
    for vector in VECTORS["invalid"]:
        if vector["stage"] == "open":
            with pytest.raises(CannotOpen) as caught:
                RING.open(vector["sealed"], account="team-a", name="TOKEN")
            messages.add(str(caught.value))
    assert len(messages) == 1
    assert "devbox-secrets seal TOKEN --account team-a" in messages.pop()


@given(value=values, account=accounts, name=variables)
def test_a_sealed_value_opens(value: SecretBytes, account: str, name: str) -> None:
    sealed = KEY.public.seal(value, account=account, name=name)
    assert key_id_of(sealed) == KEY.public.id
    assert RING.open(sealed, account=account, name=name) == value


@given(
    value=values,
    pairs=st.lists(st.tuples(accounts, variables), min_size=2, max_size=2, unique=True),
)
def test_a_sealed_value_does_not_open_for_another_account_or_name(
    value: SecretBytes, pairs: list[tuple[str, str]]
) -> None:
    (account, name), (other_account, other_name) = pairs
    sealed = KEY.public.seal(value, account=account, name=name)
    with pytest.raises(CannotOpen):
        RING.open(sealed, account=other_account, name=other_name)


@given(data=st.data())
def test_every_change_of_a_character_is_detected(data: st.DataObject) -> None:
    sealed = KEY.public.seal(SecretBytes(b"canary"), account="a", name="B")
    place = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != sealed[place]))
    with pytest.raises((NotSealed, UnknownKey, CannotOpen)):
        RING.open(sealed[:place] + other + sealed[place + 1 :], account="a", name="B")


@given(text=st.text())
def test_any_other_text_is_not_sealed(text: str) -> None:
    with pytest.raises(NotSealed):
        RING.open(text, account="a", name="B")


def test_the_same_value_is_sealed_to_a_different_text_each_time() -> None:
    first, second = (KEY.public.seal(SecretBytes(b"canary"), account="a", name="B") for _ in range(2))
    assert first != second


def test_the_api_accepts_the_smallest_and_the_largest_sealed_value() -> None:
    smallest = KEY.public.seal(SecretBytes(b""), account="a", name="B")
    largest = KEY.public.seal(SecretBytes(b"x" * (VARIABLE_MAX_BYTES - len("B=") - 1)), account="a", name="B")
    assert len(smallest) == SEALED_MIN_LENGTH
    assert len(largest) <= SEALED_MAX_LENGTH
    assert re.fullmatch(SEALED_PATTERN, smallest)


@pytest.mark.parametrize(
    ("name", "value", "error", "hint"),
    [
        ("B", b"a\0b", InvalidValue, "base64"),
        ("B", b"\xff", InvalidValue, "base64"),
        ("B", b"x" * (VARIABLE_MAX_BYTES - 2), ValueTooLarge, "131,072"),
        ("1B", b"x", InvalidName, "GITHUB_TOKEN"),
        ("A-B", b"x", InvalidName, "GITHUB_TOKEN"),
        ("", b"x", InvalidName, "GITHUB_TOKEN"),
        ("É", b"x", InvalidName, "GITHUB_TOKEN"),
        ("A\n", b"x", InvalidName, "GITHUB_TOKEN"),
        ("A" * 254, b"x", InvalidName, "253"),
    ],
)
def test_a_name_or_value_that_no_environment_variable_can_have_is_not_sealed(
    name: str, value: bytes, error: type[DevboxSecretsError], hint: str
) -> None:
    with pytest.raises(error, match=hint) as caught:
        KEY.public.seal(SecretBytes(value), account="a", name=name)
    assert repr(value) not in str(caught.value)


def test_a_public_key_can_be_parsed_from_its_text() -> None:
    assert PublicKey.parse(f"  {KEY.public}\n") == KEY.public


NOT_A_KEY = "not a public sealing key: it doesn't start with dbs1-public."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", NOT_A_KEY),
        ("dbs1-public", NOT_A_KEY),
        ("white space", NOT_A_KEY),
        (str(KEY.public)[:-1], "the public sealing key is damaged: not base64url"),
        (
            str(KEY.public).replace(KEY.public.id, "0" * 16),
            "the public sealing key is damaged: its id doesn't match its bytes",
        ),
        (str(KEY.public) + "AAAA", "a public sealing key has 1216 bytes, not 1219"),
        ("dbs1-public.0123456789abcdef.AAAA", "a public sealing key has 1216 bytes, not 3"),
    ],
)
def test_a_damaged_public_key_is_rejected(text: str, message: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        PublicKey.parse(text)
    assert str(caught.value) == message


def test_a_key_pair_can_be_loaded_from_its_dump() -> None:
    key = KeyPair.generate(NOW)
    assert KeyPair.load(key.dump()) == key


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b"\xff", b'{"created": "x", "seed": "AAAA"}',
     b'{"created": "2026-01-01T00:00:00+00:00", "seed": "canary"}'],
)  # fmt: skip
def test_a_damaged_key_pair_is_rejected_without_showing_it(raw: bytes) -> None:
    with pytest.raises(InvalidKey) as caught:
        KeyPair.load(raw)
    assert str(caught.value) == "not a sealing key written by devbox-secrets"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_seed_of_another_length_is_rejected_without_showing_it(length: int) -> None:
    with pytest.raises(InvalidKey) as caught:
        KeyPair(SecretBytes(b"x" * length), NOW)
    assert str(caught.value) == f"a sealing key's seed has 32 bytes, not {length}"


def test_a_creation_time_without_a_time_zone_is_rejected_without_showing_the_seed() -> None:
    with pytest.raises(InvalidKey) as caught:
        KeyPair.load(b'{"created": "2026-01-01T00:00:00", "seed": "' + b"A" * 43 + b'"}')
    assert str(caught.value) == "a sealing key's creation time has no time zone"
    assert caught.value.__context__ is None


@pytest.mark.parametrize("length", [0, 1215, 1217])
def test_a_public_key_of_another_length_is_rejected(length: int) -> None:
    with pytest.raises(InvalidKey) as caught:
        PublicKey(b"x" * length)
    assert str(caught.value) == f"a public sealing key has 1216 bytes, not {length}"


def test_the_newest_of_keys_created_at_the_same_moment_is_always_the_same_one() -> None:
    other = KeyPair(SecretBytes(bytes(32)), NOW)
    assert Keyring([other, KEY]).newest_first() == Keyring([KEY, other]).newest_first()


def test_the_newest_key_is_the_one_created_last() -> None:
    newer = KeyPair.generate(datetime(2026, 1, 2, tzinfo=UTC))
    assert Keyring([newer, KEY]).newest == newer
    assert set(Keyring([newer, KEY])) == {newer.public.id, KEY.public.id}


def test_no_key_prints_its_seed() -> None:
    seed = KEY.seed.get_secret_value()
    for text in (repr(KEY), str(KEY), repr(RING), repr(KEY.public)):
        assert seed.hex() not in text
        assert repr(seed) not in text


@pytest.mark.parametrize(
    "text",
    [
        f" {SEALED}",
        f"{SEALED}\n",
        f"{SEALED[:80]}\n  {SEALED[80:]}",
        f"{SEALED[:80]}\u00a0{SEALED[80:]}",
    ],
)
def test_white_space_in_a_sealed_value_is_reported(text: str) -> None:
    with pytest.raises(NotSealed) as caught:
        key_id_of(text)
    assert str(caught.value) == f"the sealed value {ONE_LINE}"


@pytest.mark.parametrize("text", ["plain text", "dbs2.0 0"])
def test_other_text_with_white_space_is_not_mistaken_for_a_sealed_value(text: str) -> None:
    with pytest.raises(NotSealed) as caught:
        key_id_of(text)
    assert str(caught.value) == "not a sealed value: it doesn't start with dbs1. and a key id"


@pytest.mark.parametrize(
    ("sealed", "message"),
    [
        (f"dbs1.{KEY.public.id}.AB", "the sealed value is damaged: not base64url"),
        (
            SEALED.replace(KEY.public.id, "0" * 16),
            (
                "the value is sealed with the key 0000000000000000, which this cluster doesn't have; seal it again:"
                " devbox-secrets seal B"
            ),
        ),
        (
            f"dbs1.{KEY.public.id}.AAAA",
            (
                "cannot decrypt the sealed value for the account a and the name B: it was sealed for another account or"
                " name, or it is damaged; seal it again: devbox-secrets seal B --account a"
            ),
        ),
    ],
)
def test_the_error_for_a_value_that_does_not_open_says_what_to_do(sealed: str, message: str) -> None:
    with pytest.raises(DevboxSecretsError) as caught:
        RING.open(sealed, account="a", name="B")
    assert str(caught.value) == message


def test_a_value_that_opens_is_checked_for_its_variable() -> None:
    largest = KEY.public.seal(SecretBytes(b"x" * (VARIABLE_MAX_BYTES - len("B=\0"))), account="a", name="B")
    assert len(RING.open(largest, account="a", name="B")) == VARIABLE_MAX_BYTES - len("B=\0")
    vector = next(each for each in VECTORS["invalid"] if each["stage"] == "value")
    with pytest.raises(InvalidValue, match=f"the value of {vector['name']} "):
        RING.open(vector["sealed"], account=vector["account"], name=vector["name"])


@pytest.mark.parametrize("text", [SEALED[:20], "dbs1.", f"{SEALED}=", SEALED.replace("dbs1.", "dbs1.x", 1)])
def test_a_damaged_sealed_value_is_reported_as_damaged(text: str) -> None:
    with pytest.raises(NotSealed) as caught:
        key_id_of(text)
    assert str(caught.value) == "the sealed value is damaged or incomplete"


@pytest.mark.parametrize("text", ["dbs1-public.", str(KEY.public)[:20], f"{KEY.public}="])
def test_a_damaged_public_key_is_reported_as_damaged(text: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        PublicKey.parse(text)
    assert str(caught.value) == "the public sealing key is damaged or incomplete"


#: An ML-KEM-768 public key's coefficients are below 3,329; X25519 has no shared secret for points of small order.
INVALID_HALVES = {
    "ML-KEM-768": b"\xff" * 1184 + KEY.public.raw[1184:],
    "X25519: 0": KEY.public.raw[:1184] + bytes(32),
    "X25519: 1": KEY.public.raw[:1184] + b"\1" + bytes(31),
    "X25519: of order 8": KEY.public.raw[:1184]
    + bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
}


@pytest.mark.parametrize("raw", INVALID_HALVES.values(), ids=INVALID_HALVES)
def test_a_public_key_with_an_invalid_half_is_rejected(raw: bytes) -> None:
    with pytest.raises(InvalidKey) as caught:
        PublicKey.parse(str(PublicKey(raw)))
    assert str(caught.value) == ("the public sealing key is invalid: its ML-KEM-768 or X25519 half can't be used")


@pytest.mark.parametrize("at", [0, 20, 22, 50, 600])
@pytest.mark.parametrize("space", [" ", "\n", "\r\n  "])
def test_white_space_in_a_public_key_is_reported(at: int, space: str) -> None:
    text = str(KEY.public)
    split = len("dbs1-public.") + at
    with pytest.raises(InvalidKey) as caught:
        PublicKey.parse(text[:split] + space + text[split:])
    assert str(caught.value) == f"the public sealing key {ONE_LINE}"


@st.composite
def damaged_keys(draw: st.DrawFn) -> bytes:
    """Generate a public key in which some bytes are replaced."""
    raw, piece = KEY.public.raw, draw(st.binary(min_size=1, max_size=64))
    start = draw(st.integers(0, len(raw) - 1))
    return (raw[:start] + piece + raw[start + len(piece) :])[: len(raw)]


def check_seals_or_is_rejected(text: str) -> None:
    try:
        key = PublicKey.parse(text)
    except InvalidKey:
        return
    assert key_id_of(key.seal(SecretBytes(b"value"), account="a", name="B")) == key.id


@given(damaged_keys())
def test_a_damaged_public_key_with_the_id_of_its_bytes_is_rejected_or_can_seal(raw: bytes) -> None:
    check_seals_or_is_rejected(str(PublicKey(raw)))


@given(st.integers(0, 1700), st.integers(0, 1700), st.text(max_size=20))
def test_a_public_key_with_other_text_in_it_is_rejected_or_can_seal(start: int, end: int, piece: str) -> None:
    text = str(KEY.public)
    check_seals_or_is_rejected(text[:start] + piece + text[end:])


@given(st.text())
def test_any_text_is_rejected_or_can_seal(text: str) -> None:
    check_seals_or_is_rejected(text)
    check_seals_or_is_rejected(f"dbs1-public.{text}")
