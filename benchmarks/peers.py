"""Compares devbox-secrets with sealed-secrets: rate, CPU and memory of a sync, and a new secret after a restart.

    PYTHONPATH=tests python benchmarks/peers.py

Both controllers run as processes on the same control plane, in sequence, with the same number of secrets in the same
number of namespaces. A plain client that creates as many AccountSecrets, with one status write for each, shows the API
server's own rate. sealed-secrets is built from its Go module. It runs without its limit on requests; the last row is a
restart with that limit, which is the default. Its probes use the fixed ports 8080 and 8081.
"""

import base64
import json
import os
import secrets
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509 import load_pem_x509_certificate

from devbox_secrets.api.names import ACCOUNT_SECRET
from harness.components import write_private
from harness.controlplane import ControlPlane
from harness.process import Component
from harness.tools import source, tool
from integration.support.processes import Process, is_ready
from support import (
    SYNCED,
    BenchmarkError,
    Environment,
    Request,
    Usage,
    arguments,
    environment,
    say,
    table,
    wait,
    wait_idle,
)
from sync import floor, serve_copy
from workload import VALUE, creates, make_accounts, send_all, variables

_PEER = "sealed-secrets"
_UNLIMITED = "--kubeclient-qps=-1"
_SERVER, _METRICS = "http://127.0.0.1:8080", "http://127.0.0.1:8081"
_CERTIFICATE = "v1/cert.pem"
_KEY = "value"
#: sealed-secrets writes an unsealed secret before it unseals the next one.
_UNSEALED = "sealed_secrets_controller_unseal_requests_total"
#: client-go reads a pod's service account from this path; a mount namespace gives the program its own /run.
_AS_IN_A_POD = """
mount -t tmpfs none /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
cp token ca.crt namespace /run/secrets/kubernetes.io/serviceaccount
exec "$@"
"""


@dataclass(frozen=True)
class Contender:
    """A controller and its work."""

    name: str
    start: Callable[[], AbstractContextManager[Process]]
    synced: str
    """The metric with the number of synced secrets."""
    secrets: Sequence[Request]
    new: Request
    """One more secret."""
    path: str
    """The Secret that gets the new secret's value."""
    key: str


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"count": 2_000, "accounts": 100, "seconds": 1800, "timeout": 90})
    each = it.count // it.accounts
    with environment() as here:
        serve_copy(here.controlplane)
        plain, account, peer = (make_accounts(here.server, name, it.accounts) for name in ("plain", "account", "peer"))
        alone = floor(here, plain, each)
        rate = it.count / (alone.creates + alone.statuses)
        rows: list[Sequence[str]] = [("plain client", f"{rate:.0f}", "100%", "", "", "")]
        rows.append(_row(here, devbox_secrets(here, account, each), rate, it))
        prepare(here.controlplane)
        rows.append(_row(here, sealed_secrets(here.controlplane, peer, each, _UNLIMITED), rate, it))
        limited = sealed_secrets(here.controlplane, peer, each + 1)
        rows.append((limited.name, "", "", "", "", _restart(here, limited, it.timeout)))
    header = ("", "per second", "share of the client's", "CPU ms each", "peak MiB", "new secret after a restart, s")
    table(f"{it.count:,} secrets in {it.accounts} namespaces", header, rows)


def _row(here: Environment, contender: Contender, rate: float, it: Namespace) -> Sequence[str]:
    count = len(contender.secrets)
    with contender.start() as running:
        pid = running.component.pid
        wait_idle(pid, it.seconds)
        before = Usage.of(pid)
        say(f"{contender.name}: {count:,} secrets")
        start = time.perf_counter()
        send_all(here.server, contender.secrets)
        wait("every secret is synced", it.seconds, lambda: running.metric(contender.synced) >= count)
        seconds = time.perf_counter() - start
        after = Usage.of(pid)
    return (
        contender.name,
        f"{count / seconds:.0f}",
        f"{count / seconds / rate:.0%}",
        f"{(after.cpu_seconds - before.cpu_seconds) / count * 1e3:.1f}",
        f"{after.peak_mib:.0f}",
        _restart(here, contender, it.timeout),
    )


def _restart(here: Environment, contender: Contender, timeout: float) -> str:
    """Create a secret while the controller is down, and return the seconds from its start to the value."""
    say(f"{contender.name}: a restart with a new secret")
    send_all(here.server, [contender.new])
    start = time.perf_counter()
    with contender.start(), suppress(BenchmarkError):
        wait("the new secret is written", timeout, lambda: _is_written(here.controlplane, contender))
        return f"{time.perf_counter() - start:.1f}"
    return f"over {timeout:.0f}"


