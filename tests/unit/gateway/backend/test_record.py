"""An AccountSecret as a secret of the contract: its times, regardless of who wrote it, and its idempotency keys."""

import hmac
from typing import Any

import pytest
from pydantic import SecretBytes

from devbox_secrets.gateway.backend.record import (
    Record,
    creation_annotations,
    idempotency_key,
    read_object,
    read_table,
    update_annotations,
)

VALUE = SecretBytes(b"v")
UID = "7d9f7c1e-9f0b-4f43-9d64-0a8d7b8a9c55"


def metadata(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - as Kubernetes has it
    return {
        "name": "token",
        "uid": UID,
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:10Z",
        **more,
    }


def fields_of_sealed() -> dict[str, Any]:
    return {"fieldsV1": {"f:spec": {"f:sealed": {}}}}


def owned(manager: str, time: str, *, field: str = "f:sealed") -> dict[str, Any]:
    return {"manager": manager, "time": time, "fieldsV1": {"f:spec": {field: {}}}}


def condition(ready: str) -> dict[str, Any]:
    return {
        "type": "Ready",
        "status": ready,
        "reason": "Synced",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:10Z",
    }


SECOND = 1_767_225_610_000  # 2026-01-01T00:00:10Z
CREATED, UPDATED = "gateway.devbox-secrets.dev/created-ms", "gateway.devbox-secrets.dev/updated-ms"
GATEWAY, OPERATOR = "devbox-secrets-gateway", "devbox-secrets"
TIMES = {
    "created by kubectl": ({}, [owned("kubectl", "2026-01-01T00:00:10Z")], SECOND, SECOND),
    "changed by kubectl": ({}, [owned("kubectl", "2026-01-01T00:01:10Z")], SECOND, SECOND + 60_000),
    "created by the gateway": (
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
    "with invalid annotations": (
        {CREATED: "yesterday", UPDATED: "٣"},
        [owned(GATEWAY, "2026-01-01T00:01:10Z")],
        SECOND,
        SECOND + 60_000,
    ),
    "without managed fields": ({}, [], SECOND, SECOND),
    "written in the year 0": ({}, [owned("x", "0000-01-01T00:00:00Z")], SECOND, SECOND),
    "written after the year 9999": ({}, [owned("x", "10000-01-01T04:00:00Z")], SECOND, SECOND),
    "written without a field manager": (
        {},
        [{"time": "2026-01-01T00:01:10Z", **fields_of_sealed()}],
        SECOND,
        SECOND + 60_000,
    ),
    "with fields that have no time": ({}, [{"manager": "x", "fieldsV1": {"f:spec": {"f:sealed": {}}}}], SECOND, SECOND),
}


@pytest.mark.parametrize("what", TIMES)
def test_the_times_of_a_secret(what: str) -> None:
    annotations, fields, created, updated = TIMES[what]
    body = {"metadata": metadata(annotations=annotations, managedFields=fields), "spec": {"name": "TOKEN"}}
    assert (read_object(body).id.created_ms, read_object(body).updated_ms) == (created, updated)


def test_a_table_s_row_is_read_like_the_object() -> None:
    table = {
        "columnDefinitions": [{"name": "Name"}, {"name": "Variable"}, {"name": "Ready"}],
        "rows": [{"cells": ["token", "TOKEN", "False"], "object": {"metadata": metadata()}}],
    }
    assert list(read_table(table)) == [read_object({"metadata": metadata(), "spec": {"name": "TOKEN"}})]
    assert list(read_table({**table, "rows": None})) == []


@pytest.mark.parametrize(("ready", "is_ready"), [("True", True), ("False", False), ("Unknown", False), (None, False)])
def test_a_record_is_ready_if_its_ready_condition_is_true(ready: str | None, *, is_ready: bool) -> None:
    rows = [{"cells": [ready, "TOKEN"], "object": {"metadata": metadata()}}]
    (row,) = read_table({"columnDefinitions": [{"name": "Ready"}, {"name": "Variable"}], "rows": rows})
    assert row.is_ready == is_ready
    conditions = [condition(ready)] if ready else []
    body = {"metadata": metadata(), "spec": {"name": "TOKEN"}, "status": {"conditions": conditions}}
    assert read_object(body).is_ready == is_ready


ODD: dict[str, dict[str, Any]] = {
    "no spec": {},
    "a spec that is text": {"spec": "TOKEN"},
    "a status that is text": {"spec": {}, "status": "Ready"},
    "a condition that is text": {"spec": {}, "status": {"conditions": ["Ready"]}},
}


@pytest.mark.parametrize("what", ODD)
def test_a_malformed_object_has_no_name_and_is_not_ready(what: str) -> None:
    record = read_object({"metadata": metadata(), **ODD[what]})
    assert (record.variable, record.is_ready) == ("", False)


@pytest.mark.parametrize("name", [None, ["TOKEN"], 7])
def test_a_name_that_is_not_text_is_read_as_empty(name: object) -> None:
    columns = [{"name": "Variable"}, {"name": "Ready"}]
    rows = [{"cells": [name, None], "object": {"metadata": metadata()}}]
    (row,) = read_table({"columnDefinitions": columns, "rows": rows})
    assert row == read_object({"metadata": metadata(), "spec": {"name": name}})
    assert row.view.name == ""


def test_an_object_remembers_its_last_16_requests() -> None:
    keys: tuple[str, ...] = ()
    for number in range(20):
        annotations = update_annotations(0, keys, idempotency_key(f"request-{number}", "t", "update", VALUE))
        record: Record = read_object({"metadata": metadata(annotations=annotations), "spec": {"name": "T"}})
        keys = record.idempotency_keys
    assert keys == tuple(idempotency_key(f"request-{number}", "t", "update", VALUE) for number in range(4, 20))


def test_a_request_without_an_id_has_no_idempotency_key() -> None:
    assert idempotency_key(None, "token", "update", VALUE) is None
    assert idempotency_key("", "token", "update", VALUE) is None
    assert creation_annotations(0, None)["gateway.devbox-secrets.dev/requests"] == ""


REQUESTS = {
    "unchanged": ("id", "token", "update", b"v"),
    "with another id": ("id2", "token", "update", b"v"),
    "with another token": ("id", "token2", "update", b"v"),
    "of another kind": ("id", "token", "create ONE", b"v"),
    "with another name": ("id", "token", "create TWO", b"v"),
    "with another value": ("id", "token", "update", b"w"),
    "with a longer value": ("id", "token", "update", b"vv"),
    "with an empty value": ("id", "token", "update", b""),
    "with the same bytes, divided differently": ("idu", "token", "pdate", b"v"),
    "with an id that isn't ASCII": ("\xefd", "token", "update", b"v"),
}


def test_each_request_has_its_own_key() -> None:
    keys = {
        idempotency_key(request_id, token, operation, SecretBytes(value))
        for request_id, token, operation, value in REQUESTS.values()
    }
    assert len(keys) == len(REQUESTS)


def test_a_key_is_an_hmac_with_the_token_so_that_no_value_can_be_guessed_from_it() -> None:
    request_id, token, operation, value = REQUESTS["unchanged"]
    request = b"\0".join((request_id.encode(), operation.encode(), value))
    expected = hmac.digest(token.encode(), request, "sha256").hex()[:16]
    assert idempotency_key(request_id, token, operation, SecretBytes(value)) == expected
