"""The gateway's pure rooms: ids, records with their times and marks, bodies, bearer tokens."""

import asyncio
import json
import re
from typing import Any, NoReturn
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbox_secrets.errors import ClusterError
from devbox_secrets.gateway.answers import Declined
from devbox_secrets.gateway.bodies import Creation, Nothing, Update, parse_body
from devbox_secrets.gateway.callers import REMEMBERED_SECONDS, Callers
from devbox_secrets.gateway.ids import SecretId
from devbox_secrets.gateway.record import Record, mark_of, notes_of_creation, notes_of_update, read_object, read_table
from devbox_secrets.gateway.upstream import refusal
from devbox_secrets.manifest import object_names

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", fullmatch=True)
UID = "7d9f7c1e-9f0b-4f43-9d64-0a8d7b8a9c55"


# --- Ids


@given(st.integers(0, 2**48 - 1), st.uuids(), NAMES)
def test_an_id_finds_its_object_again(created: int, uid: UUID, name: str) -> None:
    it = SecretId(created, uid, name)
    assert SecretId.parse(str(it)) == it
    assert str(it).removeprefix("sec_").isalnum()


@given(st.tuples(st.integers(0, 2**48 - 1), st.uuids(), NAMES), st.tuples(st.integers(0, 2**48 - 1), st.uuids(), NAMES))
def test_ids_sort_as_their_secrets_were_made(a: tuple[int, UUID, str], b: tuple[int, UUID, str]) -> None:
    if a[:2] != b[:2]:
        assert (str(SecretId(*a)) < str(SecretId(*b))) == (a[0] < b[0] or (a[0] == b[0] and a[1].bytes < b[1].bytes))


@pytest.mark.parametrize(
    "text",
    {
        "nothing": "",
        "no digits": "sec_",
        "another prefix": "key_0123456789",
        "too short": str(SecretId(1, UUID(UID), "a"))[:-2],
        "no base32": "sec_zzzzzzzz",
        "capitals": str(SecretId(1, UUID(UID), "a")).upper(),
        "padding": str(SecretId(1, UUID(UID), "a")) + "=",
        "not ASCII": "sec_é",
        "a name that leads elsewhere": str(SecretId(1, UUID(UID), "../pods")),
        "a name with a slash": str(SecretId(1, UUID(UID), "a/status")),
        "too long": "sec_" + "0" * 100_000,
    }.values(),
)
def test_what_is_no_id_finds_nothing(text: str) -> None:
    assert SecretId.parse(text) is None


# --- Records


