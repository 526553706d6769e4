"""The product on an API server without the policy API: the chart as Helm installs it there, and the webhook.

There are no nodes to run the Deployment's pods, so the webhook runs as a child process, and an EndpointSlice contains
its address.
"""

import base64
import http.client
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from harness.components import write_private
from harness.controlplane import ControlPlane
from harness.pki import Authority
from harness.process import Component
from harness.run import ClusterError
from integration.support.account import SECRET
from integration.support.chart import CHART, DEVBOX, NAMESPACE, container, get, pod, release, settle, until
from integration.support.processes import COMMAND, END_SECONDS, Process, free_port, is_ready

NAME = "devbox-secrets-webhook"
HOST = f"{NAME}.{NAMESPACE}.svc"
_POLICY = [f"admissionregistration.k8s.io/v1/mutatingadmission{kind}" for kind in ("policies", "policybindings")]
# Otherwise the API server would use the Service's address, which isn't routed to any process here.
_BY_SLICES = "--enable-aggregator-routing=true"
SWITCHED_OFF = (
    f"--runtime-config={','.join(f'{resource}=false' for resource in _POLICY)}",
    "--disable-admission-plugins=MutatingAdmissionPolicy",
    _BY_SLICES,
)
"""A current API server, with the policy API disabled."""


def emulating(version: str) -> tuple[str, str]:
    """Return the flags of an API server that emulates an older version."""
    return f"--emulated-version={version}", _BY_SLICES


@dataclass(frozen=True)
class Webhook(Process):
    """One replica of the webhook."""

    port: int
    """The port for the API server's requests."""
    certificate: Path
    """The folder of its certificate."""

    def reviews(self) -> float:
        """Return the number of requests so far."""
        lines = [
            f'devbox_secrets_admission_reviews_total{{result="{answer}"}}'
            for answer in ("patched", "unchanged", "rejected")
        ]
        return sum(map(self.metric, lines))

    def served(self, ca_bundle: Path | None = None) -> bytes:
        """Return the certificate of a new connection, after verifying it with the CA bundle."""
        ca_certs = str(ca_bundle) if ca_bundle else None
        return ssl.get_server_certificate(("127.0.0.1", self.port), ca_certs=ca_certs).encode()

    @contextmanager
    def connect(self, authority: Authority) -> Iterator[http.client.HTTPSConnection]:
        """Connect as the API server does: to an address, with the Service's name."""
        context = ssl.create_default_context(cadata=authority.pem.decode())
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as connected,
        ):
            connection = http.client.HTTPSConnection(HOST, self.port)
            connection.sock = connected
            yield connection
            connection.close()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Kill it, and start it again afterwards."""
        self.component.kill()
        try:
            yield
        finally:
            self.component.start()
            self.component.wait_ready()


@dataclass(frozen=True)
class Fallback:
    """A control plane without the policy API, with the chart as Helm installs it there, and one ready replica."""

    controlplane: ControlPlane
    webhook: Webhook


@contextmanager
def without_policy(apiserver_args: Sequence[str] = SWITCHED_OFF, **settings: str) -> Iterator[Fallback]:
    """Run such a control plane, with settings for the webhook; yield it once devboxes get their secrets."""
    with ControlPlane.start(apiserver_args=apiserver_args) as controlplane:
        release(controlplane, "install", str(CHART), "--create-namespace")
        with webhook(
            controlplane.folder / "webhook", issued(controlplane), **{"drain_seconds": "3", **settings}
        ) as first:
            publish(controlplane, first)
            settle(controlplane)
            yield Fallback(controlplane, first)


def issued(controlplane: ControlPlane, name: str = NAME) -> dict[str, bytes]:
    """Return the certificate in a Secret as files; by default the chart's certificate."""
    secret = get(controlplane, "secret", name, f"--namespace={NAMESPACE}")
    return {name: base64.b64decode(content) for name, content in secret["data"].items()}


def ca_bundle(controlplane: ControlPlane) -> bytes:
    """Return the CA certificates that the API server trusts, which are the same for all webhooks."""
    configuration = get(controlplane, "mutatingwebhookconfiguration", "devbox-secrets")
    (bundle,) = {each["clientConfig"]["caBundle"] for each in configuration["webhooks"]}
    return base64.b64decode(bundle)


