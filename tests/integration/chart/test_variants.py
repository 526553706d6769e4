"""Common variants of the chart, also as a dependency, pass helm lint, an API server and kubeconform."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from harness.controlplane import ControlPlane
from harness.tools import files
from integration.chart.test_install import EVERY_VALUE
from integration.support.chart import CHART, NAMESPACE, Json, helm
from integration.support.kubeconform import kubeconform, write_schemas

MONITORING = "example/prometheus-operator-crd/monitoring.coreos.com"
CRDS = (
    ("cert-manager", "deploy/crds/cert-manager.io_certificates.yaml"),
    ("gateway-api", "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"),
    ("prometheus-operator", f"{MONITORING}_servicemonitors.yaml"),
    ("prometheus-operator", f"{MONITORING}_podmonitors.yaml"),
    ("prometheus-operator", f"{MONITORING}_prometheusrules.yaml"),
)
PARENT = {
    "apiVersion": "v2",
    "name": "platform",
    "version": "1.0.0",
    "dependencies": [{"name": "devbox-secrets", "version": "*", "condition": "devbox-secrets.enabled"}],
}


@dataclass(frozen=True)
class Variant:
    """One way to install the chart."""

    values: Json
    platform: tuple[str, ...] = ()
    """Options of helm template that describe the cluster."""
    as_dependency: bool = False


DIGEST = f"sha256:{'0' * 64}"
OFF: Json = {
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "serviceAccount": {"create": False, "name": "own"},
}
MIXED: Json = {
    "selectors": [
        {"matchLabels": {"a": "b"}},
        {"as": "env", "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d", "e"]}]},
        {"as": "files", "matchLabels": {"f": "g"}, "matchExpressions": [{"key": "h", "operator": "DoesNotExist"}]},
    ]
}
VARIANTS = {
    "the defaults": Variant({}),
    "everything on, with the policy": Variant({**EVERY_VALUE, "injection": {"method": "policy"}}),
    "everything on, with the webhook": Variant({**EVERY_VALUE, "injection": {"method": "webhook"}}),
    "everything on, on OpenShift": Variant(EVERY_VALUE, ("--api-versions=security.openshift.io/v1",)),
    "an older Kubernetes": Variant({"gateway": {"enabled": True}}, ("--kube-version=1.30.0",)),
    "the webhook on the node's network": Variant(
        {"injection": {"method": "webhook"}, "webhook": {"hostNetwork": True, "port": 10250, "healthPort": 10260}}
    ),
    "files, and variables for some devboxes": Variant({"injection": {"as": "files"}, "devboxes": MIXED}),
    "variables, and files for some devboxes, with the webhook": Variant(
        {"injection": {"method": "webhook"}, "devboxes": MIXED}
    ),
    "certificates by cert-manager": Variant(
        {
            "injection": {"method": "webhook"},
            "webhook": {"certificate": "cert-manager", "issuerRef": {"name": "ca"}},
            "gateway": {"enabled": True, "tls": {"issuerRef": {"name": "ca"}, "dnsNames": ["secrets.example"]}},
        }
    ),
    "the gateway behind an Ingress and an HTTPRoute": Variant(
        {
            "gateway": {
                "enabled": True,
                "ingress": {"enabled": True, "hosts": [{"host": "a.example"}], "tls": [{"secretName": "tls"}]},
                "httpRoute": {"enabled": True, "parentRefs": [{"name": "x"}], "hostnames": ["a.example"]},
            }
        }
    ),
    "metrics for the Prometheus operator": Variant(
        {
            "injection": {"method": "webhook"},
            "metrics": {"service": {"enabled": True}, "serviceMonitor": {"enabled": True, "labels": {"a": "b"}}},
            "gateway": {"enabled": True},
        }
    ),
    "metrics without Services, alerts and a dashboard": Variant(
        {
            "metrics": {
                "podMonitor": {"enabled": True, "labels": {"a": "b"}},
                "prometheusRule": {"enabled": True, "labels": {"a": "b"}},
                "dashboard": {"enabled": True, "annotations": {"a": "b"}},
            },
        }
    ),
    "without objects that others manage": Variant(
        {
            "injection": {"method": "webhook"},
            "crds": {"enabled": False},
            "rbac": {"aggregate": False},
            **OFF,
            "webhook": OFF,
            "gateway": {"enabled": True, **OFF},
        }
    ),
    "a dependency, with the parent's globals": Variant(
        {
            "global": {"imageRegistry": "mirror.example", "imagePullSecrets": ["mirror"], "storageClass": "fast"},
            "devbox-secrets": {
                "image": {"repository": "devbox-secrets", "digest": DIGEST},
                "gateway": {"enabled": True},
            },
        },
        as_dependency=True,
    ),
    "a disabled dependency": Variant(
        {"devbox-secrets": {"enabled": False, "image": {"repository": "x"}}}, as_dependency=True
    ),
}


def chart(variant: Variant, folder: Path) -> str:
    """Return the folder of the chart to install: ours or a parent of it."""
    if not variant.as_dependency:
        return str(CHART)
    shutil.copytree(CHART, folder / "platform" / "charts" / "devbox-secrets")
    (folder / "platform" / "templates").mkdir()
    (folder / "platform" / "Chart.yaml").write_text(yaml.safe_dump(PARENT))
    return str(folder / "platform")


def values(variant: Variant, folder: Path) -> str:
    path = folder / "values.yaml"
    path.write_text(json.dumps(variant.values))
    return f"--values={path}"


def rendered(variant: Variant, folder: Path, *arguments: str) -> str:
    command = ("template", NAMESPACE, chart(variant, folder), values(variant, folder), "--skip-tests")
    done = helm(*command, *variant.platform, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def crds(controlplane: ControlPlane) -> Iterator[None]:
    """The CRDs of other projects, without their controllers."""
    paths = [f"--filename={files(pin) / path}" for pin, path in CRDS]
    controlplane.kubectl("apply", "--server-side", *paths)
    controlplane.kubectl("wait", "--for=condition=Established", *paths)
    yield
    controlplane.kubectl("delete", *paths)


@pytest.mark.parametrize("name", VARIANTS)
def test_helm_lint_passes(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    version = [option for option in variant.platform if option.startswith("--kube-version")]
    done = helm("lint", "--strict", chart(variant, tmp_path), values(variant, tmp_path), *version)
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("crds")
@pytest.mark.parametrize("name", VARIANTS)
def test_the_api_server_accepts_the_manifests(
    name: str, controlplane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    made = rendered(VARIANTS[name], tmp_path, f"--namespace={namespace}")
    if made.strip():
        apply = ("apply", "--dry-run=server", "--validate=strict", "--filename=-")
        controlplane.kubectl(*apply, input=made)


@pytest.fixture(scope="module")
def schemas(controlplane: ControlPlane, crds: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON schemas of the kinds that the control plane serves."""
    folder = tmp_path_factory.mktemp("schemas")
    write_schemas(controlplane, folder)
    return folder


