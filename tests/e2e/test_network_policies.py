"""The chart's NetworkPolicies allow only the connections that are needed, enforced on a real cluster."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import uuid4

import pytest

from e2e.accounts import DEBUG_LOG, Json, until
from harness import addons, release
from harness.kind import Cluster
from harness.release import NAMESPACE

PYTHON = "/opt/devbox-secrets/bin/python3"
LISTEN = """
import signal, socket
kept = [socket.create_server(("", port)) for port in (443, 8080)]
signal.pause()
"""
CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def reaches(address):
    try:
        socket.create_connection(address, timeout=3).close()
    except TimeoutError:
        return False
    return True

targets = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(targets)) as threads:
    reached = threads.map(reaches, map(tuple, targets.values()))
print(json.dumps([name for name, yes in zip(targets, reached) if yes]))
"""

Targets = Mapping[str, tuple[str, int]]


@dataclass(frozen=True)
class Pod:
    """A running pod whose image has Python."""

    cluster: Cluster
    namespace: str
    name: str

    @property
    def address(self) -> str:
        """Its address in the cluster."""
        ip: str = self.cluster.get("pod", self.name, f"-n{self.namespace}")["status"]["podIP"]
        return ip

    def reaches(self, targets: Targets) -> set[str]:
        """Return the targets to which it can connect."""
        command = ("exec", self.name, f"-n{self.namespace}", "--", PYTHON, "-c", CONNECT, json.dumps(targets))
        return set(json.loads(self.cluster.kubectl(*command)))


@dataclass(frozen=True)
class Component:
    """The connections that a component's policy allows."""

    name: str
    reaches: set[str]
    ports: dict[str, int]
    public: set[str]


COMPONENTS = [
    Component("devbox-secrets", {"API server"}, {"metrics": 8080}, set()),
    Component("devbox-secrets-gateway", {"API server"}, {"http": 8080, "metrics": 9090}, {"http"}),
    Component("devbox-secrets-webhook", set(), {"https": 9443, "metrics": 8080}, {"https"}),
]


def client(cluster: Cluster, namespace: str) -> Pod:
    """Run a pod that listens, in a new namespace."""
    deployment = cluster.get("deployment", "devbox-secrets", f"-n{NAMESPACE}")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    container = {
        "name": "client",
        "image": image,
        "command": [PYTHON, "-c", LISTEN],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    spec: Json = {"containers": [container], "terminationGracePeriodSeconds": 0}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": spec}
    cluster.kubectl("create", "namespace", namespace)
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", f"-n{namespace}", "--timeout=30s")
    cluster.kubectl("create", f"-n{namespace}", "-f", "-", stdin=json.dumps(body))
    return Pod(cluster, namespace, "client")


@pytest.fixture(scope="module")
def clients(cluster: Cluster) -> Iterator[list[Pod]]:
    """Two pods in other namespaces, of which the first is allowed to scrape metrics; the policies are enforced."""
    if cluster.engine is None:
        pytest.skip("the image that enforces the policies can't be loaded into an existing cluster")
    suffix = uuid4().hex[:8]
    pods = [client(cluster, f"{role}-{suffix}") for role in ("monitoring", "stranger")]
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": pods[0].namespace}}}
    policy = {"metricsFrom": [monitoring]}
    to_api_server = {**policy, "apiServerCIDRs": [f"{node(cluster)}/32"]}
    values = {
        "injection": {"method": "webhook"},
        "metrics": {"service": {"enabled": True}},
        "networkPolicy": to_api_server,
        "webhook": {"networkPolicy": policy},
        "gateway": {"enabled": True, "networkPolicy": to_api_server},
    }
    try:
        with addons.network_policies(cluster):
            release.install(cluster, DEBUG_LOG, *(f"--set-json={name}={json.dumps(it)}" for name, it in values.items()))
            for pod in pods:
                cluster.kubectl("wait", "--for=condition=Ready", "pod/client", f"-n{pod.namespace}", "--timeout=60s")
            yield pods
    finally:
        release.install(cluster, DEBUG_LOG)
        cluster.kubectl("delete", "namespace", *(pod.namespace for pod in pods), "--wait=false")


def node(cluster: Cluster) -> str:
    """Return the address of the node, where the API server listens."""
    addresses = cluster.get("nodes")["items"][0]["status"]["addresses"]
    (address,) = (it["address"] for it in addresses if it["type"] == "InternalIP")
    return str(address)


def service(cluster: Cluster, name: str, namespace: str) -> str:
    return str(cluster.get("service", name, f"-n{namespace}")["spec"]["clusterIP"])


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda it: it.name)
def test_a_policy_allows_what_its_component_needs_and_blocks_the_rest(
    cluster: Cluster, clients: list[Pod], component: Component
) -> None:
    selector = f"-lapp.kubernetes.io/name={component.name}"
    pods = cluster.get("pods", f"-n{NAMESPACE}", selector)["items"]
    name = next(pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"])
    pod = Pod(cluster, NAMESPACE, name)
    monitoring, stranger = clients
    outside: Targets = {
        "API server": (service(cluster, "kubernetes", "default"), 443),
        "kubelet": (node(cluster), 10250),
        "DNS": (service(cluster, "kube-dns", "kube-system"), 53),
        "a pod": (stranger.address, 8080),
        "a pod, at the API server's port": (stranger.address, 443),
    }
    ports = {port: (pod.address, number) for port, number in component.ports.items()}

    with ThreadPoolExecutor() as threads:  # dropped packets only show as a timeout
        found = threads.map(Pod.reaches, (pod, stranger, monitoring), (outside, ports, ports))
    assert list(found) == [component.reaches, component.public, component.public | {"metrics"}]

    cluster.kubectl("delete", "networkpolicy", component.name, f"-n{NAMESPACE}")
    until("the component reaches everything", lambda: pod.reaches(outside) == set(outside))
    until("everyone reaches the component", lambda: stranger.reaches(ports) == set(ports))
