"""The chart, rendered and installed on a control plane."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from harness.controlplane import ControlPlane, RequestError
from harness.tools import tool

_ROOT = Path(__file__).parents[3]
CHART = _ROOT / "charts" / "devbox-secrets"
MANIFEST = _ROOT / "deploy" / "install.yaml"

IMAGE = f"--values={Path(__file__).with_name('image.yaml')}"
NAMESPACE = "devbox-secrets"
"""The operator's namespace, and the name of its release."""
DEVBOX = {"devbox-secrets.dev/devbox": "true"}
SANDBOX = {"agents.x-k8s.io/sandbox-name-hash": "3f9c2d71"}
ACCOUNT = "devbox-secrets.dev/account"

_SECONDS = 20.0

Json = dict[str, Any]
T = TypeVar("T")


def helm(command: str, *arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm; without a kubeconfig it can't reach a cluster. A chart that isn't released needs the image's name."""
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig or os.devnull)}
    image = (IMAGE,) if command in {"install", "template", "upgrade"} else ()
    words: list[str | Path] = [tool("helm"), command, *image, *arguments]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def render(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Render the chart without its test, with further arguments such as --set."""
    return helm("template", NAMESPACE, str(CHART), f"--namespace={NAMESPACE}", "--skip-tests", *arguments)


def release(controlplane: ControlPlane, command: str, *arguments: str) -> str:
    """Run `helm install`, `helm upgrade` or the like on the chart's release, and return its output."""
    done = helm(
        *(command, NAMESPACE, f"--namespace={NAMESPACE}", *arguments),
        kubeconfig=controlplane.kubeconfig,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(controlplane: ControlPlane, *arguments: str, field: str = "envFrom") -> None:
    """Apply install.yaml, or the chart rendered with arguments such as --set, and wait until the policies apply.

    `field` is the field of a container that gives a devbox its secrets.
    """
    controlplane.kubectl("apply", f"--filename={MANIFEST}")
    if arguments:
        controlplane.kubectl("apply", "--filename=-", input=render(*arguments).stdout)
    settle(controlplane, field)


def settle(controlplane: ControlPlane, field: str = "envFrom") -> None:
    """Wait until AccountSecrets are served, devboxes get their secrets, and invalid annotations are rejected."""
    # The first requests for a new kind may get 429 while its storage is initialized; kubectl retries them.
    controlplane.kubectl("get", "accountsecrets", "--all-namespaces", "--field-selector=spec.name=NONE")
    for labels in (DEVBOX, SANDBOX):
        injects = partial(_gets_secrets, controlplane, labels, field)
        until(f"a pod with the labels {labels} gets its secrets", injects)
        rejects = partial(_is_annotation_rejected, controlplane, labels)
        until(f"a pod with the labels {labels} and a malformed annotation is rejected", rejects)
    rejects = partial(_is_account_rejected, controlplane)
    until("a namespace with an invalid account label is rejected", rejects)


def _gets_secrets(controlplane: ControlPlane, labels: dict[str, str], field: str) -> bool:
    try:
        return field in first_container(controlplane, labels)
    except RequestError:  # a pod that isn't injected is rejected
        return False


def _is_annotation_rejected(controlplane: ControlPlane, labels: dict[str, str]) -> bool:
    wrong = pod({"containers": [container("a")]}, labels, {"devbox-secrets.dev/inject": "maybe"})
    return is_rejected(controlplane, wrong)


def _is_account_rejected(controlplane: ControlPlane) -> bool:
    return is_rejected(controlplane, namespace("box", {ACCOUNT: "No_Name"}))


def is_rejected(controlplane: ControlPlane, manifest: Json, namespace: str = "default") -> bool:
    """Return whether a policy rejects an object."""
    try:
        dry_run(controlplane, manifest, namespace)
    except RequestError as error:
        return "ValidatingAdmissionPolicy" in error.message
    return False


def first_container(controlplane: ControlPlane, labels: dict[str, str], namespace: str = "default") -> Json:
    """Return the stored form of the only container of a pod with these labels."""
    answer = dry_run(controlplane, pod({"containers": [container("a")]}, labels), namespace)
    found: Json = answer["spec"]["containers"][0]
    return found


def container(name: str, **fields: object) -> Json:
    return {"name": name, "image": "busybox", **fields}


def pod(spec: Json, labels: dict[str, str], annotations: dict[str, str] | None = None) -> Json:
    """Return a pod's manifest; without a token, the pod has no volume with a random name."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "box", "labels": labels, "annotations": annotations or {}},
        "spec": {"automountServiceAccountToken": False, **spec},
    }


def namespace(name: str, labels: dict[str, str]) -> Json:
    """Return a namespace's manifest."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def dry_run(controlplane: ControlPlane, manifest: Json, namespace: str) -> Json:
    """Return an object as the API server would store it."""
    return created(controlplane, manifest, namespace, "&dryRun=All")


def rejection_message(controlplane: ControlPlane, manifest: Json, namespace: str) -> str:
    """Return the API server's message for an object that it rejects."""
    try:
        found = dry_run(controlplane, manifest, namespace)
    except RequestError as error:
        return error.message
    raise AssertionError(f"the API server accepted {found}")


def created(controlplane: ControlPlane, manifest: Json, namespace: str = "default", query: str = "") -> Json:
    """Create an object and return it as it is stored."""
    version, kind = manifest["apiVersion"], manifest["kind"].lower()
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    within = "" if kind == "namespace" or version.startswith("admission") else f"/namespaces/{namespace}"
    plural = f"{kind.removesuffix('y')}ies" if kind.endswith("y") else f"{kind}s"
    return controlplane.request("POST", f"{base}{within}/{plural}?fieldValidation=Strict{query}", manifest)


def deny_policy(group: str, resource: str, unless: str = "false") -> list[Json]:
    """Return a policy and its binding that reject new objects in namespaces with the label closed=RESOURCE.

    `unless` is a CEL expression for the objects that are allowed.
    """
    name = f"no-{resource}"
    rule = {"apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": ["CREATE"]}
    policy = {
        "matchConstraints": {"namespaceSelector": {"matchLabels": {"closed": resource}}, "resourceRules": [rule]},
        "validations": [{"expression": unless, "message": f"no {resource} here"}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    kinds = {"ValidatingAdmissionPolicy": policy, "ValidatingAdmissionPolicyBinding": binding}
    return [
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, spec in kinds.items()
    ]


def get(controlplane: ControlPlane, *arguments: str) -> Json:
    """Return what `kubectl get` finds."""
    found: Json = json.loads(controlplane.kubectl("get", "--output=json", *arguments).stdout)
    return found


def until(awaited: str, ask: Callable[[], T], seconds: float = _SECONDS) -> T:
    """Poll until there is a result, and return it; pause at least as long as a poll takes."""
    deadline = time.monotonic() + seconds
    asked = time.monotonic()
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {awaited}"
        time.sleep(max(0.05, time.monotonic() - asked))
        asked = time.monotonic()
    return answer
