"""The chart's Certificates are valid for cert-manager's CRD."""

from collections.abc import Iterator

import pytest
import yaml

from harness.controlplane import ControlPlane
from harness.tools import files
from integration.support.chart import NAMESPACE, render

VALUES = {
    "the webhook's": "injection.method=webhook,webhook.certificate=cert-manager,webhook.issuerRef.name=ca",
    "the gateway's": "gateway.enabled=true,gateway.tls.issuerRef.name=ca,gateway.tls.dnsNames[0]=secrets.example",
}


@pytest.fixture(scope="module")
def cert_manager(controlplane: ControlPlane) -> Iterator[None]:
    """cert-manager's CRD, without its controllers."""
    crd = f"--filename={files('cert-manager') / 'deploy/crds/cert-manager.io_certificates.yaml'}"
    controlplane.kubectl("apply", "--server-side", crd)
    controlplane.kubectl("wait", "--for=condition=Established", crd)
    yield
    controlplane.kubectl("delete", crd)


@pytest.mark.usefixtures("cert_manager")
@pytest.mark.parametrize("component", VALUES)
def test_certificates_are_valid(component: str, controlplane: ControlPlane, namespace: str) -> None:
    objects = yaml.safe_load_all(render(f"--set={VALUES[component]}").stdout)
    (certificate,) = (each for each in objects if each and each["kind"] == "Certificate")
    assert certificate["metadata"].pop("namespace") == NAMESPACE
    body = yaml.safe_dump(certificate)
    controlplane.kubectl("create", "--validate=strict", f"--namespace={namespace}", "--filename=-", input=body)
