"""Pods after admission, with the policy and with the webhook: tables of injected and rejected pods."""

import json

import pytest

from harness.controlplane import ControlPlane
from integration.support import chart
from integration.support.chart import (
    DEVBOX,
    Json,
    container,
    created,
    dry_run,
    first_container,
    get,
    install,
    pod,
    rejection_message,
    until,
)
from integration.support.pod_cases import CASES, OURS, OWN, OWN_ENV, Case, pods
from integration.support.pod_rejections import REJECTED, Rejection, denial_message
from integration.support.webhook import Fallback

NOT_DEVBOXES = [
    {},
    {"app": "web"},
    {"devbox-secrets.dev/devbox": "false"},
]

TEMPLATE: Json = {
    "metadata": {"labels": {"app": "box", **DEVBOX}},
    "spec": {"containers": [container("a")], "initContainers": [container("setup")]},
}
SELECTOR = {"matchLabels": {"app": "box"}}
RUN_TO_COMPLETION = TEMPLATE | {"spec": TEMPLATE["spec"] | {"restartPolicy": "Never"}}
WORKLOADS = [
    ("apps/v1", "Deployment", {"selector": SELECTOR, "template": TEMPLATE}),
    ("apps/v1", "StatefulSet", {"selector": SELECTOR, "serviceName": "box", "template": TEMPLATE}),
    ("batch/v1", "Job", {"template": RUN_TO_COMPLETION}),
]


@pytest.fixture(scope="module", params=["policy", "webhook"], name="controlplane")
def _by_method(request: pytest.FixtureRequest, controlplane: ControlPlane) -> ControlPlane:
    """Every test of this module runs with the policy and with the webhook."""
    if request.param == "policy":
        install(controlplane)
        return controlplane
    fallback: Fallback = request.getfixturevalue("fallback")
    return fallback.controlplane


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_devbox_gets_its_secrets_and_no_other_changes(case: Case, controlplane: ControlPlane) -> None:
    stranger, devbox = pods(case, controlplane)
    assert devbox["spec"] == case.applied_to(stranger["spec"])
    assert devbox["metadata"].get("annotations", {}) == case.annotations


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_secrets_are_required_in_a_namespace_with_an_account_label(
    case: Case, controlplane: ControlPlane, member: str
) -> None:
    stranger, devbox = pods(case, controlplane, member)
    assert devbox["spec"] == case.applied_to(stranger["spec"], optional=False)


@pytest.mark.parametrize("case", REJECTED, ids=lambda case: case.name)
def test_a_malformed_annotation_is_rejected_with_a_message(case: Rejection, controlplane: ControlPlane) -> None:
    manifest = pod(case.spec, case.labels, case.annotations)
    assert denial_message(rejection_message(controlplane, manifest, "default")) == case.message


def test_malformed_annotations_of_other_pods_are_ignored(controlplane: ControlPlane) -> None:
    boxes = [pod(case.spec, {}, case.annotations) for case in REJECTED]
    named = [each | {"metadata": each["metadata"] | {"name": f"box-{n}"}} for n, each in enumerate(boxes)]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": named})
    done = controlplane.kubectl("create", "--dry-run=server", "--output=name", "--filename=-", input=manifest)
    assert done.stdout.split() == [f"pod/box-{n}" for n in range(len(REJECTED))]


def test_secrets_are_required_even_with_an_empty_account_label(controlplane: ControlPlane, namespace: str) -> None:
    member = f"{namespace}-member"
    created(controlplane, chart.namespace(member, {chart.ACCOUNT: ""}))
    required = {"secretRef": OURS["secretRef"] | {"optional": False}}
    assert first_container(controlplane, DEVBOX, member)["envFrom"] == [required]


@pytest.mark.parametrize("labels", NOT_DEVBOXES, ids=json.dumps)
def test_a_pod_that_is_not_a_devbox_is_unchanged(
    labels: dict[str, str], controlplane: ControlPlane, namespace: str
) -> None:
    sent = container("a", env=OWN_ENV, envFrom=OWN)
    found = dry_run(controlplane, pod({"containers": [sent, container("b")]}, labels), namespace)
    first, second = found["spec"]["containers"]
    assert {key: first[key] for key in sent} == sent
    assert "envFrom" not in second


def test_labeling_a_running_pod_as_a_devbox_does_not_change_its_spec(
    controlplane: ControlPlane, namespace: str
) -> None:
    before = created(controlplane, pod({"containers": [container("a")]}, {}), namespace)
    label = ",".join(f"{key}={value}" for key, value in DEVBOX.items())
    controlplane.kubectl("label", f"--namespace={namespace}", "pod", "box", label)
    assert get(controlplane, "pod", "box", f"--namespace={namespace}")["spec"] == before["spec"]


@pytest.mark.parametrize(("version", "kind", "spec"), WORKLOADS, ids=[it[1] for it in WORKLOADS])
def test_the_pods_of_a_workload_get_secrets_and_its_template_is_unchanged(
    version: str, kind: str, spec: Json, controlplane: ControlPlane, namespace: str
) -> None:
    manifest = {"apiVersion": version, "kind": kind, "metadata": {"name": "box"}, "spec": spec}
    workload = created(controlplane, manifest, namespace)
    (found,) = until(
        f"the {kind} has its pod",
        lambda: get(controlplane, "pods", f"--namespace={namespace}")["items"],
    )
    for kind_of in ("containers", "initContainers"):
        assert [one["envFrom"] for one in found["spec"][kind_of]] == [[OURS]]
        assert all("envFrom" not in one for one in workload["spec"]["template"]["spec"][kind_of])


def test_a_rejection_is_an_event_of_the_deployments_replicaset(controlplane: ControlPlane, namespace: str) -> None:
    wrong = next(case for case in REJECTED if case.name == "a misspelled annotation")
    template = TEMPLATE | {"metadata": TEMPLATE["metadata"] | {"annotations": wrong.annotations}}
    spec = {"selector": SELECTOR, "template": template}
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "box"}, "spec": spec}
    created(controlplane, manifest, namespace)
    events = ("events", f"--namespace={namespace}", "--field-selector=involvedObject.kind=ReplicaSet")
    found = until("the ReplicaSet has an Event", lambda: get(controlplane, *events)["items"])
    assert found[0]["reason"] == "FailedCreate"
    assert found[0]["message"].endswith(f" denied request: {wrong.message}")
