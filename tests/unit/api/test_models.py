"""The models: they agree with the CRD, parse stored objects, and show no values."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from devbox_secrets.api.crd import crd
from devbox_secrets.api.models import AccountSecret, AccountSecretSpec, AccountSecretStatus
from devbox_secrets.api.names import GATEWAY_FIELD_MANAGER

SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC, STATUS = SCHEMA["properties"]["spec"], SCHEMA["properties"]["status"]
THEN = "2026-01-01T00:00:00Z"


def accepted(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Generate what a schema accepts, with any of its optional fields."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "pattern" in schema:
        return st.datetimes().map(lambda time: f"{time.isoformat(timespec='seconds')}Z")
    if schema["type"] == "string":
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=min(schema.get("maxLength", 50), 50))
    if schema["type"] == "integer":
        return st.integers(-(2**63), 2**63 - 1)
    if schema["type"] == "array":
        return st.lists(accepted(schema["items"]), max_size=3)
    fields = {name: accepted(field) for name, field in schema["properties"].items()}
    required = {name: fields.pop(name) for name in schema.get("required", [])}
    return st.fixed_dictionaries(required, optional=fields)


@settings(deadline=None)
@given(spec=accepted(SPEC), status=accepted(STATUS))
def test_the_models_read_and_write_everything_that_the_schema_accepts(
    spec: dict[str, Any], status: dict[str, Any]
) -> None:
    def written(model: BaseModel) -> dict[str, Any]:
        return model.model_dump(by_alias=True, exclude_none=True, mode="json")

    assert written(AccountSecretSpec.model_validate(spec)) == spec
    defaults = written(AccountSecretStatus())
    assert written(AccountSecretStatus.model_validate(status)) == {**defaults, **status}


@pytest.mark.parametrize(
    ("name", "length"), [("name", 253), ("sealed", 176_300), ("description", 1024), ("rotateAfter", 6)]
)
def test_the_models_and_the_schema_agree_on_maximum_lengths(name: str, length: int) -> None:
    spec = {"name": "A", "sealed": "dbs1.…"}
    assert SPEC["properties"][name]["maxLength"] == length
    AccountSecretSpec.model_validate({**spec, name: "x" * length})
    with pytest.raises(ValidationError, match=name):
        AccountSecretSpec.model_validate({**spec, name: "x" * (length + 1)})


def test_unknown_fields_of_newer_versions_are_ignored() -> None:
    AccountSecretSpec.model_validate({"name": "A", "sealed": "dbs1.…", "new": 1})
    assert AccountSecretStatus.model_validate({"new": {}}) == AccountSecretStatus()


def test_a_value_pasted_as_the_sealed_value_is_not_shown() -> None:
    pasted = "canary" * 40_000
    assert "canary" not in repr(AccountSecretSpec(name="A", sealed="canary"))
    with pytest.raises(ValidationError) as caught:
        AccountSecretSpec(name="A", sealed=pasted)
    assert "canary" not in str(caught.value)
    assert re.search("sealed", str(caught.value))


DECIDED = {
    "no status yet": (-1, "Pending", False),
    "no condition": (2, None, False),
    "an older generation": (1, "Synced", False),
    "this generation": (2, "Synced", True),
    "this generation, not Ready": (2, "NameConflict", True),
    "this generation, being retried": (2, "NotWritten", False),
    "a later generation": (3, "Synced", True),
}


@pytest.mark.parametrize("what", DECIDED)
def test_a_generation_is_decided_once_its_condition_is_final(what: str) -> None:
    observed, reason, decided = DECIDED[what]
    condition = {"type": "Ready", "status": "True", "reason": reason, "message": "", "lastTransitionTime": THEN}
    status = {"observedGeneration": observed, "conditions": [condition] if reason else []}
    found = AccountSecretStatus.model_validate(status).decided(2)
    assert (found.reason if found else None) == (reason if decided else None)


def status(**conditions: str) -> AccountSecretStatus:
    fixed = {"reason": "Because", "message": "", "lastTransitionTime": THEN}
    found = [{**fixed, "type": kind, "status": holds} for kind, holds in conditions.items()]
    return AccountSecretStatus.model_validate({"observedGeneration": 2, "conditions": found})


@pytest.mark.parametrize("empty", [AccountSecretStatus(), AccountSecretStatus(conditions=())])
def test_an_empty_status_has_no_conditions(empty: AccountSecretStatus) -> None:
    assert empty.ready is None
    assert empty.rotation_due is None
    assert not empty.overdue
    assert not empty.is_synced(1)


def test_conditions_are_found_by_type() -> None:
    both = status(Other="False", Ready="True", RotationDue="False")
    assert [each.type for each in (both.ready, both.rotation_due) if each] == ["Ready", "RotationDue"]


@pytest.mark.parametrize(("holds", "overdue"), [("True", True), ("False", False), ("Unknown", False)])
def test_a_value_is_overdue_if_rotation_due_is_true(holds: str, overdue: bool) -> None:
    assert status(RotationDue=holds).overdue is overdue


@pytest.mark.parametrize(
    ("ready", "generation", "synced"), [("True", 2, True), ("False", 2, False), ("True", 1, False), ("True", 3, False)]
)
def test_a_generation_is_synced_if_its_status_is_ready(ready: str, generation: int, synced: bool) -> None:
    assert status(Ready=ready).is_synced(generation) is synced


def body(**fields: object) -> dict[str, Any]:
    metadata = {
        "uid": "uid-1",
        "namespace": "team",
        "name": "github-token",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "generation": 3,
        "resourceVersion": "17",
        "labels": {"app": "x"},
    }
    return {"metadata": metadata, "spec": {"name": "GITHUB_TOKEN", "sealed": "dbs1.…"}, **fields}


def test_an_accountsecret_is_parsed_from_json() -> None:
    assert AccountSecret.parse(body(status={"keyId": "0123456789abcdef"})) == AccountSecret(
        uid="uid-1",
        namespace="team",
        name="github-token",
        created="2026-01-01T00:00:00Z",
        generation=3,
        resource_version="17",
        spec=AccountSecretSpec(name="GITHUB_TOKEN", sealed="dbs1.…"),
        status=AccountSecretStatus(key_id="0123456789abcdef"),
        without_copy=False,
    )


@pytest.mark.parametrize("fields", [{}, {"status": None}, {"status": {}}])
def test_an_accountsecret_without_a_status_gets_an_empty_one(fields: dict[str, object]) -> None:
    assert AccountSecret.parse(body(**fields)).status == AccountSecretStatus()


def test_a_written_status_replaces_a_damaged_one() -> None:
    spec = {"name": "GITHUB_TOKEN", "sealed": "dbs1.…", "rotateAfter": "soon"}
    found = AccountSecret.parse(body(spec=spec, status={"keyId": 1}))
    assert found.damaged == ("spec.rotateAfter", "status.keyId")
    status = AccountSecretStatus(key_id="0123456789abcdef")
    written = found.with_status(status, "18")
    assert (written.status, written.resource_version, written.damaged) == (status, "18", ("spec.rotateAfter",))
    assert written.with_status(AccountSecretStatus(key_id="0123456789abcdef"), "19").status is written.status


def test_equal_statuses_are_one_object() -> None:
    first, second = (AccountSecret.parse(body(status={"keyId": "0123456789abcdef"})) for _ in range(2))
    assert first.status is second.status


def _managed_by(manager: str, **fields: object) -> dict[str, Any]:
    return {"manager": manager, "fieldsV1": {f"f:{name}": owned for name, owned in fields.items()}}


GATEWAY = _managed_by(GATEWAY_FIELD_MANAGER, spec={".": {}, "f:name": {}, "f:sealed": {}})


@pytest.mark.parametrize(
    ("managed_fields", "without_copy"),
    [
        ([GATEWAY], True),
        (
            [
                GATEWAY,
                _managed_by("kubectl-patch", spec={"f:rotateAfter": {}}),
                _managed_by("x", metadata={"f:labels": {}}),
            ],
            True,
        ),
        ([GATEWAY, {"manager": "kubectl", "fieldsV1": {"f:status": {"f:sealed": {}}}}], True),
        ([GATEWAY, _managed_by("kubectl", spec={"f:sealed": {}})], False),
        (
            [_managed_by(GATEWAY_FIELD_MANAGER, spec={"f:name": {}}), _managed_by("kubectl", spec={"f:sealed": {}})],
            False,
        ),
        ([_managed_by(GATEWAY_FIELD_MANAGER, spec={"f:name": {}})], False),
        ([{"manager": GATEWAY_FIELD_MANAGER}], False),
        ([], False),
        (None, False),
    ],
)
def test_managed_fields_show_whether_the_value_has_no_copy_elsewhere(
    managed_fields: list[dict[str, Any]] | None, without_copy: bool
) -> None:
    written = body()
    written["metadata"]["managedFields"] = managed_fields
    assert AccountSecret.parse(written).without_copy is without_copy


GOOD = {"name": "GITHUB_TOKEN", "sealed": "dbs1.…", "description": "d", "rotateAfter": "90d"}
DAMAGED_SPECS: list[tuple[object, dict[str, object], tuple[str, ...]]] = [
    ({**GOOD, "name": ["canary"]}, {"name": ""}, ("spec.name",)),
    ({**GOOD, "name": "canary name"}, {"name": ""}, ("spec.name",)),
    ({**GOOD, "name": "A" * 254}, {"name": ""}, ("spec.name",)),
    ({**GOOD, "sealed": {"canary": "canary"}}, {"sealed": ""}, ("spec.sealed",)),
    ({**GOOD, "sealed": "canary" * 40_000}, {"sealed": ""}, ("spec.sealed",)),
    ({**GOOD, "description": 7}, {"description": None}, ("spec.description",)),
    ({**GOOD, "rotateAfter": "canary"}, {"rotateAfter": None}, ("spec.rotateAfter",)),
    ({**GOOD, "rotateAfter": []}, {"rotateAfter": None}, ("spec.rotateAfter",)),
    ({}, {"name": "", "sealed": "", "description": None, "rotateAfter": None}, ("spec.name", "spec.sealed")),
    ("canary", {"name": "", "sealed": "", "description": None, "rotateAfter": None}, ("spec", "spec.name")),
    (None, {"name": "", "sealed": "", "description": None, "rotateAfter": None}, ("spec", "spec.name")),
]


@pytest.mark.parametrize(("spec", "read", "damaged"), DAMAGED_SPECS)
def test_the_valid_fields_of_a_damaged_spec_are_read(
    spec: object, read: dict[str, object], damaged: tuple[str, ...]
) -> None:
    secret = AccountSecret.parse(body(spec=spec, status={"changedAt": []}))
    assert secret.spec == AccountSecretSpec.model_validate({**GOOD, **read})
    assert secret.damaged == (*damaged, "status.changedAt")
    assert secret.invalid_spec
    assert secret.invalid_spec.startswith(f"invalid {', '.join(damaged)}, accepted by ")
    assert "canary" not in secret.invalid_spec


@pytest.mark.parametrize(
    ("damaged", "field"),
    [
        ({"changedAt": []}, "status.changedAt"),
        ({"changedAt": "9999-12-31T23:00:00-05:00"}, "status.changedAt"),
        ({"changedAt": "0000-01-01T00:00:00Z"}, "status.changedAt"),
        ({"changedAt": "2026-02-30T00:00:00Z"}, "status.changedAt"),
        ({"keyId": {}}, "status.keyId"),
        ({"conditions": [None]}, "status.conditions"),
        ({"conditions": {"type": "Ready"}}, "status.conditions"),
        ({"observedGeneration": []}, "status.observedGeneration"),
        (["canary"], "status"),
        ("canary", "status"),
    ],
)
def test_a_damaged_status_is_empty_and_does_not_make_the_spec_invalid(damaged: object, field: str) -> None:
    secret = AccountSecret.parse(body(status=damaged))
    assert (secret.status, secret.damaged, secret.invalid_spec) == (AccountSecretStatus(), (field,), None)
