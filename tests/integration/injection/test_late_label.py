"""A pod is rejected with a message if another policy makes it a devbox too late for injection."""

from collections.abc import Iterator

import pytest

from harness.controlplane import ControlPlane
from integration.support.chart import DEVBOX, Json, container, created, dry_run, install, pod, rejection_message, until
from integration.support.pod_cases import ENV, FILES_BY_HAND, INJECT, MOUNT, PATH, SECRET, VOLUME_BY_HAND

LATE = {"late": "true"}
MESSAGE = (
    "the pod has no secrets, because another policy or webhook added the label that makes it a devbox; set the label"
    " in the pod's own manifest (in the pod template of a workload), or set the annotation devbox-secrets.dev/inject:"
    ' "false" to get no secrets'
)


def labels_devboxes(name: str) -> list[Json]:
    """Return a policy that adds the devbox label to pods with the label `late`, and its binding."""
    (label, value), *_ = DEVBOX.items()
    path = "/metadata/labels/" + label.replace("/", "~1")
    patch = f'[JSONPatch{{op: "add", path: "{path}", value: "{value}"}}]'
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
    specs: dict[str, Json] = {
        "MutatingAdmissionPolicy": {
            "reinvocationPolicy": "IfNeeded",
            "matchConstraints": {"objectSelector": {"matchLabels": LATE}, "resourceRules": [rule]},
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
        },
        "MutatingAdmissionPolicyBinding": {"policyName": name},
    }
    return [
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, spec in specs.items()
    ]


@pytest.fixture(
    scope="module",
    params=[("zzz-after-ours", "files"), ("zzz-after-ours", "env"), ("aaa-before-ours", "env")],
    ids=" ".join,
    name="labelling",
)
def _labelling(request: pytest.FixtureRequest, controlplane: ControlPlane) -> Iterator[ControlPlane]:
    name, how = request.param
    install(controlplane, f"--set=injection.as={how}", field={"env": "envFrom", "files": "volumeMounts"}[how])
    for body in labels_devboxes(name):
        created(controlplane, body)
    opted_out = pod({"containers": [container("a")]}, LATE, {INJECT: "false"})
    until(
        "the label is added",
        lambda: DEVBOX.items() <= dry_run(controlplane, opted_out, "default")["metadata"]["labels"].items(),
    )
    yield controlplane
    for kind in ("mutatingadmissionpolicybinding", "mutatingadmissionpolicy"):
        controlplane.kubectl("delete", kind, name)


@pytest.mark.parametrize(
    "annotations", [{}, {ENV: "TOKEN"}, {MOUNT: PATH}, {ENV: "", MOUNT: PATH}], ids=lambda it: ", ".join(it) or "none"
)
def test_a_late_label_is_rejected_with_instructions(annotations: dict[str, str], labelling: ControlPlane) -> None:
    box = pod({"containers": [container("a")]}, LATE, annotations)
    assert rejection_message(labelling, box, "default").endswith(f" denied request: {MESSAGE}")


def test_a_pod_that_references_the_secret_itself_is_admitted(labelling: ControlPlane) -> None:
    by_hand = container("a", envFrom=[{"secretRef": {"name": SECRET}}])
    assert dry_run(labelling, pod({"containers": [container("b"), by_hand]}, LATE), "default")["spec"]
    files = {"containers": [container("a", volumeMounts=[FILES_BY_HAND])], "volumes": [VOLUME_BY_HAND]}
    assert dry_run(labelling, pod(files, LATE), "default")["spec"]
