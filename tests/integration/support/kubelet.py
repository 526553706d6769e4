"""Devboxes on a control plane without nodes: the tests write the statuses that a kubelet would write."""

import json
from datetime import UTC, datetime, timedelta

from harness.controlplane import ControlPlane
from integration.support.chart import DEVBOX, container, created, pod


def run_devbox(
    controlplane: ControlPlane,
    namespace: str,
    name: str,
    started: timedelta,
    annotations: dict[str, str] | None = None,
) -> None:
    """Create a devbox, and report its container as started at that time relative to now."""
    body = pod({"containers": [container("agent")]}, DEVBOX, annotations)
    body["metadata"]["name"] = name
    created(controlplane, body, namespace)
    since = (datetime.now(UTC) + started).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"name": "agent", "image": "x", "imageID": "x", "ready": True, "restartCount": 0}
    status = {"phase": "Running", "containerStatuses": [{**state, "state": {"running": {"startedAt": since}}}]}
    patch = ("patch", "pod", name, "--subresource=status", f"--namespace={namespace}")
    controlplane.kubectl(*patch, "--patch", json.dumps({"status": status}))


def make_ready(controlplane: ControlPlane, namespace: str, deployment: str) -> None:
    """Report a Deployment's pods as ready."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}
    own = (f"--namespace={namespace}", f"--selector=app.kubernetes.io/name={deployment}")
    # The Deployment's controller creates them one after the other.
    at = (f"deployment/{deployment}", f"--namespace={namespace}")
    controlplane.kubectl("wait", *at, "--for=jsonpath={.status.unavailableReplicas}=2", "--timeout=30s")
    for name in controlplane.kubectl("get", "pods", *own, "--output=name").stdout.split():
        patch = ("patch", name, own[0], "--subresource=status", "--patch", json.dumps({"status": ready}))
        controlplane.kubectl(*patch)
    controlplane.kubectl("wait", *at, "--for=condition=Available", "--timeout=30s")
