"""`check` on a separate control plane, which each test breaks in one way. The tests act as the kubelet."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import ACCOUNT, DEVBOX, NAMESPACE, Json, container, created, get, install, pod, until
from integration.support.kubelet import make_ready
from integration.support.processes import Operator, command, operator
from integration.support.webhook import Fallback

HEALTHY = {
    "API server", "AccountSecrets", "injection", "annotations", "accounts", "homes", "operator", "versions", "lease",
    "sealing key", "key readers", "synced", "namespaces", "account Secrets", "devboxes",
}  # fmt: skip
SELECTED = (
    "selects pods that match devbox-secrets.dev/devbox,devbox-secrets.dev/devbox notin (false)"
    " or agents.x-k8s.io/sandbox-name-hash"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    with ControlPlane.start() as it:
        install(it)
        yield it


@pytest.fixture(scope="module")
def running(cluster: ControlPlane) -> Iterator[Operator]:
    """The operator, with its Deployment's pods reported as ready, because no kubelet runs here."""
    with operator(cluster) as it:
        make_ready(cluster, NAMESPACE, NAMESPACE)
        yield it


def check(cluster: ControlPlane, *arguments: str, code: int, kubeconfig: Path | None = None) -> dict[str, list[str]]:
    """Run check, and return each check's level and text; of two checks with the same name, the last one's."""
    done = command(kubeconfig or cluster.kubeconfig, "check", "-o", "json", *arguments)
    assert (done.returncode, done.stderr) == (code, "")
    return {each["check"]: [each["level"], each["text"]] for each in json.loads(done.stdout)}


def levels(found: dict[str, list[str]], level: str) -> set[str]:
    return {what for what, (its, _) in found.items() if its == level}


@contextmanager
def deleted(cluster: ControlPlane, *what: str) -> Iterator[None]:
    """Delete a part of the installation, and restore it at the end."""
    cluster.kubectl("delete", *what)
    try:
        yield
    finally:
        install(cluster)


def namespace(cluster: ControlPlane, name: str, **labels: str) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    cluster.kubectl("create", "-f", "-", input=json.dumps(body))
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name)


def test_a_healthy_installation_only_has_a_warning_about_encryption(cluster: ControlPlane, running: Operator) -> None:
    found = check(cluster, code=0)
    assert levels(found, "ok") == HEALTHY
    assert levels(found, "warning") == {"encryption"}
    assert found["encryption"][1].startswith("unknown, because kube-apiserver doesn't run as a pod; ensure")
    assert found["injection"][1] == SELECTED
    assert found["operator"][1] == "2 of 2 replicas are ready"
    assert found["key readers"][1] == "only the operator and cluster administrators"


def test_strict_fails_on_a_warning(cluster: ControlPlane, running: Operator) -> None:
    assert check(cluster, "--strict", code=3) == check(cluster, code=0)


def test_the_default_output_is_a_table(cluster: ControlPlane, running: Operator) -> None:
    lines = command(cluster.kubeconfig, "check").stdout.splitlines()
    assert lines[0].split() == ["LEVEL", "CHECK", "DETAILS"]
    assert lines[1].split()[:4] == ["ok", "API", "server", "Kubernetes"]


@pytest.mark.parametrize(
    ("what", "line"),
    [
        (("mutatingadmissionpolicy", "devbox-secrets"), "injection"),
        (("mutatingadmissionpolicybindings", "--all"), "injection"),
        (("validatingadmissionpolicy", "devbox-secrets-annotations"), "annotations"),
        (("validatingadmissionpolicybinding", "devbox-secrets-accounts"), "accounts"),
        (("validatingadmissionpolicy", "devbox-secrets-homes"), "homes"),
    ],
)
def test_a_policy_that_does_not_exist_or_is_not_bound_is_an_error(
    cluster: ControlPlane, running: Operator, what: tuple[str, ...], line: str
) -> None:
    with deleted(cluster, *what):
        found = check(cluster, code=3)
    assert levels(found, "error") == {line}
    assert "reinstall the chart" in found[line][1]


