"""`helm test` runs `devbox-secrets check` with minimal rights, which are removed afterwards."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from harness.controlplane import ControlPlane
from integration.support.chart import CHART, NAMESPACE, Json, dry_run, get, helm, release, settle, until
from integration.support.kubelet import make_ready
from integration.support.processes import command, operator
from integration.support.rights import ACCOUNTSECRETS, can_i, rights

NAME = "devbox-secrets-check"
ADMISSION = "admissionregistration.k8s.io"
RBAC = "rbac.authorization.k8s.io"
#: Resource, names and verbs.
EVERYWHERE = {
    (ACCOUNTSECRETS, "", "list"),
    ("namespaces", "", "list"),
    (f"mutatingadmissionpolicies.{ADMISSION}", "devbox-secrets", "get"),
    (f"mutatingadmissionpolicybindings.{ADMISSION}", "", "list"),
    (f"mutatingwebhookconfigurations.{ADMISSION}", "", "list"),
    (f"validatingadmissionpolicybindings.{ADMISSION}", "", "list"),
    (f"clusterroles.{RBAC}", "", "list"),
    (f"clusterrolebindings.{RBAC}", "", "list"),
    *(
        (f"validatingadmissionpolicies.{ADMISSION}", f"devbox-secrets-{each}", "get")
        for each in ("accounts", "annotations", "homes")
    ),
}
IN_OPERATOR_NAMESPACE = EVERYWHERE | {
    (f"roles.{RBAC}", "", "list"),
    (f"rolebindings.{RBAC}", "", "list"),
    ("configmaps", "devbox-secrets-public-keys", "get"),
    ("leases.coordination.k8s.io", "devbox-secrets", "get"),
    *(("deployments.apps", f"devbox-secrets{each}", "get") for each in ("", "-gateway", "-webhook")),
}
#: What `check` can't verify with these rights: they exclude Secrets and pods, which can contain values.
UNVERIFIED = {"encryption", "account Secrets", "devboxes"}


def hooks() -> list[Json]:
    """Return what `helm test` creates, in this order."""
    made = helm("template", NAMESPACE, str(CHART), f"--namespace={NAMESPACE}", "--show-only=templates/tests/check.yaml")
    objects = [each for each in yaml.safe_load_all(made.stdout) if each]
    return sorted(objects, key=lambda each: int(each["metadata"]["annotations"]["helm.sh/hook-weight"]))


@pytest.fixture(scope="module")
def installed() -> Iterator[ControlPlane]:
    """A control plane with a release of the chart and a running operator."""
    with ControlPlane.start() as it:
        release(it, "install", str(CHART), "--create-namespace")
        settle(it)
        with operator(it):
            make_ready(it, NAMESPACE, NAMESPACE)
            yield it


@pytest.fixture(scope="module")
def checker(installed: ControlPlane) -> Path:
    """The kubeconfig of the test's pod, with the rights that it has while it runs."""
    for each in hooks()[:-1]:
        installed.kubectl("apply", "--filename=-", input=json.dumps(each))
    return installed.service_account_kubeconfig(NAMESPACE, NAME)


def remaining(controlplane: ControlPlane) -> list[str]:
    """Return the names of the test's objects that exist."""
    kinds = "pods,serviceaccounts,clusterroles,clusterrolebindings,roles,rolebindings"
    label = "--selector=app.kubernetes.io/component=check"
    return controlplane.kubectl("get", kinds, label, f"--namespace={NAMESPACE}", "--output=name").stdout.split()


def test_all_objects_are_hooks_that_helm_deletes() -> None:
    made = hooks()
    assert made[-1]["kind"] == "Pod"
    for each in made:
        annotations = each["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "test"
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"


def test_no_components_selector_matches_its_pod() -> None:
    labels = hooks()[-1]["metadata"]["labels"]
    made = yaml.safe_load_all(helm("template", NAMESPACE, str(CHART), "--set=metrics.service.enabled=true").stdout)
    selectors = [each["spec"]["selector"] for each in made if each and each["kind"] in {"Service", "Deployment"}]
    assert selectors
    assert not any(each.get("matchLabels", each).items() <= labels.items() for each in selectors)


@pytest.mark.parametrize(("succeeds", "code"), [(True, 0), (False, 1)])
def test_helm_waits_for_the_pod_and_removes_the_rights(installed: ControlPlane, succeeds: bool, code: int) -> None:
    """No kubelet runs the pod, so this test sets its phase."""
    test = ("test", NAMESPACE, f"--namespace={NAMESPACE}", "--timeout=60s")
    pod = ("pod", NAME, f"--namespace={NAMESPACE}")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(helm, *test, kubeconfig=installed.kubeconfig)
        installed.kubectl("wait", "--for=create", *pod, "--timeout=30s")
        assert len(remaining(installed)) == len(hooks())
        status = json.dumps({"status": {"phase": "Succeeded" if succeeds else "Failed"}})
        installed.kubectl("patch", *pod, "--subresource=status", "--patch", status)
        done = running.result()
    assert done.returncode == code, done.stderr
    expected = [] if succeeds else [f"pod/{NAME}"]  # its log shows the reason
    until(f"only these objects remain: {expected}", lambda: remaining(installed) == expected)
    installed.kubectl("delete", *pod, "--ignore-not-found", "--grace-period=0")


def test_its_pod_passes_pod_security_admission(installed: ControlPlane, checker: Path) -> None:
    label = ("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    installed.kubectl(*label)
    assert dry_run(installed, hooks()[-1], NAMESPACE)["spec"]["serviceAccountName"] == NAME


def test_its_rights_in_all_namespaces_are_exactly_these(installed: ControlPlane, checker: Path) -> None:
    assert rights(can_i(installed, "default", kubeconfig=checker)) == EVERYWHERE


def test_its_rights_in_the_operators_namespace_are_exactly_these(installed: ControlPlane, checker: Path) -> None:
    assert rights(can_i(installed, NAMESPACE, kubeconfig=checker)) == IN_OPERATOR_NAMESPACE


def test_with_these_rights_check_succeeds_and_lists_what_it_cannot_verify(checker: Path) -> None:
    done = check(checker)
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert {each["check"] for each in found if each["level"] != "ok"} == UNVERIFIED


def test_check_fails_when_the_operator_is_not_ready(installed: ControlPlane, checker: Path) -> None:
    at = ("--namespace", NAMESPACE)
    installed.kubectl("delete", "pods", "--selector=app.kubernetes.io/name=devbox-secrets", *at, "--grace-period=0")
    unready = ("deployment/devbox-secrets", *at)
    installed.kubectl("wait", *unready, "--for=jsonpath={.status.unavailableReplicas}=2", "--timeout=30s")
    assert check(checker).returncode == 3


def check(kubeconfig: Path) -> subprocess.CompletedProcess[str]:
    """Run the pod's command."""
    (container,) = hooks()[-1]["spec"]["containers"]
    return command(kubeconfig, *container["args"], "-o", "json")


def test_check_accepts_a_custom_service_account_of_the_operator_as_a_key_reader(
    installed: ControlPlane, checker: Path
) -> None:
    account = ("create", "serviceaccount", "own", f"--namespace={NAMESPACE}")
    installed.kubectl(*account)
    release(installed, "upgrade", str(CHART), "--set=serviceAccount.create=false,serviceAccount.name=own")
    deployment = get(installed, "deployment", "devbox-secrets", f"--namespace={NAMESPACE}")
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == "own"
    found = {each["check"]: each["level"] for each in json.loads(check(checker).stdout)}
    assert found["key readers"] == "ok"
