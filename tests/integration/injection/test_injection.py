"""What a pod looks like after the API server, with the policy and with the webhook: tables of cases and refusals."""

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
    refused,
    until,
)
from integration.support.pod_cases import CASES, OURS, OWN, OWN_ENV, Case, pods
from integration.support.pod_rejections import REFUSED, Refusal, sentence
from integration.support.webhook import Fallback

NO_DEVBOX = [
    {},
    {"app": "web"},
    {"devbox-secrets.dev/devbox": "false"},
]

TEMPLATE: Json = {
    "metadata": {"labels": {"app": "box", **DEVBOX}},
    "spec": {"containers": [container("a")], "initContainers": [container("setup")]},
}
SELECTOR = {"matchLabels": {"app": "box"}}
ONCE = TEMPLATE | {"spec": TEMPLATE["spec"] | {"restartPolicy": "Never"}}
WORKLOADS = [
    ("apps/v1", "Deployment", {"selector": SELECTOR, "template": TEMPLATE}),
    ("apps/v1", "StatefulSet", {"selector": SELECTOR, "serviceName": "box", "template": TEMPLATE}),
    ("batch/v1", "Job", {"template": ONCE}),
]


@pytest.fixture(scope="module", params=["policy", "webhook"], name="controlplane")
def _by(request: pytest.FixtureRequest, controlplane: ControlPlane) -> ControlPlane:
    """Every test of this module runs on both."""
    if request.param == "policy":
        install(controlplane)
        return controlplane
    fallback: Fallback = request.getfixturevalue("fallback")
    return fallback.controlplane


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_devbox_gets_what_it_should_and_is_the_same_otherwise(case: Case, controlplane: ControlPlane) -> None:
    stranger, devbox = pods(case, controlplane)
    assert devbox["spec"] == case.applied_to(stranger["spec"])
    assert devbox["metadata"].get("annotations", {}) == case.annotations


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_in_a_namespace_that_names_its_account_the_secrets_are_required(
    case: Case, controlplane: ControlPlane, member: str
) -> None:
    stranger, devbox = pods(case, controlplane, member)
    assert devbox["spec"] == case.applied_to(stranger["spec"], optional=False)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_malformed_annotation_is_refused_with_a_sentence(case: Refusal, controlplane: ControlPlane) -> None:
    manifest = pod(case.spec, case.labels, case.annotations)
    assert sentence(refused(controlplane, manifest, "default")) == case.sentence


def test_in_pods_that_are_no_devboxes_the_same_annotations_mean_nothing(controlplane: ControlPlane) -> None:
    boxes = [pod(case.spec, {}, case.annotations) for case in REFUSED]
    named = [each | {"metadata": each["metadata"] | {"name": f"box-{n}"}} for n, each in enumerate(boxes)]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": named})
    done = controlplane.kubectl("create", "--dry-run=server", "--output=name", "--filename=-", input=manifest)
    assert done.stdout.split() == [f"pod/box-{n}" for n in range(len(REFUSED))]


def test_it_is_the_label_that_makes_them_required_even_when_it_is_empty(
    controlplane: ControlPlane, namespace: str
) -> None:
    member = f"{namespace}-member"
    created(controlplane, chart.namespace(member, {chart.ACCOUNT: ""}))
    required = {"secretRef": OURS["secretRef"] | {"optional": False}}
    assert first_container(controlplane, DEVBOX, member)["envFrom"] == [required]


@pytest.mark.parametrize("labels", NO_DEVBOX, ids=json.dumps)
def test_a_pod_that_is_no_devbox_is_left_as_it_is(
    labels: dict[str, str], controlplane: ControlPlane, namespace: str
) -> None:
    sent = container("a", env=OWN_ENV, envFrom=OWN)
    found = dry_run(controlplane, pod({"containers": [sent, container("b")]}, labels), namespace)
    first, second = found["spec"]["containers"]
    assert {key: first[key] for key in sent} == sent
    assert "envFrom" not in second


def test_a_pod_that_becomes_a_devbox_later_can_be_labelled_and_stays_the_same(
    controlplane: ControlPlane, namespace: str
) -> None:
    before = created(controlplane, pod({"containers": [container("a")]}, {}), namespace)
    label = ",".join(f"{key}={value}" for key, value in DEVBOX.items())
    controlplane.kubectl("label", f"--namespace={namespace}", "pod", "box", label)
    assert get(controlplane, "pod", "box", f"--namespace={namespace}")["spec"] == before["spec"]


@pytest.mark.parametrize(("version", "kind", "spec"), WORKLOADS, ids=[it[1] for it in WORKLOADS])
def test_the_pods_of_a_workload_get_them_and_its_template_stays_as_written(
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


def test_the_author_of_a_deployment_reads_the_refusal_in_its_replicasets_events(
    controlplane: ControlPlane, namespace: str
) -> None:
    wrong = next(case for case in REFUSED if case.name == "a misspelled annotation")
    template = TEMPLATE | {"metadata": TEMPLATE["metadata"] | {"annotations": wrong.annotations}}
    spec = {"selector": SELECTOR, "template": template}
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "box"}, "spec": spec}
    created(controlplane, manifest, namespace)
    events = ("events", f"--namespace={namespace}", "--field-selector=involvedObject.kind=ReplicaSet")
    told = until("the ReplicaSet has an Event", lambda: get(controlplane, *events)["items"])
    assert told[0]["reason"] == "FailedCreate"
    assert told[0]["message"].endswith(f" denied request: {wrong.sentence}")
