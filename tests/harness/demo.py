"""The demo: prints each command and runs it in a shell."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import image
from harness.components import write_private
from harness.kind import Cluster
from harness.run import ClusterError
from harness.shell import environment

_FIRST, _SECOND = "ghp_the-first-value", "ghp_the-second-value"

_RUN = "--labels devbox-secrets.dev/devbox=true --command -- sleep infinity"


@dataclass(frozen=True)
class _Step:
    """A heading, a command, and text that its output must contain."""

    heading: str
    command: str
    expected: str = ""


def _devbox(name: str, heading: str, command: str, expected: str) -> list[_Step]:
    return [
        _Step(heading, f"kubectl run {name} --image $DEVBOX_IMAGE {_RUN}", "created"),
        _Step("", f"kubectl wait --for condition=Ready pod/{name}", "condition met"),
        _Step("", f"kubectl exec {name} -- {command}", expected),
    ]


_STEPS = [
    _Step(
        "Seal a value on your own machine. The cluster provides only the public key.",
        "devbox-secrets seal GITHUB_TOKEN < token > github-token.yaml",
    ),
    _Step("The sealed manifest is safe to commit to Git.", "cut -c 1-78 github-token.yaml", "kind: Account"),
    _Step("Apply it.", "kubectl apply -f github-token.yaml", "github-token created"),
    _Step("", "kubectl wait --for condition=Ready accountsecret/github-token", "condition met"),
    _Step("", "kubectl get accountsecrets", "Synced"),
    *_devbox("box-1", "A new devbox of the account has the variable.", "printenv GITHUB_TOKEN", _FIRST),
    _Step(
        "To change the value, seal and apply it again.",
        "devbox-secrets seal GITHUB_TOKEN < new-token | kubectl apply -f -",
        "github-token configured",
    ),
    _Step(
        "",
        "kubectl wait --for jsonpath='{.status.observedGeneration}'=2 accountsecret/github-token",
        "condition met",
    ),
    *_devbox("box-2", "A new devbox has the new value.", "printenv GITHUB_TOKEN", _SECOND),
    _Step("Delete the value. New devboxes don't have it.", "kubectl delete accountsecret github-token", "deleted"),
    _Step("", "kubectl wait --for delete secret/devbox-account-secrets --timeout 10s"),
    *_devbox("box-3", "", "sh -c 'echo GITHUB_TOKEN is ${GITHUB_TOKEN-not set}'", "GITHUB_TOKEN is not set"),
    _Step(
        "The API server rejects a value that isn't sealed, without repeating it.",
        "kubectl apply -f mistake.yaml",
        "seal it",
    ),
]
_MISTAKE = """\
apiVersion: devbox-secrets.dev/v1beta1
kind: AccountSecret
metadata: {name: mistake}
spec: {name: GITHUB_TOKEN, sealed: ghp_pasted-as-it-is}
"""


def run(cluster: Cluster, namespace: str = "demo") -> None:
    """Run the demo on a cluster where the product is installed.

    Raises:
        ClusterError: a step failed or didn't print the expected text.
    """
    devbox = image.devbox_image(cluster)
    with tempfile.TemporaryDirectory(prefix="devbox-secrets-") as folder:
        write_private(Path(folder, "token"), f"{_FIRST}\n".encode())
        write_private(Path(folder, "new-token"), f"{_SECOND}\n".encode())
        Path(folder, "mistake.yaml").write_text(_MISTAKE)
        env = environment(Path(folder), cluster.kubeconfig, DEVBOX_IMAGE=devbox)
        _show(_Step("", f"kubectl create namespace {namespace}"), folder, env)
        try:
            _show(_Step("", f"kubectl config set-context --current --namespace {namespace}"), folder, env)
            for step in _STEPS:
                _show(step, folder, env)
        finally:
            cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def _show(step: _Step, folder: str, env: dict[str, str]) -> None:
    if step.heading:
        print(f"\n# {step.heading}")
    print(f"$ {step.command}", flush=True)
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", step.command],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout, end="", flush=True)
    rejected = "mistake" in step.command
    if step.expected not in done.stdout or (done.returncode != 0) is not rejected:
        message = f"unexpected result: exit status {done.returncode}; the output must contain {step.expected!r}"
        raise ClusterError(message)