@pytest.mark.parametrize("name", VARIANTS)
def test_kubeconform_accepts_the_manifests(name: str, schemas: Path, tmp_path: Path) -> None:
    done = kubeconform(schemas, rendered(VARIANTS[name], tmp_path))
    assert done.returncode == 0, done.stdout
    assert "Invalid: 0, Errors: 0, Skipped: 0" in done.stdout


def test_kubeconform_rejects_an_unknown_field(schemas: Path) -> None:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "lables": {}}}
    done = kubeconform(schemas, json.dumps(manifest))
    assert done.returncode == 1
    assert "'lables' not allowed" in done.stdout


def test_a_parents_globals_are_used_and_those_of_other_charts_ignored(tmp_path: Path) -> None:
    made = yaml.safe_load_all(rendered(VARIANTS["a dependency, with the parent's globals"], tmp_path))
    pods = [each["spec"]["template"]["spec"] for each in made if each and each["kind"] == "Deployment"]
    assert [pod["containers"][0]["image"] for pod in pods] == [f"mirror.example/devbox-secrets@{DIGEST}"] * 2
    assert [pod["imagePullSecrets"] for pod in pods] == [[{"name": "mirror"}]] * 2


def test_a_disabled_dependency_installs_nothing(tmp_path: Path) -> None:
    assert rendered(VARIANTS["a disabled dependency"], tmp_path).strip() == ""


def test_a_disabled_dependency_without_a_condition_is_an_error(tmp_path: Path) -> None:
    variant = VARIANTS["a disabled dependency"]
    path = Path(chart(variant, tmp_path))
    dependency = {"name": "devbox-secrets", "version": "*"}
    (path / "Chart.yaml").write_text(yaml.safe_dump(PARENT | {"dependencies": [dependency]}))
    done = helm("template", NAMESPACE, str(path), values(variant, tmp_path))
    assert done.returncode == 1
    assert "add `condition: devbox-secrets.enabled`" in done.stderr
