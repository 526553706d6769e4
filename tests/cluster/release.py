"""Installs the product in a cluster as its users do: the chart, with helm; imports kind, image and run."""

import json
import time
from pathlib import Path

from cluster.image import operator_image
from cluster.kind import Cluster
from cluster.run import ClusterError, step

NAMESPACE = "devbox-secrets"
"""The operator's own, and the name of the release."""
DEVBOX = "devbox-secrets.dev/devbox=true"
"""The label that makes a pod a devbox."""

_CHART = Path(__file__).parents[2] / "charts/devbox-secrets"
_SECONDS = 120


def install(cluster: Cluster, *options: str) -> None:
    """Install or upgrade the chart, with further options such as --set, and wait until all of it works."""
    repository, tag = operator_image(cluster).rsplit(":", 1)
    with step("installing the chart"):
        try:
            cluster.helm(
                *("upgrade", "--install", NAMESPACE, _CHART, f"--namespace={NAMESPACE}", "--create-namespace"),
                *("--wait", f"--timeout={_SECONDS}s", f"--set=image.repository={repository},image.tag={tag}", *options),
            )
        except ClusterError as error:
            pods = cluster.kubectl("get", "pods", f"--namespace={NAMESPACE}")
            log = cluster.kubectl("logs", "deployment/devbox-secrets", f"--namespace={NAMESPACE}", "--tail=20")
            message = f"{error}\n\n{pods}\nThe operator's log ends:\n{log}"
            raise ClusterError(message) from None
        _wait_for_injection(cluster)


def is_installed(cluster: Cluster) -> bool:
    """Tell whether the cluster has a release of this name."""
    return bool(json.loads(cluster.helm("list", "--all-namespaces", "--output=json", f"--filter=^{NAMESPACE}$")))


def uninstall(cluster: Cluster) -> None:
    """Take away all that the chart brought, and what it leaves to users who may want it back: keys and CRD."""
    with step("uninstalling the chart"):
        cluster.helm("uninstall", NAMESPACE, f"--namespace={NAMESPACE}", "--wait", f"--timeout={_SECONDS}s")
        cluster.kubectl("delete", "namespace", NAMESPACE)
        cluster.kubectl("delete", f"--filename={_CHART / 'files/crd.yaml'}", "--ignore-not-found")


def _wait_for_injection(cluster: Cluster) -> None:
    """The API server acts on a policy some moments after it was created, and says so nowhere."""
    box = ("run", "probe", f"--labels={DEVBOX}", "--image=none", "--dry-run=server", "--output=json")
    deadline = time.monotonic() + _SECONDS
    while "envFrom" not in json.loads(cluster.kubectl(*box))["spec"]["containers"][0]:
        if time.monotonic() > deadline:
            message = (
                f"a pod labelled {DEVBOX} gets no secrets: `kubectl get mutatingadmissionpolicies` shows the policy"
            )
            raise ClusterError(message)
        time.sleep(0.1)
