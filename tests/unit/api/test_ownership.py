"""Who owns an AccountSecret's sealed value, by its managedFields."""

from typing import Any

import pytest

from devbox_secrets.api.names import CLI_FIELD_MANAGER, FIELD_MANAGER, GATEWAY_FIELD_MANAGER
from devbox_secrets.api.ownership import is_without_copy, owners_of_sealed


def entry(manager: str, **fields: object) -> dict[str, Any]:
    return {"manager": manager, "fieldsV1": {f"f:{name}": owned for name, owned in fields.items()}}


KUBECTL = entry("kubectl", spec={"f:name": {}, "f:sealed": {}})
GATEWAY = entry(GATEWAY_FIELD_MANAGER, spec={".": {}, "f:sealed": {}})


@pytest.mark.parametrize(
    ("managed_fields", "owners"),
    [
        pytest.param([KUBECTL, GATEWAY], [KUBECTL, GATEWAY], id="two"),
        pytest.param([KUBECTL, entry("x", spec={"f:name": {}})], [KUBECTL], id="another field of the spec"),
        pytest.param([entry("x", status={"f:sealed": {}})], [], id="the status"),
        pytest.param([entry("x", spec=None)], [], id="no fields of the spec"),
        pytest.param([{"manager": "x"}], [], id="no fields"),
        pytest.param([{"manager": "x", "fieldsV1": None}], [], id="null fields"),
        pytest.param([], [], id="nobody"),
        pytest.param(None, [], id="null"),
    ],
)
def test_an_owner_of_the_sealed_value_is_who_holds_its_field(
    managed_fields: list[dict[str, Any]] | None, owners: list[dict[str, Any]]
) -> None:
    assert list(owners_of_sealed({"managedFields": managed_fields})) == owners


def test_an_object_without_managed_fields_has_no_owner() -> None:
    assert list(owners_of_sealed({})) == []


@pytest.mark.parametrize(
    ("owners", "without_copy"),
    [
        ([GATEWAY_FIELD_MANAGER], True),
        ([FIELD_MANAGER], True),
        ([GATEWAY_FIELD_MANAGER, FIELD_MANAGER], True),
        ([CLI_FIELD_MANAGER], False),
        ([GATEWAY_FIELD_MANAGER, "kubectl"], False),
        ([None], False),
        ([], False),
    ],
)
def test_a_value_that_the_gateway_or_the_operator_alone_sealed_has_no_copy(
    owners: list[str | None], without_copy: bool
) -> None:
    assert is_without_copy(owners) is without_copy
