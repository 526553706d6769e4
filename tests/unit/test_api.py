"""What is valid, what the errors mean, and that the CRD says the same."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretBytes, ValidationError

from devbox_secrets.api import (
    VARIABLE_MAX_BYTES,
    AccountSecretSpec,
    AccountSecretStatus,
    check_account,
    check_description,
    check_rotate_after,
    check_value,
    check_variable,
)
from devbox_secrets.crd import crd
from devbox_secrets.errors import (
    ClusterError,
    DevboxSecretsError,
    InvalidAccount,
    InvalidDescription,
    InvalidDuration,
    InvalidName,
    InvalidValue,
    ValueTooLarge,
)

NAME_RULE = (
    "that can't be the name of an environment variable: use letters, digits and _,"
    " not starting with a digit, such as GITHUB_TOKEN"
)
BAD_NAMES = ["", "1A", "A-B", "A.B", "A B", " A", "A\n", "A=b", "É", "A٣", "A\0", "\udcff"]
BAD_DURATIONS = [
    "", "0d", "090d", "90", "d", "2w", "90s", "1.5d", "-1d", "90 d", "90d ", "90d\n", "1d12h", "100000d", "٣d",
]  # fmt: skip
ENCODE_IT = "encode binary data first, for instance with base64"
NUL = f"the value of TOKEN holds a NUL byte, which ends an environment variable; {ENCODE_IT}"
BINARY = f"the value of TOKEN isn't UTF-8 text; {ENCODE_IT}"
LARGE = "TOKEN and its value take 131,073 bytes; an environment variable can have 131,072"
LARGEST = VARIABLE_MAX_BYTES - len("TOKEN=\0")


@pytest.mark.parametrize("name", ["A", "_", "a", "GITHUB_TOKEN", "http_proxy", "_1", "A" * 253])
def test_a_variable_is_letters_digits_and_underscores(name: str) -> None:
    check_variable(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, NAME_RULE) for name in BAD_NAMES),
        ("A" * 254, "the name has 254 characters; 253 is the most"),
    ],
)
def test_any_other_name_is_refused_and_not_repeated(name: str, message: str) -> None:
    with pytest.raises(InvalidName) as caught:
        check_variable(name)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["a", "1", "team-a", "a--b", "a" * 63])
def test_an_account_is_a_namespace_s_name(name: str) -> None:
    check_account(name)


@pytest.mark.parametrize("name", ["", "Team", "team_a", "team.a", "-a", "a-", "a\n", "é", "a" * 64, "a/b", "\udcff"])
def test_what_can_be_no_namespace_can_be_no_account(name: str) -> None:
    with pytest.raises(InvalidAccount) as caught:
        check_account(name)
    assert str(caught.value) == (
        f"{name!r} can't be an account, which is a namespace: use up to 63 small letters, digits and -, such as team-a"
    )


@pytest.mark.parametrize("text", [None, "", "for CI", "für CI 🙂\n", "x" * 1024, "🙂" * 1024])
def test_a_description_is_a_short_text(text: str | None) -> None:
    check_description(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x" * 1025, "the description has 1,025 characters; 1,024 is the most"),
        ("caf\udce9", "the description isn't UTF-8 text"),
    ],
)
def test_any_other_description_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidDescription) as caught:
        check_description(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("duration", [None, "1d", "90d", "12h", "30m", "99999m"])
def test_a_duration_is_days_hours_or_minutes(duration: str | None) -> None:
    check_rotate_after(duration)


@pytest.mark.parametrize("duration", BAD_DURATIONS)
def test_any_other_duration_is_refused(duration: str) -> None:
    with pytest.raises(InvalidDuration) as caught:
        check_rotate_after(duration)
    assert str(caught.value) == f"{duration!r} isn't a number of days, hours or minutes, such as 90d or 12h"


@pytest.mark.parametrize("value", [b"", b"x", "né 🙂".encode(), b"a\nb\r\n", b"\x01\x7f", b"x" * LARGEST])
def test_a_value_is_text_that_fits(value: bytes) -> None:
    check_value("TOKEN", SecretBytes(value))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (b"canary\0", InvalidValue, NUL),
        (b"\0\xff", InvalidValue, NUL),
        (b"canary\xff", InvalidValue, BINARY),
        (b"canary\xed\xb3\xbf", InvalidValue, BINARY),  # half of a surrogate pair
        (b"x" * (LARGEST + 1), ValueTooLarge, LARGE),
        ("é".encode() * (LARGEST // 2) + b"xx", ValueTooLarge, LARGE),  # bytes count, not characters
    ],
)
def test_any_other_value_is_refused_and_not_shown(value: bytes, error: type[DevboxSecretsError], message: str) -> None:
    with pytest.raises(error) as caught:
        check_value("TOKEN", SecretBytes(value))
    assert str(caught.value) == message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("status", "final"),
    [(0, False), (400, True), (401, False), (403, True), (404, False), (409, False), (410, False), (413, True),
     (422, True), (429, False), (500, False), (503, False)],
)  # fmt: skip
def test_a_refusal_is_final_when_time_alone_does_not_mend_it(status: int, final: bool) -> None:
    assert ClusterError("why", status).final is final


def test_without_an_answer_there_is_no_status() -> None:
    assert ClusterError("why").status == 0
    assert str(ClusterError("why", 403)) == "why"


VERSION = crd()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
SPEC, STATUS = SCHEMA["properties"]["spec"], SCHEMA["properties"]["status"]


def schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from schemas(field, f"{path}.{name}")
    if "items" in schema:
        yield from schemas(schema["items"], f"{path}[]")


def test_every_schema_is_structural() -> None:
    taken = {
        "type", "description", "properties", "required", "items", "maxLength", "enum", "format",
        "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    }  # fmt: skip
    for path, schema in schemas(SCHEMA):
        assert set(schema) <= taken, path
        assert schema["type"] in {"object", "array", "string", "integer"}, path


def test_every_field_of_ours_is_described() -> None:
    missing = [path for path, schema in schemas(SCHEMA) if "description" not in schema and not path.endswith("[]")]
    assert missing == [".apiVersion", ".kind", ".metadata"]


def test_every_text_has_an_end() -> None:
    # What has none makes CEL's cost estimate, and an object, as large as one likes.
    for path, schema in [*schemas(SPEC), *schemas(STATUS)]:
        if schema["type"] == "string":
            assert schema.keys() & {"maxLength", "enum", "format"}, path


def test_no_rule_stands_on_a_field_whose_value_the_api_server_would_repeat() -> None:
    for path, schema in schemas(SCHEMA):
        assert ("x-kubernetes-validations" in schema) == (path == ".spec"), path


def test_every_rule_says_where_it_failed_and_why() -> None:
    for rule in SPEC["x-kubernetes-validations"]:
        assert rule["fieldPath"].lstrip(".") in SPEC["properties"]
        assert rule["message"]


def test_name_and_sealed_value_are_required_and_a_status_is_not() -> None:
    assert SCHEMA["required"] == ["spec"]
    assert SPEC["required"] == ["name", "sealed"]
    assert "required" not in STATUS


def test_people_see_what_matters() -> None:
    assert [column["name"] for column in VERSION["additionalPrinterColumns"]] == [
        "Variable", "Ready", "Reason", "Key", "Rotation Due", "Age",
    ]  # fmt: skip
    assert crd()["spec"]["names"]["shortNames"] == ["acs"]
    assert crd()["spec"]["scope"] == "Namespaced"


def accepted(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """What a schema accepts: all of its fields, or the required ones and some."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
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
def test_the_models_read_all_that_the_schema_accepts_and_write_it_back(
    spec: dict[str, Any], status: dict[str, Any]
) -> None:
    def written(model: BaseModel) -> dict[str, Any]:
        return model.model_dump(by_alias=True, exclude_none=True, mode="json")

    assert written(AccountSecretSpec.model_validate(spec)) == spec
    assert written(AccountSecretStatus.model_validate(status)) == {"conditions": [], **status}


