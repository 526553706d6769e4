"""A later version of the API can be added: stored objects don't change, and clients of both versions work."""

from collections.abc import Iterator
from copy import deepcopy

import pytest

from devbox_secrets.api.crd import crd
from devbox_secrets.api.names import GROUP, PLURAL, VERSION, account_secrets_path
from devbox_secrets.kube.client import APPLY
from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import install, until
from integration.support.processes import operator
from integration.support.sealing_keys import ensure_key

NEXT = "v1"
_CRD = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{PLURAL}.{GROUP}"


@pytest.fixture(scope="module", name="account")
def _account() -> Iterator[Account]:
    """An account on a separate control plane, because a version in which objects are stored can't be removed."""
    with ControlPlane.start() as it:
        install(it)
        ensure_key(it)
        with operator(it):
            yield Account.of(it, "default")


def serve(controlplane: ControlPlane, stored: str) -> None:
    """Serve the next version besides the current one, as `make generate` would write it, and wait for both."""
    body = crd()
    (this,) = body["spec"]["versions"]
    body["spec"]["versions"] = [
        {**deepcopy(this), "name": name, "storage": name == stored} for name in (NEXT, this["name"])
    ]
    controlplane.request("PATCH", f"{_CRD}?fieldManager=helm&force=true", body, APPLY)
    until(f"{stored} is stored", lambda: stored in controlplane.request("GET", _CRD)["status"]["storedVersions"])
    until(f"{NEXT} is served", lambda: NEXT in _served(controlplane))


def _served(controlplane: ControlPlane) -> list[str]:
    found = controlplane.read(f"/apis/{GROUP}") or {"versions": []}
    return [version["version"] for version in found["versions"]]


def path(version: str, account: Account, name: str) -> str:
    return account_secrets_path(account.name, name).replace(f"/{VERSION}/", f"/{version}/")


def test_the_crd_serves_one_version() -> None:
    (version,) = crd()["spec"]["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1beta1", True, True)


@pytest.mark.parametrize("stored", [VERSION, NEXT], ids=["served", "stored"])
def test_another_version_can_be_added_without_changing_stored_objects(stored: str, account: Account) -> None:
    request = account.controlplane.request
    old = account.put("TOKEN", b"before")
    account.is_ready(old)
    before = request("GET", path(VERSION, account, old))

    serve(account.controlplane, stored)

    assert request("GET", path(VERSION, account, old)) == before  # with its resourceVersion
    as_next = request("GET", path(NEXT, account, old))
    assert as_next["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert (as_next["spec"], as_next["status"]) == (before["spec"], before["status"])

    body = account.manifest("OTHER", b"in the next version") | {"apiVersion": f"{GROUP}/{NEXT}"}
    new = path(NEXT, account, body["metadata"]["name"])
    request("PATCH", f"{new}?fieldManager=kubectl&fieldValidation=Strict", body, APPLY)
    account.put("TOKEN", b"after")
    account.holds({"TOKEN": b"after", "OTHER": b"in the next version"})
    account.delete(old)
    account.delete(body["metadata"]["name"])
    account.holds(None)
