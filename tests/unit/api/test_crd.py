"""The CustomResourceDefinition: structural, described, and without a rule that would repeat a value."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from devbox_secrets.api.crd import crd
from devbox_secrets.api.models import AccountSecretStatus

VERSION = crd()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
SPEC, STATUS = SCHEMA["properties"]["spec"], SCHEMA["properties"]["status"]


def schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from schemas(field, f"{path}.{name}")
    if "items" in schema:
        yield from schemas(schema["items"], f"{path}[]")


def test_it_equals_the_file_in_crds() -> None:
    file = Path(__file__).parents[3] / "crds" / "accountsecrets.devbox-secrets.dev.yaml"
    assert crd() == yaml.safe_load(file.read_text())


def test_every_schema_is_structural() -> None:
    taken = {
        "type", "description", "properties", "required", "items", "maxLength", "pattern", "enum", "format", "default",
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
            assert schema.keys() & {"maxLength", "enum"}, path
            assert "format" not in schema, path  # with one, the API server accepts arrays as well


def test_a_status_has_its_defaults_from_the_first_moment_on() -> None:
    assert STATUS["default"] == {}
    defaults = {name: field["default"] for name, field in STATUS["properties"].items() if "default" in field}
    assert AccountSecretStatus.model_validate(defaults) == AccountSecretStatus()
    assert defaults["observedGeneration"] == -1
    (ready,) = defaults["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "Unknown", "Pending")
    assert not [path for path, schema in schemas(SPEC) if "default" in schema]


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
    columns = VERSION["additionalPrinterColumns"]
    wide = {column["name"] for column in columns if column.get("priority")}
    assert [column["name"] for column in columns if column["name"] not in wide] == [
        "Variable", "Ready", "Reason", "Changed", "Age",
    ]  # fmt: skip
    assert wide == {"Key", "Rotation Due"}
    assert crd()["spec"]["names"]["shortNames"] == ["acs"]
    assert crd()["spec"]["scope"] == "Namespaced"
