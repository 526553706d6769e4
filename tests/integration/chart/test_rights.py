"""The rights that the chart grants to the operator, to every user, and with its roles."""

import json
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from integration.support.chart import NAMESPACE, get, install, until
from integration.support.rights import (
    ACCOUNT_SECRET,
    ACCOUNTSECRETS,
    CHART_ROLES,
    EVERYWHERE,
    IN_OPERATOR_NAMESPACE,
    ROLES,
    can_i,
    rights,
)
from integration.support.sealing_keys import create

PATCH = ("--type=merge", "--patch", json.dumps({"data": {}}), "--dry-run=server")
ONE_NAME = f"--field-selector=metadata.name={ACCOUNT_SECRET}"

ALLOWED = {
    "list every account Secret": ("get", "secrets", "--all-namespaces", ONE_NAME),
    "read its keys": ("get", "secret", "devbox-secrets-keys", f"-n{NAMESPACE}"),
    "add a key": ("patch", "secret", "devbox-secrets-keys", f"-n{NAMESPACE}", *PATCH),
    "publish a key": ("patch", "configmap", "devbox-secrets-public-keys", f"-n{NAMESPACE}", *PATCH),
    "list AccountSecrets": ("get", ACCOUNTSECRETS, "--all-namespaces"),
    "list namespaces": ("get", "namespaces"),
}
FORBIDDEN = {
    "read another Secret": ("get", "secret", "db"),
    "list a namespace's Secrets": ("get", "secrets"),
    "list the cluster's Secrets": ("get", "secrets", "--all-namespaces"),
    "list another name": ("get", "secrets", "-A", "--field-selector=metadata.name=db"),
    "list all names except one": ("get", "secrets", "-A", "--field-selector=metadata.name!=db"),
    "list by another field": ("get", "secrets", "-A", "--field-selector=type=Opaque"),
    "read a Secret with the keys' name elsewhere": ("get", "secret", "devbox-secrets-keys"),
    "create another Secret": ("create", "secret", "generic", "db", "--dry-run=server"),
    "create other than by apply": (
        "create",
        "secret",
        "generic",
        ACCOUNT_SECRET,
        "--dry-run=server",
    ),
    "create its keys other than by apply": (
        *("create", "secret", "generic", "devbox-secrets-keys", f"-n{NAMESPACE}", "--dry-run=server"),
    ),
    "create another Secret in its namespace": (
        *("create", "secret", "generic", "db", f"-n{NAMESPACE}", "--dry-run=server"),
    ),
    "change an AccountSecret": ("patch", ACCOUNTSECRETS, "token", "--type=merge", "--patch={}", "--dry-run=server"),
    "delete its keys": (
        "delete",
        "secret",
        "devbox-secrets-keys",
        f"-n{NAMESPACE}",
        "--dry-run=server",
    ),
    "list pods": ("get", "pods"),
    "create a token for itself": ("create", "token", "devbox-secrets", f"-n{NAMESPACE}"),
    "impersonate someone": ("get", "secrets", "--as=admin", "--as-group=system:masters"),
}


@pytest.fixture(scope="module", autouse=True)
def _installed(controlplane: ControlPlane) -> None:
    install(controlplane)
    create(controlplane)


@pytest.fixture(scope="module")
def operator(controlplane: ControlPlane, _installed: None) -> Path:
    """The operator's kubeconfig."""
    return controlplane.service_account_kubeconfig(NAMESPACE, "devbox-secrets")


@pytest.fixture(scope="module")
def user(controlplane: ControlPlane) -> Path:
    """The kubeconfig of an authenticated user without any rights."""
    return controlplane.user_kubeconfig("someone")


def is_forbidden(controlplane: ControlPlane, kubeconfig: Path, namespace: str, *command: str) -> bool:
    done = controlplane.kubectl(f"--namespace={namespace}", *command, check=False, kubeconfig=kubeconfig)
    assert done.returncode == 0 or "forbidden" in done.stderr.lower(), done.stderr
    return done.returncode != 0


def test_the_operators_rights_in_all_namespaces_are_exactly_these(
    controlplane: ControlPlane, namespace: str, operator: Path
) -> None:
    assert rights(can_i(controlplane, namespace, kubeconfig=operator)) == EVERYWHERE


def test_the_operators_rights_in_its_own_namespace_are_exactly_these(
    controlplane: ControlPlane, operator: Path
) -> None:
    assert rights(can_i(controlplane, NAMESPACE, kubeconfig=operator)) == IN_OPERATOR_NAMESPACE


