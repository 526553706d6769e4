"""The programs of a control plane without nodes, and their arguments.

They share a working folder with the files and sockets that are named here. The paths are relative, because
a socket's path is limited to 107 bytes.
"""

import base64
import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.pki import Authority
from harness.process import Component
from harness.tools import tool

CONTROLLERS = (
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "clusterrole-aggregation-controller",
    "validatingadmissionpolicy-status-controller",
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "job-controller",
    "cronjob-controller",
)
"""The controllers for namespaces, owner references, service accounts and workloads."""

_ETCD = "unix://etcd.sock"
_ETCD_PEER = "unix://etcd-peer.sock"
_REQUEST_SECONDS = 5.0
# Tests wait for CPU, not for memory, so collect garbage less often.
_ENVIRONMENT = {**os.environ, "GOGC": "400"}


def write_credentials(folder: Path, authority: Authority) -> None:
    """Write the files that the programs share."""
    write_private(folder / "ca.crt", authority.pem)
    write_private(folder / "service-accounts.key", authority.client("service-accounts").key)
    write_serving_certificate(folder, authority)


def write_serving_certificate(folder: Path, authority: Authority) -> None:
    """Write a new certificate of the servers, and its key."""
    serving = authority.server("localhost", "kubernetes.default.svc", addresses=["127.0.0.1"])
    write_private(folder / "serving.crt", serving.certificate)
    write_private(folder / "serving.key", serving.key)


def write_private(path: Path, data: bytes) -> Path:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


@contextmanager
def reserved_port() -> Iterator[int]:
    """Reserve a free port, even while its component is down; --permit-port-sharing lets the component bind it."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        yield port


def etcd(folder: Path) -> Component:
    """One member without fsync: it survives a crash of the process, not of the machine."""
    arguments = [
        "--data-dir=etcd",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        f"--listen-peer-urls={_ETCD_PEER}",
        f"--initial-advertise-peer-urls={_ETCD_PEER}",
        f"--initial-cluster=default={_ETCD_PEER}",
        # The only member doesn't have to wait for votes.
        "--heartbeat-interval=50",
        "--election-timeout=250",
        "--unsafe-no-fsync",
        f"--quota-backend-bytes={8 << 30}",
        "--log-level=warn",
    ]
    return Component(tool("etcd"), arguments, folder, lambda: _etcd_healthy(folder), _ENVIRONMENT)


def apiserver(folder: Path, authority: Authority, port: int, extra: Sequence[str], *, audit: bool) -> Component:
    """Configure it as kubeadm does; extra arguments override those given here."""
    arguments = [
        *_serving(port),
        f"--etcd-servers={_ETCD}",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        "--client-ca-file=ca.crt",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-account-key-file=service-accounts.key",
        "--service-account-signing-key-file=service-accounts.key",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        # Without this, stopping waits a minute for clients to end their watches.
        "--shutdown-watch-termination-grace-period=2s",
        *(["--audit-policy-file=audit-policy.yaml", "--audit-log-path=audit.log"] if audit else []),
        *extra,
    ]
    return Component(tool("kube-apiserver"), arguments, folder, lambda: _ready(port, authority), _ENVIRONMENT)


def controller_manager(folder: Path, authority: Authority, port: int, controllers: Sequence[str]) -> Component:
    """Run only these controllers."""
    arguments = [
        *_serving(port),
        "--kubeconfig=kube-controller-manager.kubeconfig",
        "--leader-elect=false",
        f"--controllers={','.join(controllers)}",
        # As in a real cluster, each controller has its own name and permissions.
        "--use-service-account-credentials",
        "--service-account-private-key-file=service-accounts.key",
        "--root-ca-file=ca.crt",
        # Deleting a namespace takes a hundred requests; the default is 20 per second.
        "--kube-api-qps=500",
        "--kube-api-burst=500",
    ]
    return Component(
        tool("kube-controller-manager"),
        arguments,
        folder,
        lambda: _ready(port, authority, "/healthz"),
    )


def scheduler(folder: Path, authority: Authority, port: int) -> Component:
    """Without nodes, it only reports in each pod's status that the pod can't be scheduled."""
    arguments = [
        *_serving(port),
        "--kubeconfig=kube-scheduler.kubeconfig",
        "--leader-elect=false",
    ]
    return Component(tool("kube-scheduler"), arguments, folder, lambda: _ready(port, authority))


def compact(folder: Path) -> int:
    """Compact etcd to the newest revision, and return that revision."""
    key = {"key": base64.b64encode(b"/registry").decode()}
    revision = int(_etcd_call(folder, "POST", "/v3/kv/range", key)["header"]["revision"])
    _etcd_call(folder, "POST", "/v3/kv/compaction", {"revision": revision, "physical": True})
    return revision


def set_alarm(folder: Path, *, active: bool) -> None:
    """Raise or clear the alarm with which etcd reports that its quota is used up and rejects writes."""
    body = {"action": "ACTIVATE" if active else "DEACTIVATE", "alarm": "NOSPACE"}
    _etcd_call(folder, "POST", "/v3/maintenance/alarm", body)


def _serving(port: int) -> list[str]:
    return [
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--permit-port-sharing",
        "--tls-cert-file=serving.crt",
        "--tls-private-key-file=serving.key",
        "--profiling=false",
    ]


def _ready(port: int, authority: Authority, path: str = "/readyz") -> bool:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=_REQUEST_SECONDS, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _etcd_healthy(folder: Path) -> bool:
    try:
        return bool(_etcd_call(folder, "GET", "/health")["health"] == "true")
    except (OSError, http.client.HTTPException):
        return False


def _etcd_call(folder: Path, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    connection = http.client.HTTPConnection("etcd", timeout=_REQUEST_SECONDS)
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_REQUEST_SECONDS)
        link.connect(str(folder / "etcd.sock"))
        connection.sock = link
        connection.request(method, path, json.dumps(body) if body is not None else None)
        response = connection.getresponse()
        answer = response.read()
    if response.status != http.client.OK:
        raise http.client.HTTPException(f"etcd {path}: {response.status}: {answer.decode(errors='replace')}")
    result: dict[str, Any] = json.loads(answer)
    return result