def metadata(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - as Kubernetes has it
    return {
        "name": "token",
        "uid": UID,
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:10Z",
        **more,
    }


def owned(manager: str, time: str, *, field: str = "f:sealed") -> dict[str, Any]:
    return {"manager": manager, "time": time, "fieldsV1": {"f:spec": {field: {}}}}


SECOND = 1_767_225_610_000  # 2026-01-01T00:00:10Z
CREATED, UPDATED = "gateway.devbox-secrets.dev/created-ms", "gateway.devbox-secrets.dev/updated-ms"
GATEWAY, OPERATOR = "devbox-secrets-gateway", "devbox-secrets"
TIMES = {
    "made by kubectl": ({}, [owned("kubectl", "2026-01-01T00:00:10Z")], SECOND, SECOND),
    "changed by kubectl": ({}, [owned("kubectl", "2026-01-01T00:01:10Z")], SECOND, SECOND + 60_000),
    "made by the gateway": (
        {CREATED: str(SECOND + 5), UPDATED: str(SECOND + 5)},
        [owned(GATEWAY, "2026-01-01T00:00:10Z")],
        SECOND + 5,
        SECOND + 5,
    ),
    "changed by the gateway": (
        {CREATED: str(SECOND + 5), UPDATED: str(SECOND + 77_777)},
        [owned(GATEWAY, "2026-01-01T00:01:27Z")],
        SECOND + 5,
        SECOND + 77_777,
    ),
    "re-sealed by the operator": (
        {CREATED: str(SECOND + 5), UPDATED: str(SECOND + 5)},
        [owned(GATEWAY, "2026-01-01T00:00:10Z", field="f:name"), owned(OPERATOR, "2026-03-01T00:00:00Z")],
        SECOND + 5,
        SECOND + 5,
    ),
    "changed by kubectl after the gateway": (
        {CREATED: str(SECOND + 5), UPDATED: str(SECOND + 5)},
        [owned(GATEWAY, "2026-01-01T00:00:10Z", field="f:name"), owned("kubectl", "2026-01-01T00:01:10Z")],
        SECOND + 5,
        SECOND + 60_000,
    ),
    "changed by kubectl in the same second": (
        {CREATED: str(SECOND + 5), UPDATED: str(SECOND + 5)},
        [owned("kubectl", "2026-01-01T00:00:10Z")],
        SECOND + 5,
        SECOND + 5,
    ),
    "copied with its annotations": ({CREATED: "5"}, [owned("kubectl", "2026-01-01T00:00:10Z")], SECOND, SECOND),
    "annotated with nonsense": (
        {CREATED: "yesterday", UPDATED: "٣"},
        [owned(GATEWAY, "2026-01-01T00:01:10Z")],
        SECOND,
        SECOND + 60_000,
    ),
    "without managed fields": ({}, [], SECOND, SECOND),
    "with fields that have no time": ({}, [{"manager": "x", "fieldsV1": {"f:spec": {"f:sealed": {}}}}], SECOND, SECOND),
}


@pytest.mark.parametrize("what", TIMES)
def test_the_times_of_what_was(what: str) -> None:
    notes, fields, created, updated = TIMES[what]
    body = {"metadata": metadata(annotations=notes, managedFields=fields), "spec": {"name": "TOKEN"}}
    assert (read_object(body).id.created_ms, read_object(body).updated_ms) == (created, updated)


def test_a_table_s_row_is_read_like_the_object() -> None:
    table = {
        "columnDefinitions": [{"name": "Name"}, {"name": "Variable"}],
        "rows": [{"cells": ["token", "TOKEN"], "object": {"metadata": metadata()}}],
    }
    assert list(read_table(table)) == [read_object({"metadata": metadata(), "spec": {"name": "TOKEN"}})]
    assert list(read_table({**table, "rows": None})) == []


def test_an_object_remembers_its_last_16_requests() -> None:
    marks: tuple[str, ...] = ()
    for number in range(20):
        notes = notes_of_update(0, marks, mark_of(f"request-{number}", "update"))
        record: Record = read_object({"metadata": metadata(annotations=notes), "spec": {"name": "T"}})
        marks = record.requests
    assert marks == tuple(mark_of(f"request-{number}", "update") for number in range(4, 20))


def test_a_request_without_an_id_leaves_no_mark() -> None:
    assert mark_of(None, "update") is None
    assert mark_of("", "update") is None
    assert notes_of_creation(0, None)["gateway.devbox-secrets.dev/requests"] == ""


def test_one_id_on_two_calls_makes_two_marks() -> None:
    assert mark_of("a", "create ONE") != mark_of("a", "create TWO") != mark_of("a", "update")


def test_an_object_whose_name_is_taken_has_a_second_one() -> None:
    first, second = object_names("GITHUB_TOKEN")
    assert first == "github-token"
    assert re.fullmatch("github-token--[0-9a-f]{8}", second)
    assert len(object_names("lower_case")) == 1


# --- Bodies

CANARY = "canary-in-the-cage"
MALFORMED = {
    "no body": b"",
    "no JSON": f"name={CANARY}".encode(),
    "half of it": b'{"name": "A", "value": "' + CANARY.encode(),
    "not UTF-8": b'{"name": "A", "value": "\xff' + CANARY.encode() + b'"}',
    "UTF-16": json.dumps({"name": "A", "value": CANARY}).encode("utf-16"),
    "too deep": b"[" * 200_000,
    "a number too long": b'{"name": "A", "value": ' + b"9" * 10_000 + b"}",
    "NaN": b'{"name": "A", "value": NaN}',
    "a list": json.dumps([CANARY]).encode(),
    "a string": json.dumps(CANARY).encode(),
    "null": b"null",
    "a field that is unknown": json.dumps({"name": "A", "value": "v", CANARY: CANARY}).encode(),
    "a field that is missing": json.dumps({"name": CANARY}).encode(),
    "a field twice": f'{{"name": "A", "value": "{CANARY}", "value": "{CANARY}"}}'.encode(),
    "a number": json.dumps({"name": "A", "value": 1}).encode(),
    "an object": json.dumps({"name": "A", "value": {CANARY: CANARY}}).encode(),
    "no value": json.dumps({"name": "A", "value": None}).encode(),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_body_is_declined_in_words_that_repeat_nothing(what: str) -> None:
    with pytest.raises(Declined) as caught:
        parse_body(MALFORMED[what], Creation)
    assert caught.value.status == 400
    assert "body" in str(caught.value) or "field `value`" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_deletion_s_body_is_empty_or_an_empty_object() -> None:
    assert parse_body(b"", Nothing) == parse_body(b" {} ", Nothing) == Nothing()
    for raw in (b"null", b"[]", b'{"name": "A"}'):
        with pytest.raises(Declined):
            parse_body(raw, Nothing)


def test_a_value_is_never_shown() -> None:
    assert CANARY not in repr(parse_body(json.dumps({"value": CANARY}).encode(), Update))


# --- Callers


class _Reviews:
    """Counts what is asked; the answers are those of a ServiceAccount."""

    def __init__(self) -> None:
        self.asked = 0

    async def ask(self, token: str, *_: object, **__: object) -> dict[str, Any]:
        self.asked += 1
        return {"status": {"userInfo": {"username": f"system:serviceaccount:{token}:editor"}}}


def test_whose_token_it_is_is_asked_once_a_minute() -> None:
    reviews, now = _Reviews(), [0.0]
    callers = Callers(reviews, clock=lambda: now[0])  # type: ignore[arg-type]

    def account(token: str) -> str:
        return asyncio.run(callers.find(f"Bearer {token}", None)).account

    assert [account("a"), account("a"), account("b")] == ["a", "a", "b"]
    assert reviews.asked == 2
    now[0] = REMEMBERED_SECONDS
    assert account("a") == "a"
    assert reviews.asked == 3


class _Person:
    """A token that is no ServiceAccount's."""

    async def ask(self, *_: object, **__: object) -> dict[str, Any]:
        return {"status": {"userInfo": {"username": "jane@example.org"}}}


def test_who_is_no_service_account_names_the_account() -> None:
    callers = Callers(_Person())  # type: ignore[arg-type]
    assert asyncio.run(callers.find("Bearer hers", "team-a")).account == "team-a"
    for _ in range(2):  # asked, and remembered
        with pytest.raises(Declined) as caught:
            asyncio.run(callers.find("Bearer hers", None))
        assert (caught.value.status, "X-Devbox-Secrets-Account" in str(caught.value)) == (400, True)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "Bearer a\r\nX: y", "Bearer é", "token"]
)
def test_without_a_bearer_token_nobody_is_asked(header: str | None) -> None:
    class Nobody:
        async def ask(self, *_: object, **__: object) -> NoReturn:
            raise AssertionError

    with pytest.raises(Declined) as caught:
        asyncio.run(Callers(Nobody()).find(header, "team-a"))  # type: ignore[arg-type]
    assert caught.value.status == 401


