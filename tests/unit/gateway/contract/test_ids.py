"""A secret's id: it identifies its object, and ids sort by time of creation."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbox_secrets.gateway.contract.ids import ID_MAX_LENGTH, SecretId

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", fullmatch=True)
UID = "7d9f7c1e-9f0b-4f43-9d64-0a8d7b8a9c55"


@given(st.integers(0, 2**48 - 1), st.uuids(), NAMES)
def test_an_id_identifies_its_object(created: int, uid: UUID, name: str) -> None:
    it = SecretId(created, uid, name)
    assert SecretId.parse(it.text) == it
    assert it.text.removeprefix("sec_").isalnum()


def test_the_longest_id_identifies_its_object() -> None:
    it = SecretId(2**48 - 1, UUID(UID), "a" * 253)
    assert len(it.text) == ID_MAX_LENGTH
    assert SecretId.parse(it.text) == it


@given(st.tuples(st.integers(0, 2**48 - 1), st.uuids(), NAMES), st.tuples(st.integers(0, 2**48 - 1), st.uuids(), NAMES))
def test_ids_sort_by_time_of_creation(a: tuple[int, UUID, str], b: tuple[int, UUID, str]) -> None:
    if a[:2] != b[:2]:
        assert (SecretId(*a).text < SecretId(*b).text) == (a[0] < b[0] or (a[0] == b[0] and a[1].bytes < b[1].bytes))


@pytest.mark.parametrize(
    "text",
    {
        "nothing": "",
        "no digits": "sec_",
        "another prefix": "key_0123456789",
        "no prefix": SecretId(1, UUID(UID), "a").text.removeprefix("sec_"),
        "too short": SecretId(1, UUID(UID), "a").text[:-2],
        "not base32": "sec_zzzzzzzz",
        "capitals": SecretId(1, UUID(UID), "a").text.upper(),
        "padding": SecretId(1, UUID(UID), "a").text + "=",
        "not ASCII": "sec_é",
        "a name with two dots": SecretId(1, UUID(UID), "../pods").text,
        "a name with a slash": SecretId(1, UUID(UID), "a/status").text,
        "too long": "sec_" + "0" * 100_000,
    }.values(),
)
def test_other_texts_are_not_ids(text: str) -> None:
    assert SecretId.parse(text) is None
