"""Devboxes that get files due to `injection.as` or their selector, with the policy and with the webhook."""

import json
from collections.abc import Iterator

import pytest
import yaml

from harness.controlplane import ControlPlane
from integration.support.chart import (
    CHART,
    DEVBOX,
    SANDBOX,
    container,
    created,
    deny_policy,
    dry_run,
    first_container,
    install,
    is_rejected,
    namespace,
    pod,
    rejection_message,
    release,
    settle,
    until,
)
from integration.support.pod_cases import FILES_CASES, SECRET, TWO, Case, pods
from integration.support.pod_rejections import FILES_REJECTED, Rejection, denial_message
from integration.support.webhook import Fallback

BOX = {"kind": "box", "size": "m"}
SHELL = {"kind": "shell"}
SELECTORS = [
    *yaml.safe_load((CHART / "values.yaml").read_text())["devboxes"]["selectors"],
    {
        "as": "files",
        "matchLabels": {"kind": "box"},
        "matchExpressions": [
            {"key": "size", "operator": "In", "values": ["s", "m"]},
            {"key": "old", "operator": "DoesNotExist"},
        ],
    },
    {"as": "env", "matchLabels": {"kind": "shell"}},
    {"as": "env", "matchExpressions": [{"key": "shell", "operator": "Exists"}]},
]
AS_FILES = ("--set=injection.as=files", f"--set-json=devboxes.selectors={json.dumps(SELECTORS)}")

LABELS = [
    (DEVBOX, "volumeMounts"),
    (SANDBOX, "volumeMounts"),
    (BOX, "volumeMounts"),
    (SHELL, "envFrom"),
    (SHELL | SANDBOX, "volumeMounts"),
    (SHELL | {"devbox-secrets.dev/devbox": ""}, "volumeMounts"),
    (SHELL | {"devbox-secrets.dev/devbox": "false"}, "envFrom"),
    (BOX | {"shell": ""}, "volumeMounts"),
    (BOX | {"shell": "", "size": "l"}, "envFrom"),
    (BOX | {"shell": "", "old": ""}, "envFrom"),
    ({"kind": "box", "shell": ""}, "envFrom"),
]


@pytest.fixture(scope="module", params=["policy", "webhook"], name="controlplane")
def _by_method(request: pytest.FixtureRequest, controlplane: ControlPlane) -> Iterator[ControlPlane]:
    """Every test of this module runs with the policy and with the webhook."""
    if request.param == "policy":
        install(controlplane, *AS_FILES, field="volumeMounts")
        wait_for_rejections(controlplane)
        yield controlplane
        bindings = "mutatingadmissionpolicybindings,validatingadmissionpolicybindings"
        controlplane.kubectl("delete", bindings, "--all")
        install(controlplane)
        return
    fallback: Fallback = request.getfixturevalue("fallback")
    release(fallback.controlplane, "upgrade", str(CHART), *AS_FILES)
    settle(fallback.controlplane, "volumeMounts")
    wait_for_rejections(fallback.controlplane)
    yield fallback.controlplane
    release(fallback.controlplane, "upgrade", str(CHART))
    settle(fallback.controlplane)


def wait_for_rejections(controlplane: ControlPlane) -> None:
    wrong = pod({"containers": [container("a")], "volumes": [{"name": SECRET, "emptyDir": {}}]}, DEVBOX)
    until("a pod that can't get files is rejected", lambda: is_rejected(controlplane, wrong))


@pytest.mark.parametrize("case", FILES_CASES, ids=lambda case: case.name)
def test_a_devbox_gets_its_secrets_and_no_other_changes(case: Case, controlplane: ControlPlane) -> None:
    stranger, devbox = pods(case, controlplane)
    assert devbox["spec"] == case.applied_to(stranger["spec"])


@pytest.mark.parametrize("case", FILES_CASES, ids=lambda case: case.name)
def test_secrets_are_required_in_a_namespace_with_an_account_label(
    case: Case, controlplane: ControlPlane, member: str
) -> None:
    stranger, devbox = pods(case, controlplane, member)
    assert devbox["spec"] == case.applied_to(stranger["spec"], optional=False)


@pytest.mark.parametrize("case", FILES_REJECTED, ids=lambda case: case.name)
def test_a_pod_that_cannot_get_files_is_rejected_with_a_message(case: Rejection, controlplane: ControlPlane) -> None:
    manifest = pod(case.spec, case.labels, case.annotations)
    assert denial_message(rejection_message(controlplane, manifest, "default")) == case.message


@pytest.mark.parametrize(("labels", "field"), LABELS, ids=lambda it: it if isinstance(it, str) else json.dumps(it))
def test_selectors_choose_the_form_and_files_take_precedence(
    labels: dict[str, str], field: str, controlplane: ControlPlane
) -> None:
    (found,) = {"envFrom", "volumeMounts"} & first_container(controlplane, labels).keys()
    assert found == field


# --- Clusters that forbid Secrets in environment variables

#: Kyverno's policy secrets-not-from-env-vars, in CEL.
FROM_FILES = (
    "(object.spec.containers + object.spec.?initContainers.orValue([])).all(c,"
    " c.?env.orValue([]).all(e, !has(e.valueFrom) || !has(e.valueFrom.secretKeyRef)) &&"
    " c.?envFrom.orValue([]).all(e, !has(e.secretRef)))"
)
BY_HAND = container("a", envFrom=[{"secretRef": {"name": SECRET}}])


@pytest.fixture(scope="module")
def strict(controlplane: ControlPlane) -> Iterator[str]:
    """A namespace that forbids Secrets in environment variables."""
    name = "strict"
    objects = [namespace(name, {"closed": "pods"}), *deny_policy("", "pods", unless=FROM_FILES)]
    for each in objects:
        created(controlplane, each)
    until("the policy takes effect", lambda: is_rejected(controlplane, pod({"containers": [BY_HAND]}, {}), name))
    yield name
    for each in objects:
        controlplane.kubectl("delete", each["kind"], each["metadata"]["name"], "--wait=false")


@pytest.mark.parametrize("labels", [labels for labels, field in LABELS if field == "volumeMounts"], ids=json.dumps)
def test_a_devbox_with_files_is_admitted(labels: dict[str, str], controlplane: ControlPlane, strict: str) -> None:
    spec = {"containers": [container("a")], "initContainers": [container("setup")]}
    assert dry_run(controlplane, pod(spec, labels), strict)


@pytest.mark.parametrize(("labels", "annotations"), [(SHELL, {}), (DEVBOX, TWO)], ids=["by its selector", "by env"])
def test_a_devbox_with_variables_is_rejected(
    labels: dict[str, str], annotations: dict[str, str], controlplane: ControlPlane, strict: str
) -> None:
    message = rejection_message(controlplane, pod({"containers": [container("a")]}, labels, annotations), strict)
    assert message.endswith(" denied request: no pods here")