def test_a_caller_s_token_is_never_shown() -> None:
    caller = asyncio.run(Callers(_Reviews()).find("bearer the-token", "team-a"))  # type: ignore[arg-type]
    assert (caller.token, "the-token" in repr(caller)) == ("the-token", False)


# --- What the API server refused

OURS = (
    "is forbidden: ValidatingAdmissionPolicy 'devbox-secrets-homes' with binding 'devbox-secrets-homes' denied request:"
    " the namespace box belongs to the account {} by its label devbox-secrets.dev/account; seal it there"
)
REFUSALS = {
    "by our policy": (OURS.format("team-a"), "team-a"),
    "by our policy for a name that no namespace has": (OURS.format("Team_A"), None),
    "by our policy for a long one": (OURS.format("a" * 64), None),
    "by another policy in our words": (OURS.format("team-a").replace("-homes' with", "-others' with"), None),
    "by our policy's other binding": (
        OURS.format("team-a").replace("'devbox-secrets-homes' denied", "'x' denied"),
        None,
    ),
    "by a quota": ("exceeded quota: canary", None),
    "in no words": ("", None),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_of_a_refusal_only_a_home_is_passed_on(what: str) -> None:
    message, home = REFUSALS[what]
    raw = json.dumps({"kind": "Status", "message": message, "code": 422}).encode() + b"\xff"
    error = refusal("POST /path", 422, raw)
    if home:
        assert isinstance(error, Declined)
        assert f"the account {home}, " in str(error)
    else:
        assert isinstance(error, ClusterError)
        assert (str(error), error.status) == ("POST /path: 422", 422)
