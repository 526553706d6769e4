"""Installs the product in a cluster with helm, as users do."""

import time
from pathlib import Path

from harness.image import operator_image
from harness.kind import Cluster
from harness.run import ClusterError, step

NAMESPACE = "devbox-secrets"
"""The operator's namespace, and the name of the release."""
DEVBOX = "devbox-secrets.dev/devbox=true"
"""The label that makes a pod a devbox."""

CHART = Path(__file__).parents[2] / "charts/devbox-secrets"
"""The chart in this tree."""

_CRD = "accountsecrets.devbox-secrets.dev"
_SECONDS = 120


def install(
    cluster: Cluster, *options: str, chart: Path = CHART, image: str | None = None, gets: str = "envFrom"
) -> None:
    """Install or upgrade the chart, with options such as --set, and wait until everything is ready.

    The image is this tree's, unless another one is named, which the cluster's node must have. `gets` is text that the
    manifest of a devbox contains only after the installation.
    """
    repository, tag = (image or operator_image(cluster)).rsplit(":", 1)
    with step("installing the chart"):
        try:
            cluster.helm(
                *("upgrade", "--install", NAMESPACE, chart, f"--namespace={NAMESPACE}", "--create-namespace"),
                *("--wait", f"--timeout={_SECONDS}s", *options),
                f"--set-string=image.repository={repository},image.tag={tag}",
            )
        except ClusterError as error:
            pods = _output_of(cluster, "get", "pods")
            log = _output_of(cluster, "logs", "deployment/devbox-secrets", "--tail=20")
            message = f"{error}\n\n{pods}\nThe operator's log ends:\n{log}"
            raise ClusterError(message) from None
        _wait_for_injection(cluster, gets)


def traces(cluster: Cluster) -> list[str]:
    """Return the product's objects in the cluster, however it was installed; an uninstalled release leaves its keys."""
    kinds = (f"namespace/{NAMESPACE}", f"customresourcedefinition/{_CRD}")
    return cluster.kubectl("get", *kinds, "--ignore-not-found", "--output=name").split()


def uninstall(cluster: Cluster) -> None:
    """Uninstall the product or a part of it, including the keys and the CRD, which the chart keeps."""
    with step("uninstalling the chart"):
        cluster.helm(
            *("uninstall", NAMESPACE, f"--namespace={NAMESPACE}", "--ignore-not-found"),
            *("--wait", f"--timeout={_SECONDS}s"),
        )
        cluster.kubectl("delete", f"namespace/{NAMESPACE}", f"customresourcedefinition/{_CRD}", "--ignore-not-found")


def _output_of(cluster: Cluster, *arguments: str) -> str:
    """Return the output of kubectl or its error, which is part of another error's message."""
    try:
        return cluster.kubectl(*arguments, f"--namespace={NAMESPACE}")
    except ClusterError as error:
        return str(error)


def _wait_for_injection(cluster: Cluster, gets: str) -> None:
    """Wait until devboxes are injected.

    The API server applies a new policy with a short delay that it doesn't report. With the webhook, kube-proxy needs
    some time to learn the endpoints.
    """
    box = ("run", "probe", f"--labels={DEVBOX}", "--image=none", "--dry-run=server", "--output=json")
    deadline = time.monotonic() + _SECONDS
    while gets not in (output := _output_of(cluster, *box)):
        if time.monotonic() > deadline:
            message = f"a pod with the label {DEVBOX} gets no secrets: {output}"
            raise ClusterError(message)
        time.sleep(0.1)
