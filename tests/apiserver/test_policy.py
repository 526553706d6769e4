"""What a pod looks like after the API server: the chart's policy, as a table of pods."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from apiserver.chart import (
    ACCOUNT,
    DEVBOX,
    SANDBOX,
    Json,
    container,
    created,
    dry_run,
    first_container,
    get,
    install,
    pod,
    until,
)
from cluster.controlplane import ControlPlane

OURS: Json = {"secretRef": {"name": "devbox-account-secrets", "optional": True}}
REQUIRED = {"secretRef": {"name": "devbox-account-secrets", "optional": False}}
OWN: list[Json] = [
    {"configMapRef": {"name": "settings"}},
    {"prefix": "DB_", "secretRef": {"name": "db"}},
]
BY_HAND: list[Json] = [
    {"configMapRef": {"name": "settings"}},
    {"secretRef": {"name": "devbox-account-secrets"}},
]
ENV = [{"name": "GITHUB_TOKEN", "value": "the pod's own"}]
MANY: list[Json] = [{"configMapRef": {"name": f"settings-{number}"}} for number in range(30)]


@dataclass(frozen=True)
class Case:
    """A pod's containers, and what each has in envFrom afterwards."""

    name: str
    containers: Sequence[Json]
    after: Sequence[Sequence[Json]]
    init: Sequence[Json] = ()
    init_after: Sequence[Sequence[Json]] = ()
    labels: dict[str, str] = field(default_factory=lambda: DEVBOX)


CASES = [
    Case("one container", [container("a")], [[OURS]]),
    Case(
        "two containers and one that runs before them",
        [container("a"), container("b")],
        [[OURS], [OURS]],
        init=[container("setup")],
        init_after=[[OURS]],
    ),
    Case(
        "a sidecar among the init containers",
        [container("a")],
        [[OURS]],
        init=[container("proxy", restartPolicy="Always"), container("setup")],
        init_after=[[OURS], [OURS]],
    ),
    Case(
        "the pod's own envFrom comes after ours and wins",
        [container("a", envFrom=OWN)],
        [[OURS, *OWN]],
        init=[container("setup", envFrom=OWN)],
        init_after=[[OURS, *OWN]],
    ),
    Case("an empty envFrom", [container("a", envFrom=[])], [[OURS]]),
    Case("the pod's own env is left as it is", [container("a", env=ENV)], [[OURS]]),
    Case(
        "one that refers to the Secret by itself is left alone, the other is not",
        [container("a", envFrom=BY_HAND), container("b")],
        [BY_HAND, [OURS]],
    ),
    Case(
        "thirty containers of thirty envFrom each",
        [container(f"c{number}", envFrom=MANY) for number in range(30)],
        [[OURS, *MANY]] * 30,
    ),
    Case("a pod of agent-sandbox", [container("a")], [[OURS]], labels=SANDBOX),
    Case(
        "a pod that both selectors match gets them once",
        [container("a"), container("b", envFrom=OWN)],
        [[OURS], [OURS, *OWN]],
        init=[container("setup")],
        init_after=[[OURS]],
        labels=DEVBOX | SANDBOX,
    ),
]

NO_DEVBOX = [
    {},
    {"app": "web"},
    {"devbox-secrets.dev/devbox": "false"},
    {"devbox-secrets.dev/devbox": ""},
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


@pytest.fixture(scope="module", autouse=True)
def _installed(controlplane: ControlPlane) -> None:
    install(controlplane)


def member_of(account: str, controlplane: ControlPlane, namespace: str) -> str:
    """Return a new namespace that names its account."""
    metadata = {"name": f"{namespace}-member", "labels": {ACCOUNT: account}}
    created(controlplane, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    return f"{namespace}-member"


def spec_of(case: Case) -> Json:
    return {"containers": case.containers, "initContainers": case.init}


def with_env_from(spec: Json, case: Case) -> Json:
    """Return a pod's spec in which nothing but envFrom is different."""
    afters = {"containers": case.after, "initContainers": case.init_after}
    changed = {
        kind: [one | {"envFrom": list(after)} for one, after in zip(spec.get(kind, []), afters[kind], strict=True)]
        for kind in afters
        if kind in spec
    }
    return spec | changed


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_devbox_gets_the_secrets_of_its_account_and_is_the_same_otherwise(
    case: Case, controlplane: ControlPlane, namespace: str
) -> None:
    stranger = dry_run(controlplane, pod(spec_of(case), {}), namespace)["spec"]
    devbox = dry_run(controlplane, pod(spec_of(case), case.labels), namespace)["spec"]
    assert devbox == with_env_from(stranger, case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_in_a_namespace_that_names_its_account_the_secrets_are_required(
    case: Case, controlplane: ControlPlane, namespace: str
) -> None:
    member = member_of("home", controlplane, namespace)
    devbox = dry_run(controlplane, pod(spec_of(case), case.labels), member)["spec"]
    containers = [*devbox["containers"], *devbox.get("initContainers", [])]
    assert [one["envFrom"] for one in containers] == [
        [REQUIRED if entry == OURS else entry for entry in after] for after in (*case.after, *case.init_after)
    ]


def test_it_is_the_label_that_makes_them_required_even_when_it_is_empty(
    controlplane: ControlPlane, namespace: str
) -> None:
    member = member_of("", controlplane, namespace)
    assert first_container(controlplane, DEVBOX, member)["envFrom"] == [REQUIRED]


@pytest.mark.parametrize("labels", NO_DEVBOX, ids=json.dumps)
def test_a_pod_that_is_no_devbox_is_left_as_it_is(
    labels: dict[str, str], controlplane: ControlPlane, namespace: str
) -> None:
    sent = container("a", env=ENV, envFrom=OWN)
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
