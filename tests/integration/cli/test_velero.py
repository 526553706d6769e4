"""A restore in Velero's order, which is read from its source code; Velero itself doesn't run here."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from devbox_secrets.api.names import ALL_ACCOUNT_SECRETS_PATH
from devbox_secrets.kube.client import MERGE
from harness.controlplane import ControlPlane, RequestError
from harness.tools import files
from integration.support.account import SECRET, Account
from integration.support.chart import Json, install
from integration.support.processes import operator

RBAC = "/apis/rbac.authorization.k8s.io/v1"
#: The path that lists each kind, by its name in Velero's order.
LISTS = {
    "customresourcedefinitions": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "namespaces": "/api/v1/namespaces",
    "clusterroles": f"{RBAC}/clusterroles",
    "roles": f"{RBAC}/roles",
    "serviceaccounts": "/api/v1/serviceaccounts",
    "clusterrolebindings": f"{RBAC}/clusterrolebindings",
    "rolebindings": f"{RBAC}/rolebindings",
    "secrets": "/api/v1/secrets",
    "configmaps": "/api/v1/configmaps",
    "pods": "/api/v1/pods",
    # Not in Velero's order, so restored after the others.
    "accountsecrets": ALL_ACCOUNT_SECRETS_PATH,
    "leases": "/apis/coordination.k8s.io/v1/leases",
}
VALUES = {"TOKEN": b"canary-one", "OTHER": b"canary-two"}


def order() -> list[str]:
    text = (files("velero") / "pkg/cmd/server/config/config.go").read_text()
    first = re.findall(r'"([a-z.]+)"', text.partition("HighPriorities: []string{")[2].partition("}")[0])
    return [*(name for name in first if name in LISTS), *sorted(LISTS.keys() - first)]


@pytest.fixture(scope="module", name="lost")
def _lost() -> Iterator[ControlPlane]:
    """The cluster that is backed up, with an account."""
    with ControlPlane.start() as it:
        install(it)
        it.kubectl("create", "namespace", "team")
        with operator(it):
            account = Account.of(it, "team")
            for variable, value in VALUES.items():
                account.put(variable, value)
            account.holds(VALUES)
        yield it


def objects(controlplane: ControlPlane, kind: str) -> Iterator[tuple[str, Json]]:
    """Yield a backup's objects of a kind, each with the path at which it is created."""
    found = controlplane.request("GET", LISTS[kind])
    for each in found["items"]:
        namespace = each["metadata"].get("namespace")
        path = LISTS[kind].replace(f"/{kind}", f"/namespaces/{namespace}/{kind}" if namespace else f"/{kind}")
        kept = {name: each["metadata"].get(name) for name in ("name", "namespace", "labels", "annotations")}
        body = {**each, "apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List"), "metadata": kept}
        body.pop("status", None)
        yield path, body | {"managedFields": each["metadata"].get("managedFields", [])}


def create(controlplane: ControlPlane, path: str, body: Json) -> None:
    """Create an object as Velero does: existing ones are kept, and managedFields are those of an older backup."""
    fields = [{**entry, "time": "2020-01-01T00:00:00Z"} for entry in body.pop("managedFields")]
    with suppress(RequestError):  # it already exists, and is kept
        controlplane.request("POST", path, body)
        controlplane.request(
            "PATCH", f"{path}/{body['metadata']['name']}", {"metadata": {"managedFields": fields}}, MERGE
        )


@pytest.mark.parametrize("with_account_secrets", [False, True], ids=["without account Secrets", "with account Secrets"])
def test_a_backup_restores_the_keys_of_an_empty_cluster(
    lost: ControlPlane, tmp_path: Path, *, with_account_secrets: bool
) -> None:
    with ControlPlane.start() as new, ExitStack() as running:
        for kind in order():
            for path, body in objects(lost, kind):
                if with_account_secrets or body["metadata"]["name"] != SECRET:
                    create(new, path, body)
            if kind == "pods":
                running.enter_context(operator(new, tmp_path, probe="healthz"))
        account = Account.of(new, "team")
        if with_account_secrets:
            account.is_ready("token", "NotOwned")
            account.holds(VALUES)
            new.kubectl("delete", "secrets", "--all-namespaces", f"--field-selector=metadata.name={SECRET}")
        account.is_ready("token")
        account.holds(VALUES)
        assert account.key == Account.of(lost, "team").key
