"""Devboxes on a control plane without nodes: the tests say what a kubelet would. Imports chart."""

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
    """Create a devbox, and say of its container that it started then, counted from now."""
    body = pod({"containers": [container("agent")]}, DEVBOX, annotations)
    body["metadata"]["name"] = name
    created(controlplane, body, namespace)
    since = (datetime.now(UTC) + started).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"name": "agent", "image": "x", "imageID": "x", "ready": True, "restartCount": 0}
    status = {"phase": "Running", "containerStatuses": [{**state, "state": {"running": {"startedAt": since}}}]}
    patch = ("patch", "pod", name, "--subresource=status", f"--namespace={namespace}")
    controlplane.kubectl(*patch, "--patch", json.dumps({"status": status}))


def make_ready(controlplane: ControlPlane, namespace: str, deployment: str) -> None:
    """Say of a Deployment's pods that they are ready."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}
    own = (f"--namespace={namespace}", f"--selector=app.kubernetes.io/name={deployment}")
    # Created by a controller, and not all at once.
    at = (f"deployment/{deployment}", f"--namespace={namespace}")
    controlplane.kubectl("wait", *at, "--for=jsonpath={.status.unavailableReplicas}=2", "--timeout=30s")
    for name in controlplane.kubectl("get", "pods", *own, "--output=name").stdout.split():
        patch = ("patch", name, own[0], "--subresource=status", "--patch", json.dumps({"status": ready}))
        controlplane.kubectl(*patch)
    controlplane.kubectl("wait", *at, "--for=condition=Available", "--timeout=30s")