def test_a_missing_operator_is_an_error_that_names_the_namespace(cluster: ControlPlane, running: Operator) -> None:
    found = check(cluster, "--operator-namespace=elsewhere", code=3)
    assert levels(found, "error") == {"operator", "lease", "sealing key"}
    assert found["operator"][1] == (
        "no Deployment devbox-secrets in elsewhere; install the chart, or pass --operator-namespace"
    )


def test_replicas_that_are_not_ready_and_other_versions_are_reported(cluster: ControlPlane, running: Operator) -> None:
    at = ("deployment/devbox-secrets", "-n", NAMESPACE)
    cluster.kubectl("scale", *at, "--replicas=3")
    cluster.kubectl("label", *at, "app.kubernetes.io/version=0.0.9", "--overwrite")
    until("the third replica is unavailable", lambda: get(cluster, *at)["status"].get("unavailableReplicas") == 1)
    found = check(cluster, code=0)
    assert found["operator"] == ["warning", f"2 of 3 replicas are ready; check: kubectl get pods -n {NAMESPACE}"]
    assert found["versions"][0] == "warning"
    assert found["versions"][1].startswith("the operator is 0.0.9, but this client is ")
    cluster.kubectl("scale", *at, "--replicas=2")
    install(cluster)


def test_an_installed_gateway_is_checked(cluster: ControlPlane, running: Operator) -> None:
    gateway = ("deployment", "devbox-secrets-gateway", "-n", NAMESPACE)
    cluster.kubectl("create", *gateway, "--image=gateway")
    found = check(cluster, code=3)
    assert found["gateway"] == ["error", f"0 of 1 replicas are ready; check: kubectl get pods -n {NAMESPACE}"]
    cluster.kubectl("scale", *gateway, "--replicas=0")
    assert check(cluster, code=0)["gateway"] == ["warning", "scaled to 0 replicas: it doesn't serve requests"]
    cluster.kubectl("delete", *gateway)


def test_a_lease_that_nobody_holds_or_renews_is_an_error() -> None:
    with ControlPlane.start() as alone:
        install(alone)
        assert check(alone, code=3)["lease"] == [
            "error",
            (
                "no replica holds the Lease devbox-secrets, so changes don't reach devboxes; check:"
                f" kubectl get pods -n {NAMESPACE}"
            ),
        ]
        spec = {"holderIdentity": "box-1", "renewTime": "2026-01-01T00:00:00.000000Z"}
        patch = ("patch", "lease", "devbox-secrets", "-n", NAMESPACE, "--type=merge")
        alone.kubectl(*patch, "--patch", json.dumps({"spec": spec}))
        assert check(alone, code=3)["lease"][1].startswith("box-1 last renewed the Lease ")


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        (
            ("rolebinding", "ops", "-n", NAMESPACE, "--clusterrole=edit", "--user=ann"),
            "User ann (RoleBinding ops)",
        ),
        (
            ("clusterrolebinding", "scraper", "--clusterrole=view-secrets", "--serviceaccount=tools:scraper"),
            "ServiceAccount tools/scraper (ClusterRoleBinding scraper)",
        ),
    ],
)
def test_other_readers_of_the_keys_are_reported(
    cluster: ControlPlane, running: Operator, binding: tuple[str, ...], message: str
) -> None:
    role = ("create", "clusterrole", "view-secrets", "--verb=list", "--resource=secrets")
    cluster.kubectl(*role, check=False)
    cluster.kubectl("create", *binding)
    found = check(cluster, code=0)["key readers"]
    cluster.kubectl("delete", *binding[:2], *(binding[2:4] if binding[2] == "-n" else ()))
    assert found[0] == "warning"
    assert message in found[1]