@contextmanager
def webhook(folder: Path, certificate: Mapping[str, bytes], **settings: str) -> Iterator[Webhook]:
    """Run a replica; its log goes into the folder. The API server calls it once it is published."""
    mount(folder / "certificate", certificate)
    port, tls_port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        # Without a kubeconfig or token: the webhook doesn't use the API server.
        **{name: value for name, value in os.environ.items() if not name.startswith("KUBE")},
        "DEVBOX_SECRETS_PORT": str(port),
        "DEVBOX_SECRETS_TLS_PORT": str(tls_port),
        "DEVBOX_SECRETS_CERTIFICATE_DIR": str(folder / "certificate"),
        "DEVBOX_SECRETS_CERTIFICATE_REFRESH_SECONDS": "0.1",
        "DEVBOX_SECRETS_DRAIN_SECONDS": "0",
        "DEVBOX_SECRETS_LOG_LEVEL": "DEBUG",
        **{f"DEVBOX_SECRETS_{name.upper()}": value for name, value in settings.items()},
    }
    component = Component(COMMAND, ["webhook"], folder, lambda: is_ready(url), env)
    component.start()
    try:
        component.wait_ready()
        yield Webhook(component, url, tls_port, folder / "certificate")
    finally:
        component.stop(END_SECONDS)


def mount(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files as the kubelet mounts a Secret: renaming one link replaces all of them atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    content = folder / f"..{len(list(folder.iterdir()))}"
    content.mkdir()
    for name, data in files.items():
        write_private(content / name, data)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..new").symlink_to(content.name)
    (folder / "..new").rename(folder / "..data")


@contextmanager
def creating(controlplane: ControlPlane) -> Iterator[Callable[[], None]]:
    """Create devboxes continuously with dry runs; each must get its secrets.

    Yields a function that waits until more of them are created.
    """
    boxes = [pod({"containers": [container("a")]}, DEVBOX) for _ in range(50)]
    for number, box in enumerate(boxes):
        box["metadata"]["name"] = f"box-{number}"
    batch = json.dumps({"apiVersion": "v1", "kind": "List", "items": boxes})
    stop, done = Event(), list[subprocess.CompletedProcess[str]]()

    def create() -> None:
        output = '--output=jsonpath={.spec.containers[0].envFrom[0].secretRef.name}{"\\n"}'
        while not stop.is_set():
            options = ("--dry-run=server", output, "--filename=-")
            done.append(controlplane.kubectl("create", *options, input=batch, check=False))

    def more() -> None:
        count = len(done) + 2  # the next one may have started before
        until("more devboxes are created", lambda: len(done) >= count)

    with ThreadPoolExecutor() as threads:
        running = threads.submit(create)
        try:
            yield more
        finally:
            stop.set()
        running.result()
    for each in done:
        assert not each.stderr, each.stderr
        assert each.stdout.split() == [SECRET] * len(boxes)


def publish(controlplane: ControlPlane, *replicas: Webhook) -> None:
    """Publish the replicas to the API server, as Kubernetes does for ready pods."""
    slices = [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{NAME}-{replica.port}",
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": NAME},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [_own_address()]}],
            "ports": [{"name": "https", "port": replica.port}],
        }
        for replica in replicas
    ]
    controlplane.kubectl(
        *("apply", "--filename=-", "--prune", f"--selector=kubernetes.io/service-name={NAME}"),
        *(f"--namespace={NAMESPACE}", "--prune-allowlist=discovery.k8s.io/v1/EndpointSlice"),
        input=json.dumps({"apiVersion": "v1", "kind": "List", "items": slices}),
    )


def _own_address() -> str:
    """Return a non-loopback address of this machine, because EndpointSlices can't have loopback addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            unsent.connect(("192.0.2.1", 9))  # an address for documentation (RFC 5737): nothing is sent
        except OSError:
            message = "the API server reaches the webhook at an address other than 127.0.0.1: connect to a network"
            raise ClusterError(message) from None
        address: str = unsent.getsockname()[0]
        return address
