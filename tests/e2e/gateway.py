"""Access to the gateway on a real cluster: through a NodePort, or to a single replica."""

import base64
import json
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from runloop_api_client import AsyncRunloop, DefaultAsyncHttpxClient, DefaultHttpxClient, Runloop

from e2e.accounts import Account
from harness.kind import Cluster
from harness.pki import Authority
from harness.release import NAMESPACE
from harness.tools import tool

NAME = "devbox-secrets-gateway"
HOST = f"{NAME}.{NAMESPACE}.svc"
CERTIFICATE = "gateway-certificate"
"""The name of the Secret with its certificate."""
PODS = (f"-n{NAMESPACE}", f"-lapp.kubernetes.io/name={NAME}")
_REACHED_SECONDS = 20.0


@dataclass(frozen=True)
class Endpoint:
    """The gateway's address, and the CA of its certificate, if it has one."""

    cluster: Cluster
    url: str
    authority: Path | None = None

    @classmethod
    def at_node_port(cls, cluster: Cluster, authority: Path | None) -> "Endpoint":
        """Return the gateway's NodePort once it responds."""
        ports = cluster.get("service", NAME, f"-n{NAMESPACE}")["spec"]["ports"]
        addresses = cluster.get("nodes")["items"][0]["status"]["addresses"]
        (host,) = [it["address"] for it in addresses if it["type"] == "InternalIP"][:1]
        it = cls(cluster, f"{'https' if authority else 'http'}://{host}:{ports[0]['nodePort']}", authority)
        started = time.monotonic()
        while not it.is_ready():
            if time.monotonic() - started > _REACHED_SECONDS:
                if cluster.engine is None:
                    pytest.skip(f"{it.url} can't be reached from here")
                pytest.fail(f"{it.url} doesn't respond")
        return it

    @property
    def verify(self) -> ssl.SSLContext | bool:
        """The trusted CA; one context per client, because httpcore configures HTTP/2 in it."""
        return ssl.create_default_context(cafile=self.authority) if self.authority else True

    def is_ready(self) -> bool:
        """Return whether the gateway is ready, over a new connection."""
        try:
            return httpx.get(f"{self.url}/readyz", verify=self.verify, trust_env=False, timeout=5).is_success
        except httpx.TransportError:
            return False

    def runloop(self, key: str, *, http2: bool = True, **options: Any) -> Runloop:  # noqa: ANN401 - the SDK's type
        """Return Runloop's SDK with only the CA changed; with TLS it negotiates HTTP/2."""
        client = DefaultHttpxClient(verify=self.verify, trust_env=False, http2=http2)
        return Runloop(base_url=self.url, bearer_token=key, http_client=client, **options)

    def asynchronous(self, key: str) -> AsyncRunloop:
        """Return Runloop's asynchronous SDK."""
        client = DefaultAsyncHttpxClient(verify=self.verify, trust_env=False)
        return AsyncRunloop(base_url=self.url, bearer_token=key, http_client=client)


def key_of(account: Account) -> str:
    """Return an API key for an account, created as the docs describe."""
    account.kubectl("create", "serviceaccount", "ci")
    edit = ("--clusterrole=devbox-secrets-edit", f"--serviceaccount={account.name}:ci")
    account.kubectl("create", "rolebinding", "ci", *edit)
    return account.kubectl("create", "token", "ci").strip()


def publish(cluster: Cluster, authority: Authority) -> None:
    """Write a new certificate into the Secret CERTIFICATE."""
    nodes = cluster.get("nodes")["items"][0]["status"]["addresses"]
    addresses = [it["address"] for it in nodes if it["type"] == "InternalIP"]
    pair = authority.server(HOST, addresses=["127.0.0.1", *addresses])
    data = {"tls.crt": pair.certificate, "tls.key": pair.key}
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": CERTIFICATE, "namespace": NAMESPACE},
        "data": {name: base64.b64encode(content).decode() for name, content in data.items()},
    }
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(body))


def replicas(cluster: Cluster) -> list[str]:
    """Return the names of the gateway's pods that aren't terminating."""
    pods = cluster.get("pods", *PODS)["items"]
    return [f"pod/{pod['metadata']['name']}" for pod in pods if "deletionTimestamp" not in pod["metadata"]]


@contextmanager
def one_replica(endpoint: Endpoint, pod: str) -> Iterator[Endpoint]:
    """Forward a port to a single replica."""
    command: list[str | Path] = [
        tool("kubectl"),
        f"--kubeconfig={endpoint.cluster.kubeconfig}",
        "port-forward",
        f"-n{NAMESPACE}",
        pod,
        ":http",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found, f"{pod} can't be reached"
            yield replace(endpoint, url=re.sub(r"//.*", f"//127.0.0.1:{found[1]}", endpoint.url))
        finally:
            process.terminate()