def test_conflicts_and_secrets_that_are_not_synced_are_reported(cluster: ControlPlane, running: Operator) -> None:
    namespace(cluster, "clash")
    account = Account.of(cluster, "clash")
    cluster.kubectl("create", "secret", "generic", "devbox-account-secrets", "-n", "clash")
    account.is_ready(account.put("TOKEN", b"1"), "NotOwned")
    message = "1 NotOwned: clash/token; for details: devbox-secrets status NAME -n ACCOUNT"
    assert check(cluster, code=0)["not synced"] == ["warning", message]
    assert check(cluster, "--strict", code=3)["not synced"] == ["warning", message]
    assert "not synced" not in check(cluster, "-n", "default", "--tenants", code=0)
    found = check(cluster, "--tenants", code=3)
    assert found["not synced"] == ["error", message]
    assert levels(found, "error") == {"not synced"}
    account.delete("token")


def test_a_pending_secret_is_not_a_tenants_mistake(cluster: ControlPlane, running: Operator) -> None:
    namespace(cluster, "early")
    account = Account.of(cluster, "early")
    os.kill(running.component.pid, signal.SIGSTOP)
    try:
        account.put("TOKEN", b"1")
        message = "1 Pending: early/token; for details: devbox-secrets status NAME -n ACCOUNT"
        assert check(cluster, "--tenants", code=0)["not synced"] == ["warning", message]
    finally:
        os.kill(running.component.pid, signal.SIGCONT)
    account.delete("token")


def test_an_account_without_a_home_is_reported(cluster: ControlPlane, running: Operator) -> None:
    namespace(cluster, "lost", **{ACCOUNT: "nowhere"})
    assert check(cluster, code=0)["namespaces"][1].startswith(
        "the label names an account without a home: lost → nowhere;"
    )
    cluster.kubectl("label", "namespace", "lost", f"{ACCOUNT}-")


def test_devboxes_without_secrets_and_those_that_opted_out_are_reported(
    cluster: ControlPlane, running: Operator
) -> None:
    def box(name: str, labels: dict[str, str], annotations: dict[str, str] | None = None) -> None:
        body: Json = pod({"containers": [container("a")]}, labels, annotations)
        body["metadata"]["name"] = name
        created(cluster, body)

    box("early", {})
    cluster.kubectl("label", "pod", "early", "devbox-secrets.dev/devbox=TRUE")
    box("none", {"devbox-secrets.dev/devbox": "false"})
    box("out", DEVBOX, {"devbox-secrets.dev/inject": "false"})
    box("in", DEVBOX)
    done = json.loads(command(cluster.kubeconfig, "check", "-o", "json").stdout)
    assert [(each["level"], each["text"]) for each in done if each["check"] == "devboxes"] == [
        ("ok", "3 running, 1 of them opted out"),
        ("warning", "1 have no secrets because they are older than the installation; recreate them: default/early"),
    ]


def test_a_missing_permission_is_a_warning_that_names_it(cluster: ControlPlane, running: Operator) -> None:
    found = check(cluster, code=0, kubeconfig=cluster.user_kubeconfig("nobody"))
    assert levels(found, "ok") == {"API server", "AccountSecrets", "sealing key"}
    assert levels(found, "error") == set()
    assert (
        found["operator"][1]
        == "unknown: you don't have permission to get deployments.apps in the namespace devbox-secrets"
    )
    assert found["devboxes"][1] == "unknown: you don't have permission to list pods at the cluster scope"


def test_the_webhook_counts_as_injection(fallback: Fallback) -> None:
    found = check(fallback.controlplane, code=3)
    assert found["injection"] == ["ok", SELECTED]
    # The webhook runs here, but not in the Deployment's pods.
    assert found["webhook"] == ["error", f"0 of 2 replicas are ready; check: kubectl get pods -n {NAMESPACE}"]


def test_without_an_installation_every_check_fails(tmp_path: Path) -> None:
    with ControlPlane.start() as empty:
        found = check(empty, code=3)
    assert levels(found, "error") == {
        "AccountSecrets", "injection", "annotations", "accounts", "homes", "operator", "lease", "sealing key",
    }  # fmt: skip
