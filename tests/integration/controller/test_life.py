"""The lifecycle of an installation, and a search of everything that the system wrote during it.

The audit log shows which permissions were used; the canary values must be only in the account Secret.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from integration.support.chart import ACCOUNT, NAMESPACE, Json, get, install, until
from integration.support.gateway import bind, gateway, token
from integration.support.processes import Operator, operator, seal
from integration.support.rights import IN_OPERATOR_NAMESPACE_WITH_GATEWAY
from integration.support.sealing_keys import rotate

USER = f"system:serviceaccount:{NAMESPACE}:devbox-secrets"
SECRET = "devbox-account-secrets"  # noqa: S105 - a Secret's name
CANARIES = [f"canary-{number}-in-the-cage" for number in range(5)]
POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  # As a cluster's owner would log: bodies, except those of Secrets.
  - level: Metadata
    resources: [{group: "", resources: [secrets]}]
  - level: RequestResponse
"""


@dataclass(frozen=True)
class Lifecycle:
    """What the system wrote during the lifecycle."""

    audit: list[Json]
    texts: dict[str, str]


@pytest.fixture(scope="module")
def lifecycle() -> Iterator[Lifecycle]:
    """Install, seal, apply, update, damage, repair, delete and rotate, with two accounts and a member namespace."""
    with ControlPlane.start(audit_policy=POLICY) as it:
        install(it, "--set=gateway.enabled=true")
        with operator(it, reseal_gateway_values="true", rescan_seconds="0.2") as running:
            _run_lifecycle(it, running)
            texts = {
                "the operator's log at DEBUG": running.log,
                "its metrics": running.get("/metrics"),
                "events": it.kubectl("get", "events", "-A", "-o", "yaml").stdout,
                "AccountSecrets": it.kubectl(
                    "get", "accountsecrets", "-A", "-o", "yaml", "--show-managed-fields"
                ).stdout,
                "ConfigMaps": it.kubectl("get", "configmaps", "-A", "-o", "yaml").stdout,
                "namespaces": it.kubectl("get", "namespaces", "-o", "yaml").stdout,
                "argv and environment": _processes(running),
            }
        texts["the audit log"] = it.audit_log.read_text()
        texts["the API server's log"] = it.log("kube-apiserver").read_text()
        yield Lifecycle([json.loads(line) for line in texts["the audit log"].splitlines()], texts)


def _run_lifecycle(it: ControlPlane, running: Operator) -> None:
    for namespace in ("one", "two", "box"):
        it.kubectl("create", "namespace", namespace)
    it.kubectl("label", "namespace", "box", f"{ACCOUNT}=one")
    _apply(it, "one", "TOKEN", CANARIES[0])
    _apply(it, "one", "LD_PRELOAD", CANARIES[1])
    _apply(it, "two", "TOKEN", CANARIES[2])
    for namespace, value in (("one", CANARIES[0]), ("box", CANARIES[0]), ("two", CANARIES[2])):
        until(f"{namespace} has its value", partial(_holds, it, namespace, value))
    _apply(it, "one", "TOKEN", CANARIES[3])
    until("box has the new value", lambda: _holds(it, "box", CANARIES[3]))
    # Sealed for another account.
    body = json.loads(seal(it, "COPIED", CANARIES[1].encode(), "two", "-o", "json").stdout)
    body["metadata"]["namespace"] = "one"
    it.kubectl("apply", "-f", "-", input=json.dumps(body))
    it.kubectl("patch", "secret", SECRET, "-n", "two", "--type=merge", "-p", '{"data": {"STRAY": "eA=="}}')
    until("two is repaired", lambda: "STRAY" not in get(it, "secret", SECRET, "-n", "two")["data"])
    it.kubectl("delete", "accountsecrets", "--all", "-n", "two")
    until(
        "two's Secret is deleted", lambda: it.kubectl("get", "secret", SECRET, "-n", "two", check=False).returncode == 1
    )
    _create_through_the_gateway(it, "two", CANARIES[4])
    until("two has its value", lambda: _holds(it, "two", CANARIES[4]))
    newest = rotate(it)
    of_key = ("get", "accountsecret", "token", "-n", "two", "-o", "jsonpath={.status.keyId}")
    until("the gateway's value is resealed", lambda: it.kubectl(*of_key).stdout == newest)
    until("the failure is counted", lambda: 'reason="CannotOpen"} 1.0' in running.get("/metrics"))


def _apply(it: ControlPlane, account: str, name: str, value: str) -> None:
    # One of the names is reserved, and the operator rejects it.
    it.kubectl("apply", "-f", "-", input=seal(it, name, value.encode(), account, "--allow-reserved").stdout)


def _create_through_the_gateway(it: ControlPlane, account: str, value: str) -> None:
    it.kubectl("create", "serviceaccount", "editor", "-n", account)
    bind(it, account, f"{account}:editor", "edit")
    with gateway(it) as rest, rest.client(token(it, account)) as api:
        assert api.post("/v1/secrets", json={"name": "TOKEN", "value": value}).is_success


def _holds(it: ControlPlane, namespace: str, value: str) -> bool:
    done = it.kubectl("get", "secret", SECRET, "-n", namespace, "-o", "jsonpath={.data.TOKEN}", check=False)
    return base64.b64decode(done.stdout).decode() == value


def _processes(running: Operator) -> str:
    folder = Path(f"/proc/{running.component.pid}")
    return (folder / "cmdline").read_text() + (folder / "environ").read_text()


def test_values_are_only_in_the_account_secret(lifecycle: Lifecycle) -> None:
    for canary in CANARIES:
        for form in (canary, base64.b64encode(canary.encode()).decode(), canary.encode().hex()):
            found = [where for where, text in lifecycle.texts.items() if form in text]
            assert not found, f"{canary} as {form}"


def test_the_search_would_have_found_a_value(lifecycle: Lifecycle) -> None:
    assert all(lifecycle.texts.values())
    assert "TOKEN" in lifecycle.texts["AccountSecrets"]
    assert "copied: CannotOpen" in lifecycle.texts["the operator's log at DEBUG"]
    assert SECRET in lifecycle.texts["the audit log"]


def test_the_operator_used_each_of_its_permissions(lifecycle: Lifecycle) -> None:
    used = {
        _permission(event["objectRef"], verb)
        for event in lifecycle.audit
        if event["user"]["username"] == USER and "objectRef" in event
        # A server-side apply that creates an object needs both permissions, and is logged as a patch with status 201.
        for verb in [event["verb"]] + ["create"] * (event["responseStatus"]["code"] == 201)
    }
    assert used == {
        (resource, names, verb)
        for resource, names, verbs in IN_OPERATOR_NAMESPACE_WITH_GATEWAY
        for verb in verbs.split()
    }


def _permission(reference: Json, verb: str) -> tuple[str, str, str]:
    resource = ".".join(filter(None, [reference["resource"], reference.get("apiGroup")]))
    if "subresource" in reference:
        resource += f"/{reference['subresource']}"
    named = reference["resource"] in {"secrets", "configmaps", "leases"}
    return resource, reference.get("name", SECRET) if named else "", verb


def test_the_operator_was_denied_nothing(lifecycle: Lifecycle) -> None:
    denied = [
        event["requestURI"]
        for event in lifecycle.audit
        if event["user"]["username"] == USER and event["responseStatus"]["code"] in {401, 403}
    ]
    assert denied == []