@pytest.mark.parametrize(
    ("name", "length"), [("name", 253), ("sealed", 176_300), ("description", 1024), ("rotateAfter", 6)]
)
def test_the_models_and_the_schema_agree_on_every_length(name: str, length: int) -> None:
    spec = {"name": "A", "sealed": "dbs1.…"}
    assert SPEC["properties"][name]["maxLength"] == length
    AccountSecretSpec.model_validate({**spec, name: "x" * length})
    with pytest.raises(ValidationError, match=name):
        AccountSecretSpec.model_validate({**spec, name: "x" * (length + 1)})


def test_the_models_leave_out_what_a_newer_version_may_bring() -> None:
    AccountSecretSpec.model_validate({"name": "A", "sealed": "dbs1.…", "new": 1})
    assert AccountSecretStatus.model_validate({"new": {}}) == AccountSecretStatus()


def test_no_model_shows_what_was_pasted_in_the_place_of_a_sealed_value() -> None:
    pasted = "canary" * 40_000
    assert "canary" not in repr(AccountSecretSpec(name="A", sealed="canary"))
    with pytest.raises(ValidationError) as caught:
        AccountSecretSpec(name="A", sealed=pasted)
    assert "canary" not in str(caught.value)
    assert re.search("sealed", str(caught.value))


DECIDED = {
    "nothing told yet": (None, None, False),
    "an older generation": (1, "Synced", False),
    "this one": (2, "Synced", True),
    "this one, refused": (2, "NameConflict", True),
    "this one, tried again": (2, "NotWritten", False),
    "a later one": (3, "Synced", True),
}


@pytest.mark.parametrize("what", DECIDED)
def test_a_generation_is_decided_once_the_status_speaks_of_it_and_stays(what: str) -> None:
    observed, reason, decided = DECIDED[what]
    condition = {"type": "Ready", "status": "True", "reason": reason, "message": "", "lastTransitionTime": ""}
    status = {"observedGeneration": observed, "conditions": [condition] if reason else []}
    found = AccountSecretStatus.model_validate(status).decided(2)
    assert (found.reason if found else None) == (reason if decided else None)