@pytest.mark.parametrize("what", ALLOWED)
def test_the_operator_can(what: str, controlplane: ControlPlane, namespace: str, operator: Path) -> None:
    assert not is_forbidden(controlplane, operator, namespace, *ALLOWED[what])


def test_the_operator_can_create_change_and_delete_account_secrets_anywhere(
    controlplane: ControlPlane, namespace: str, operator: Path
) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": ACCOUNT_SECRET}}
    apply = ("apply", "--server-side", f"--namespace={namespace}", "--filename=-")
    for data in ({"A": "MQ=="}, {"A": "Mg=="}):
        manifest = json.dumps(secret | {"data": data})
        controlplane.kubectl(*apply, input=manifest, kubeconfig=operator)
    delete = ("delete", "secret", ACCOUNT_SECRET, f"--namespace={namespace}")
    controlplane.kubectl(*delete, kubeconfig=operator)


def test_the_operator_can_create_its_keys_with_server_side_apply(controlplane: ControlPlane, operator: Path) -> None:
    keys = ("secret", "devbox-secrets-keys", f"--namespace={NAMESPACE}")
    before = get(controlplane, *keys).get("data")
    controlplane.kubectl("delete", *keys)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "devbox-secrets-keys"}, "data": before or {}}
    apply = ("apply", "--server-side", f"--namespace={NAMESPACE}", "--filename=-")
    controlplane.kubectl(*apply, input=json.dumps(secret), kubeconfig=operator)
    assert get(controlplane, *keys).get("data") == before


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_operator_cannot(what: str, controlplane: ControlPlane, namespace: str, operator: Path) -> None:
    assert is_forbidden(controlplane, operator, namespace, *FORBIDDEN[what])


def test_every_authenticated_user_can_read_the_public_keys(controlplane: ControlPlane, user: Path) -> None:
    read = ("get", "configmap", "devbox-secrets-public-keys")
    assert not is_forbidden(controlplane, user, NAMESPACE, *read)


def test_a_user_without_roles_can_read_only_the_public_keys(controlplane: ControlPlane, user: Path) -> None:
    assert rights(can_i(controlplane, NAMESPACE, kubeconfig=user)) == {
        ("configmaps", "devbox-secrets-public-keys", "get")
    }


def test_an_anonymous_user_cannot_read_the_public_keys(controlplane: ControlPlane) -> None:
    read = ("get", "configmap", "devbox-secrets-public-keys", "--as=system:anonymous")
    assert is_forbidden(controlplane, controlplane.kubeconfig, NAMESPACE, *read)


@pytest.mark.parametrize("role", ROLES)
def test_each_role_grants_its_verbs_on_accountsecrets(role: str, controlplane: ControlPlane, namespace: str) -> None:
    binding = ("create", "rolebinding", "someone", f"--clusterrole={role}", "--user=someone")
    controlplane.kubectl(*binding, f"--namespace={namespace}")

    def ours() -> set[tuple[str, str, str]]:
        every = rights(can_i(controlplane, namespace, "--as=someone"))
        return {right for right in every if right[0].startswith(ACCOUNTSECRETS)}

    # A controller aggregates each of our roles into Kubernetes' own roles, separately.
    until(f"{role} has these rights: {ROLES[role]}", lambda: ours() == {(ACCOUNTSECRETS, "", ROLES[role])})


@pytest.mark.parametrize("role", CHART_ROLES)
def test_the_charts_roles_grant_nothing_else(role: str, controlplane: ControlPlane, namespace: str) -> None:
    binding = ("create", "rolebinding", "someone", f"--clusterrole={role}", "--user=someone")
    controlplane.kubectl(*binding, f"--namespace={namespace}")
    expected = CHART_ROLES[role]
    until(f"{role} grants {expected}", lambda: rights(can_i(controlplane, namespace, "--as=someone")) == expected)


def test_the_edit_role_allows_reading_only_its_own_namespace(controlplane: ControlPlane, namespace: str) -> None:
    user = f"editor-of-{namespace}"
    binding = ("create", "rolebinding", user, "--clusterrole=devbox-secrets-edit", f"--user={user}")
    controlplane.kubectl(*binding, f"--namespace={namespace}")

    def reads(name: str) -> bool:
        return controlplane.kubectl("get", "namespace", name, f"--as={user}", check=False).returncode == 0

    until("the namespace is readable", lambda: reads(namespace))
    assert not reads(NAMESPACE)
    assert controlplane.kubectl("get", "namespaces", f"--as={user}", check=False).returncode != 0
