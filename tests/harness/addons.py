"""Controllers of other projects in a kind cluster, built from their pinned modules."""

import platform
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import archive
from harness.kind import Cluster
from harness.run import step
from harness.tools import source, tool, version

_SECONDS = 120
_QUEUE = 98
"""The queue number in the manifest of kube-network-policies."""


@contextmanager
def agent_sandbox(cluster: Cluster) -> Iterator[None]:
    """Run the agent-sandbox controller with its extensions, installed from its kustomization."""
    program = "agent-sandbox-controller"
    image = _load(cluster, program, f"/{program}", entrypoint=True)
    manifests = cluster.kubectl("kustomize", source(program) / "k8s")
    with _installed(cluster, _with_image(manifests, image), "agent-sandbox-system", f"deployment/{program}"):
        yield


@contextmanager
def network_policies(cluster: Cluster) -> Iterator[None]:
    """Enforce NetworkPolicies on every new connection of a pod, with kube-network-policies.

    Its own rules need nftables' `queue`, which some kernels lack, and don't cover connections to the node itself. The
    rules here send both kinds of connections to the same queue with iptables. Like its own rules, they exclude traffic
    from the node's root user, such as the kubelet's probes.
    """
    program = "kube-network-policies"
    image = _load(cluster, program, "/bin/netpol")
    manifests = (source(program) / "install.yaml").read_text()
    pods = cluster.get("nodes")["items"][0]["spec"]["podCIDR"]
    rules = {"POSTROUTING": ("-m", "owner", "!", "--uid-owner", "0"), "INPUT": ("-s", pods)}
    with _installed(cluster, _with_image(manifests, image), "kube-system", f"daemonset/{program}"):
        for chain, which in rules.items():
            _iptables(cluster, "--append", chain, *which)
        try:
            yield
        finally:
            for chain, which in rules.items():
                _iptables(cluster, "--delete", chain, *which)


def _load(cluster: Cluster, program: str, path: str, *, entrypoint: bool = False) -> str:
    """Load an image that contains one program, and return the image's name."""
    name = f"{program}:{version(program)}"
    image = archive.Image(name, files={path: tool(program)}, entrypoint=[path] if entrypoint else [])
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, f"{program}.tar")
        archive.write(image, target, platform.machine())
        cluster.load(target)
    return name


def _with_image(manifests: str, image: str) -> str:
    """Replace the image in manifests with a single container."""
    changed, count = re.subn(r"(?m)^( +(?:- )?image:) .*$", rf"\1 {image}", manifests)
    assert count == 1, f"the manifests name {count} images, not one"
    return changed


@contextmanager
def _installed(cluster: Cluster, manifests: str, namespace: str, workload: str) -> Iterator[None]:
    with step(f"installing {workload}"):
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=manifests)
        cluster.kubectl("rollout", "status", workload, f"--namespace={namespace}", f"--timeout={_SECONDS}s")
    try:
        yield
    finally:
        cluster.kubectl("delete", "--wait=false", "-f", "-", stdin=manifests)


def _iptables(cluster: Cluster, action: str, chain: str, *which: str) -> None:
    assert cluster.engine
    cluster.engine.docker(
        *("exec", f"{cluster.name}-control-plane", "iptables", "--wait", "--table=mangle", action, chain, *which),
        *("-m", "conntrack", "--ctstate", "NEW", "-j", "NFQUEUE", f"--queue-num={_QUEUE}", "--queue-bypass"),
    )
