"""Certificates of the webhook from cert-manager: no devbox is rejected while they are issued and renewed.

tests/harness/tools/cert-manager runs cert-manager's own controllers. No node runs the webhook's pods, so the tests
mount a renewed Secret themselves, later than a kubelet would.
"""

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from harness.process import Component
from harness.tools import files, tool
from integration.support.chart import CHART, NAMESPACE, Json, get, release, settle, until
from integration.support.processes import END_SECONDS
from integration.support.webhook import (
    NAME,
    SWITCHED_OFF,
    Fallback,
    ca_bundle,
    creating,
    issued,
    mount,
    publish,
    webhook,
)

SECRET = f"{NAME}-issued"
HERE = f"--namespace={NAMESPACE}"


def cert_manager_object(kind: str, name: str, spec: Json) -> Json:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "cert-manager.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


ISSUERS = [
    cert_manager_object("Issuer", "self-signed", {"selfSigned": {}}),
    cert_manager_object(
        "Certificate",
        "ca",
        {"isCA": True, "commonName": "ca", "secretName": "ca", "issuerRef": {"name": "self-signed"}},
    ),
    cert_manager_object("Issuer", "ca", {"ca": {"secretName": "ca"}}),
]


def issued_by(issuer: str) -> str:
    return f"--set=webhook.certificate=cert-manager,webhook.issuerRef.name={issuer}"


@pytest.fixture(scope="module")
def installed() -> Iterator[Fallback]:
    """The chart with a Certificate, cert-manager's controllers, and a replica with the issued certificate."""
    with ControlPlane.start(apiserver_args=SWITCHED_OFF) as controlplane:
        crds = [f"--filename={path}" for path in (files("cert-manager") / "deploy/crds").glob("*.yaml")]
        controlplane.kubectl("apply", "--server-side", *crds)
        controlplane.kubectl("wait", "--for=condition=Established", *crds)
        release(controlplane, "install", str(CHART), "--create-namespace", issued_by("ca"))
        controlplane.kubectl(
            "apply", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": ISSUERS})
        )
        env = {**os.environ, "KUBECONFIG": str(controlplane.kubeconfig)}
        component = Component(
            tool("cert-manager"), [], controlplane.folder, lambda: revision(controlplane, NAME) > 0, env
        )
        component.start()
        try:
            component.wait_ready()
            with webhook(controlplane.folder / "webhook", issued(controlplane, SECRET)) as it:
                publish(controlplane, it)
                settle(controlplane)
                yield Fallback(controlplane, it)
        finally:
            component.stop(END_SECONDS)


def revision(controlplane: ControlPlane, name: str) -> int:
    """Return how often a Certificate was issued."""
    status = get(controlplane, "certificate", name, HERE).get("status", {})
    return int(status.get("revision", 0))


def renew(controlplane: ControlPlane, name: str) -> None:
    """Request a new certificate, as `cmctl renew` does, and wait for it."""
    condition = {
        "type": "Issuing",
        "status": "True",
        "reason": "ManuallyTriggered",
        "message": "renewed by a test",
        "lastTransitionTime": datetime.now(UTC).isoformat(),
    }
    patch = json.dumps([{"op": "add", "path": "/status/conditions/-", "value": condition}])
    before = revision(controlplane, name)
    controlplane.kubectl("patch", "certificate", name, HERE, "--subresource=status", "--type=json", f"--patch={patch}")
    until("the certificate is issued again", lambda: revision(controlplane, name) > before)


def renew_ca(controlplane: ControlPlane) -> None:
    renew(controlplane, "ca")
    renew(controlplane, NAME)


def change_issuer(controlplane: ControlPlane) -> None:
    before = revision(controlplane, NAME)
    release(controlplane, "upgrade", str(CHART), issued_by("self-signed"))
    until("the certificate is issued again", lambda: revision(controlplane, NAME) > before)


CHANGES: dict[str, Callable[[ControlPlane], None]] = {
    "the certificate is renewed": lambda controlplane: renew(controlplane, NAME),
    "the CA is renewed": renew_ca,
    "the issuer changes": change_issuer,
}


@pytest.mark.parametrize("what", CHANGES)
def test_no_devbox_is_rejected_while(what: str, installed: Fallback, tmp_path: Path) -> None:
    controlplane, it = installed.controlplane, installed.webhook
    before = issued(controlplane, SECRET)
    with creating(controlplane) as more:
        more()
        CHANGES[what](controlplane)
        after = issued(controlplane, SECRET)
        until("cainjector has written the CA", lambda: after["ca.crt"] in ca_bundle(controlplane))
        more()  # the replica still has the old certificate
        mount(it.certificate, after)
        bundle = tmp_path / "ca.crt"
        bundle.write_bytes(ca_bundle(controlplane))
        until("the new certificate is served", lambda: it.served(bundle) == after["tls.crt"])
        more()
    assert after["tls.crt"] != before["tls.crt"]
    assert (after["ca.crt"] == before["ca.crt"]) == (what == "the certificate is renewed")
