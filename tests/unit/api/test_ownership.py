"""Who owns an AccountSecret's sealed value, according to its managedFields."""

from typing import Any

import pytest

from devbox_secrets.api.names import CLI_FIELD_MANAGER, FIELD_MANAGER, GATEWAY_FIELD_MANAGER
from devbox_secrets.api.ownership import (
    is_given_up,
    is_ours,
    is_without_copy,
    managing_tool,
    owned_fields,
    owners_of_sealed,
)


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
def test_the_owners_of_a_sealed_value_are_the_managers_of_its_field(
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
def test_a_value_owned_only_by_the_gateway_or_the_operator_has_no_copy(
    owners: list[str | None], without_copy: bool
) -> None:
    assert is_without_copy(owners) is without_copy


@pytest.mark.parametrize(
    ("manager", "given_up"),
    [
        ("kubectl", True),
        ("kubectl-client-side-apply", True),
        ("kubectl-create", True),
        ("kubectl-edit", True),
        ("kubectl-patch", True),
        ("kubectl-replace", True),
        (GATEWAY_FIELD_MANAGER, True),
        (FIELD_MANAGER, True),
        ("kubectlish", False),
        ("argocd-controller", False),
        ("kustomize-controller", False),
        ("helm", False),
        ("k9s", False),
        ("unknown", False),
    ],
)
def test_fields_of_kubectl_and_our_servers_may_be_taken_over(manager: str, given_up: bool) -> None:
    assert is_given_up(manager) is given_up


@pytest.mark.parametrize(
    ("metadata", "managers", "tool"),
    [
        ({}, ["argocd-controller"], "Argo CD"),
        ({}, ["argocd-application-controller"], "Argo CD"),
        ({}, ["kustomize-controller"], "Flux"),
        ({}, ["helm-controller"], "Flux"),
        ({}, ["helm"], "Helm"),
        ({}, ["fleetagent"], "Fleet"),
        ({}, ["Terraform"], "Terraform"),
        ({}, ["pulumi-kubernetes-1a2b3c"], "Pulumi"),
        ({}, ["kubectl-edit", "argocd-controller"], "Argo CD"),
        ({}, ["kubectl", "k9s"], None),
        ({}, [], None),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, ["kubectl-client-side-apply"], "Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}, ["kubectl-edit"], "Flux"),
        (
            {
                "annotations": {"meta.helm.sh/release-name": "x"},
                "labels": {"helm.toolkit.fluxcd.io/name": "x"},
            },
            ["helm-controller"],
            "Flux",
        ),
        ({"annotations": {"meta.helm.sh/release-name": "x"}, "labels": None}, [], "Helm"),
        ({"labels": {"app.kubernetes.io/name": "argo"}, "annotations": None}, ["kubectl"], None),
    ],
)
def test_a_tool_is_recognized_by_its_field_managers_labels_or_annotations(
    metadata: dict[str, Any], managers: list[str], tool: str | None
) -> None:
    found = managing_tool(metadata, managers)
    assert (found and found.name) == tool


def test_field_managers_are_listed_with_their_fields() -> None:
    both = entry("kubectl", spec={"f:name": {}, "f:sealed": {}, "f:description": {}})
    entries = [both, GATEWAY, entry("x", status={"f:sealed": {}}), {"fieldsV1": {"f:spec": {"f:sealed": {}}}}]
    assert owned_fields({"managedFields": entries}, ["sealed", "description"]) == {
        "kubectl": ["spec.description", "spec.sealed"],
        GATEWAY_FIELD_MANAGER: ["spec.sealed"],
        "unknown": ["spec.sealed"],
    }
    assert owned_fields({}, ["sealed"]) == {}


CREATED = "2026-01-01T00:01:00Z"


@pytest.mark.parametrize(
    ("created", "applied", "ours"),
    [
        (CREATED, CREATED, True),
        (CREATED, "2026-01-01T00:00:00Z", True),
        (CREATED, "2025-12-31T23:59:59Z", False),
        (CREATED, "2027-01-01T00:00:00Z", True),
        (CREATED, "", False),
        (CREATED, None, False),
        ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z", True),
    ],
)
def test_a_secret_applied_more_than_a_minute_before_its_creation_was_restored(
    created: str, applied: str | None, ours: bool
) -> None:
    written = {"manager": FIELD_MANAGER, "operation": "Apply", "time": applied}
    assert is_ours({"creationTimestamp": created, "managedFields": [written]}) is ours