def _is_written(controlplane: ControlPlane, contender: Contender) -> bool:
    found = controlplane.read(contender.path)
    return found is not None and contender.key in (found.get("data") or {})


def devbox_secrets(here: Environment, accounts: Sequence[str], each: int) -> Contender:
    """Return our operator and AccountSecrets for it."""
    requests = creates(here.key.public, accounts, each + 1)
    count = each * len(accounts)
    path = f"/api/v1/namespaces/{accounts[0]}/secrets/{ACCOUNT_SECRET}"
    key = variables(each + 1)[-1]
    return Contender("devbox-secrets", here.operator, SYNCED, requests[:count], requests[count], path, key)


def prepare(controlplane: ControlPlane) -> None:
    """Install sealed-secrets' CRD and a service account, whose files are in the working directory of its process."""
    crd = source(_PEER) / "helm/sealed-secrets/crds/bitnami.com_sealedsecrets.yaml"
    controlplane.kubectl("create", f"--filename={crd}")
    controlplane.kubectl("wait", "--for=condition=Established", f"--filename={crd}")
    controlplane.kubectl("create", "namespace", _PEER)
    controlplane.kubectl("create", "serviceaccount", _PEER, f"--namespace={_PEER}")
    admin = ("--clusterrole=cluster-admin", f"--serviceaccount={_PEER}:{_PEER}")
    controlplane.kubectl("create", "clusterrolebinding", _PEER, *admin)
    token = controlplane.kubectl("create", "token", _PEER, f"--namespace={_PEER}", "--duration=10h").stdout.strip()
    write_private(controlplane.folder / "token", token.encode())
    write_private(controlplane.folder / "namespace", _PEER.encode())


def sealed_secrets(controlplane: ControlPlane, namespaces: Sequence[str], each: int, *flags: str) -> Contender:
    """Return sealed-secrets' controller and SealedSecrets for it."""
    host = urlsplit(controlplane.url)
    env = {**os.environ, "KUBERNETES_SERVICE_HOST": host.hostname or "", "KUBERNETES_SERVICE_PORT": str(host.port)}
    arguments = ["--mount", "--", "sh", "-euc", _AS_IN_A_POD, "sh", str(tool(_PEER)), *flags]

    @contextmanager
    def start() -> Iterator[Process]:
        ready = partial(is_ready, _SERVER, _CERTIFICATE)
        component = Component(Path("/usr/bin/unshare"), arguments, controlplane.folder, ready, env)
        component.start()
        try:
            component.wait_ready()
            yield Process(component, _METRICS)
        finally:
            component.stop()

    with start() as it:
        public_key = _public_key(replace(it, url=_SERVER))
    names = [f"secret-{number}" for number in range(each + 1)]
    requests = [_sealed_secret(public_key, namespace, name) for name in names for namespace in namespaces]
    count = each * len(namespaces)
    path = f"/api/v1/namespaces/{namespaces[0]}/secrets/{names[-1]}"
    name = f"{_PEER}, no limit" if flags else f"{_PEER}, defaults"
    return Contender(name, start, _UNSEALED, requests[:count], requests[count], path, _KEY)


def _sealed_secret(key: rsa.RSAPublicKey, namespace: str, name: str) -> Request:
    """Return the request that creates a SealedSecret with the strict scope, encrypted as by kubeseal."""
    session = secrets.token_bytes(32)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), f"{namespace}/{name}".encode())
    wrapped = key.encrypt(session, oaep)
    # The session key encrypts only this value, so its nonce can be zero.
    sealed = len(wrapped).to_bytes(2) + wrapped + AESGCM(session).encrypt(bytes(12), VALUE, None)
    metadata = {"name": name, "namespace": namespace}
    body = {
        "apiVersion": "bitnami.com/v1alpha1",
        "kind": "SealedSecret",
        "metadata": metadata,
        "spec": {"encryptedData": {_KEY: base64.b64encode(sealed).decode()}, "template": {"metadata": metadata}},
    }
    path = f"/apis/bitnami.com/v1alpha1/namespaces/{namespace}/sealedsecrets"
    return Request("POST", path, json.dumps(body).encode())


def _public_key(it: Process) -> rsa.RSAPublicKey:
    key = load_pem_x509_certificate(it.get(f"/{_CERTIFICATE}").encode()).public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise BenchmarkError(f"the key of {_PEER} isn't an RSA key")
    return key


if __name__ == "__main__":
    main()
