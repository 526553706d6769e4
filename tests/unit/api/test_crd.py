"""The CustomResourceDefinition: its schemas are structural and described, and no rule repeats a value."""

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


def test_all_our_fields_have_descriptions() -> None:
    missing = [path for path, schema in schemas(SCHEMA) if "description" not in schema and not path.endswith("[]")]
    assert missing == [".apiVersion", ".kind", ".metadata"]


def test_every_string_has_a_maximum_length() -> None:
    # Without one, neither CEL's cost estimate nor an object's size has a limit.
    for path, schema in [*schemas(SPEC), *schemas(STATUS)]:
        if schema["type"] == "string":
            assert schema.keys() & {"maxLength", "enum"}, path
            assert "format" not in schema, path  # with a format, the API server also accepts arrays


def test_the_schema_sets_the_defaults_of_a_new_status() -> None:
    assert STATUS["default"] == {}
    defaults = {name: field["default"] for name, field in STATUS["properties"].items() if "default" in field}
    assert AccountSecretStatus.model_validate(defaults) == AccountSecretStatus()
    assert defaults["observedGeneration"] == -1
    (ready,) = defaults["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "Unknown", "Pending")
    assert not [path for path, schema in schemas(SPEC) if "default" in schema]


def test_only_spec_has_rules_because_the_api_server_repeats_a_field_s_value() -> None:
    for path, schema in schemas(SCHEMA):
        assert ("x-kubernetes-validations" in schema) == (path == ".spec"), path


def test_every_rule_has_a_field_path_and_a_message() -> None:
    for rule in SPEC["x-kubernetes-validations"]:
        assert rule["fieldPath"].lstrip(".") in SPEC["properties"]
        assert rule["message"]


def test_name_and_sealed_are_required_and_no_status_field_is() -> None:
    assert SCHEMA["required"] == ["spec"]
    assert SPEC["required"] == ["name", "sealed"]
    assert "required" not in STATUS


def test_printer_columns_short_name_and_scope() -> None:
    columns = VERSION["additionalPrinterColumns"]
    wide = {column["name"] for column in columns if column.get("priority")}
    assert [column["name"] for column in columns if column["name"] not in wide] == [
        "Variable", "Ready", "Reason", "Changed", "Age",
    ]  # fmt: skip
    assert wide == {"Key", "Rotation Due"}
    assert crd()["spec"]["names"]["shortNames"] == ["acs"]
    assert crd()["spec"]["scope"] == "Namespaced"
