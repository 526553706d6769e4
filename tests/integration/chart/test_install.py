"""Installation with Helm and with install.yaml, and the messages for invalid values."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from harness.shell import environment, run, sessions
from integration.support.account import Account
from integration.support.chart import CHART, MANIFEST, NAMESPACE, Json, dry_run, get, helm, install, release, render
from integration.support.gateway import publish_key
from integration.support.processes import operator
from integration.support.sealing_keys import create

KEYS = ("secret", "devbox-secrets-keys", f"--namespace={NAMESPACE}")
CRD = ("crd", "accountsecrets.devbox-secrets.dev")

SELECTORS = "devboxes.selectors"
AB = {"matchLabels": {"a": "b"}}
INVALID = {
    "an unknown value": (
        ["--set", "image.tga=1"],
        "at '/image': additional properties 'tga' not allowed",
    ),
    "an unknown log level": (
        ["--set", "logLevel=debug"],
        "at '/logLevel': value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'",
    ),
    "an invalid reserved name": (
        ["--set-json", 'reservedNames=["NO NAME"]'],
        "at '/reservedNames/0': 'NO NAME' does not match pattern",
    ),
    "an invalid duration": (
        ["--set", "keys.rotateAfter=3 months"],
        "at '/keys/rotateAfter': '3 months' does not match pattern",
    ),
    "no selectors": (
        ["--set-json", f"{SELECTORS}=[]"],
        (
            "devboxes.selectors is empty, so no pod would get secrets; add a label selector, or omit"
            " the value to use the defaults"
        ),
    ),
    "a selector that matches every pod": (
        ["--set-json", f'{SELECTORS}=[{{"matchLabels":{{"a":"b"}}}},{{"matchLabels":{{}}}}]'],
        ("devboxes.selectors[1] is empty and would match all pods in the cluster; set matchLabels or matchExpressions"),
    ),
    "labels instead of a selector": (
        ["--set-json", f'{SELECTORS}=[{{"app":"box"}}]'],
        "at '/devboxes/selectors/0': additional properties 'app' not allowed",
    ),
    "a label value that isn't a string": (
        ["--set-json", f'{SELECTORS}=[{{"matchLabels":{{"box":true}}}}]'],
        "at '/devboxes/selectors/0/matchLabels/box': got boolean, want string",
    ),
    "a selector twice": (
        ["--set-json", f'{SELECTORS}=[{{"matchLabels":{{"a":"b"}}}},{{"matchLabels":{{"a":"b"}}}}]'],
        "at '/devboxes/selectors': items at 0 and 1 are equal",
    ),
    "the same labels twice": (
        ["--set-json", f'{SELECTORS}=[{{"matchLabels":{{"a":"b"}}}},{{"as":"files","matchLabels":{{"a":"b"}}}}]'],
        "devboxes.selectors[1] has the same labels as an earlier selector; remove one of them",
    ),
    "the same labels twice, once with an empty list": (
        ["--set-json", f"{SELECTORS}={json.dumps([{'matchExpressions': [], **AB}, {'as': 'files', **AB}])}"],
        "devboxes.selectors[1] has the same labels as an earlier selector; remove one of them",
    ),
    "no log format": (["--set", "logFormat=null"], "missing property 'logFormat'"),
    "an unknown form of secrets": (
        ["--set", "injection.as=volume"],
        "at '/injection/as': value must be one of 'env', 'files'",
    ),
    "an expression without values": (
        ["--set-json", f'{SELECTORS}=[{{"matchExpressions":[{{"key":"a","operator":"In"}}]}}]'],
        "at '/devboxes/selectors/0/matchExpressions/0': missing property 'values'",
    ),
    "a ServiceMonitor without a Service": (
        ["--set", "metrics.serviceMonitor.enabled=true"],
        "metrics.serviceMonitor.enabled requires a Service; set metrics.service.enabled to true",
    ),
    "two monitors": (
        ["--set", "metrics.service.enabled=true,metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true"],
        "metrics.serviceMonitor.enabled and metrics.podMonitor.enabled would scrape every pod twice; set one of them",
    ),
    "an unknown log format": (
        ["--set", "logFormat=logfmt"],
        "at '/logFormat': value must be one of 'text', 'json'",
    ),
    "a gateway without API server ports": (
        ["--set-json", "gateway.networkPolicy.apiServerPorts=[]"],
        "at '/gateway/networkPolicy/apiServerPorts': minItems: got 0, want 1",
    ),
    "an API server's address without a prefix length": (
        ["--set-json", 'networkPolicy.apiServerCIDRs=["10.0.0.2"]'],
        "at '/networkPolicy/apiServerCIDRs/0': '10.0.0.2' does not match pattern",
    ),
    "two sources of the gateway's certificate": (
        ["--set", "gateway.tls.secretName=own,gateway.tls.issuerRef.name=ca"],
        ("gateway.tls.secretName and gateway.tls.issuerRef can't be set together; remove one of them"),
    ),
    "DNS names without an issuer": (
        ["--set", "gateway.tls.dnsNames[0]=secrets.example"],
        (
            "gateway.tls.dnsNames requires a certificate from cert-manager; set gateway.tls.issuerRef.name,"
            " or remove gateway.tls.dnsNames"
        ),
    ),
    "an issuer as a string": (
        ["--set", "gateway.tls.issuerRef=ca"],
        "at '/gateway/tls/issuerRef': got string, want object",
    ),
    "the chart's own label": (
        ["--set", r"podLabels.app\.kubernetes\.io/name=mine"],
        "podLabels sets app.kubernetes.io/name, which the chart sets itself; remove it",
    ),
    "the chart's own label in commonLabels": (
        ["--set", r"commonLabels.helm\.sh/chart=mine"],
        "commonLabels sets helm.sh/chart, which the chart sets itself; remove it",
    ),
    "no ServiceAccount": (
        ["--set", "gateway.serviceAccount.create=false"],
        "gateway.serviceAccount.create is false; set gateway.serviceAccount.name to an existing ServiceAccount",
    ),
    "an unknown global value": (
        ["--set", "global.imageRegsitry=registry.example"],
        "unknown values in global: imageRegsitry; remove them",
    ),
    "an unknown platform": (
        ["--set", "global.compatibility.rancher.adapt=auto"],
        "unknown values in global: rancher; remove them",
    ),
    "enabled=false without a condition in the parent": (
        ["--set", "enabled=false"],
        "add `condition: devbox-secrets.enabled` to the dependency in the parent's Chart.yaml",
    ),
    "an Ingress without a host": (
        ["--set", "gateway.enabled=true,gateway.ingress.enabled=true"],
        "gateway.ingress.enabled requires a host name; add one to gateway.ingress.hosts",
    ),
    "an HTTPRoute without a Gateway": (
        ["--set", "gateway.enabled=true,gateway.httpRoute.enabled=true"],
        "gateway.httpRoute.enabled requires a Gateway; add it to gateway.httpRoute.parentRefs",
    ),
    "an Ingress without the gateway": (
        ["--set", "gateway.ingress.enabled=true"],
        "gateway.ingress and gateway.httpRoute require the gateway; set gateway.enabled to true",
    ),
    "a custom probe": (
        ["--set", "livenessProbe.httpGet.path=/"],
        "at '/livenessProbe': additional properties 'httpGet' not allowed",
    ),
    "a digest in the tag": (
        ["--set", f"image.tag=1@sha256:{'a' * 64}"],
        "at '/image/tag'",
    ),
    "an unsupported version of Kubernetes": (
        ["--kube-version", "1.29.9"],
        "chart requires kubeVersion: >=1.30.0-0 which is incompatible with Kubernetes v1.29.9",
    ),
    "the policy on a cluster that doesn't support it": (
        ["--set", "injection.method=policy", "--kube-version", "1.35.9"],
        (
            "injection.method is policy, but the API server doesn't support MutatingAdmissionPolicy"
            " (admissionregistration.k8s.io/v1); set it to auto or webhook"
        ),
    ),
    "an unknown injection method": (
        ["--set", "injection.method=sidecar"],
        "at '/injection/method': value must be one of 'auto', 'policy', 'webhook'",
    ),
    "a webhook without replicas": (
        ["--set", "webhook.replicaCount=0"],
        "at '/webhook/replicaCount': minimum: got 0, want 1",
    ),
    "an unknown source of the certificate": (
        ["--set", "webhook.certificate=vault"],
        "at '/webhook/certificate': value must be one of 'chart', 'cert-manager', 'secret'",
    ),
    "cert-manager without an issuer": (
        ["--set", "webhook.certificate=cert-manager"],
        "webhook.certificate is cert-manager, which requires an issuer; set webhook.issuerRef.name",
    ),
    "an issuer without cert-manager": (
        ["--set", "webhook.issuerRef.name=ca"],
        "webhook.issuerRef requires webhook.certificate cert-manager; set that, or remove webhook.issuerRef",
    ),
    "a Secret without a CA": (
        ["--set", "webhook.certificate=secret,webhook.secretName=own"],
        (
            "webhook.certificate is secret; set webhook.secretName to its name, and webhook.caBundle to the"
            " CA certificate that signed the certificate in it"
        ),
    ),
    "a Secret that isn't used": (
        ["--set", "webhook.secretName=own"],
        "webhook.secretName and webhook.caBundle require webhook.certificate secret; set that, or remove them",
    ),
    "a certificate in base64": (
        ["--set", "webhook.caBundle=LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"],
        "at '/webhook/caBundle': 'LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t' does not match pattern",
    ),
}

#: The values of pods, which exist for the operator, the webhook and the gateway.
PODS: Json = {
    "serviceAccount": {"create": True, "annotations": {"a": "b"}},
    "podDisruptionBudget": {"enabled": True, "maxUnavailable": "50%", "unhealthyPodEvictionPolicy": "AlwaysAllow"},
    "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
    "revisionHistoryLimit": 2,
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "platform"},
    "podSecurityContext": {"fsGroup": 1},
    "securityContext": {"runAsUser": 1},
    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
    "livenessProbe": {"timeoutSeconds": 5, "failureThreshold": 5},
    "readinessProbe": {"initialDelaySeconds": 1},
    "extraEnv": [{"name": "A", "value": "b"}],
    "extraVolumes": [{"name": "tmp", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - in the container
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "system-cluster-critical",
}
PEERS: list[Json] = [{"podSelector": {}}]
API_SERVER: Json = {"apiServerPorts": [6443], "apiServerCIDRs": ["10.0.0.2/32"]}
EVERY_VALUE: Json = {
    "global": {"imageRegistry": "mirror.example", "imagePullSecrets": ["mirror"], "nodeSelector": {"a": "b"}},
    "commonLabels": {"cost-center": "1"},
    "commonAnnotations": {"owner": "platform"},
    "devboxes": {
        "selectors": [
            {
                "matchLabels": {"kind": "box"},
                "matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}],
            }
        ]
    },
    "injection": {"method": "auto", "as": "files"},
    "reservedNames": ["PATH", "LD_*", "(?i)npm_config_*"],
    "keys": {"rotateAfter": "never"},
    "logLevel": "DEBUG",
    "logFormat": "json",
    "image": {"registry": "registry.example", "repository": "box", "tag": "1", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "rbac": {"aggregate": False},
    "crds": {"enabled": True, "keep": True},
    "metrics": {"service": {"enabled": True}, "dashboard": {"enabled": True}},
    "replicaCount": 0,
    "networkPolicy": {"enabled": True, "metricsFrom": PEERS, **API_SERVER},
    **PODS,
    "webhook": {
        "replicaCount": 3,
        "hostNetwork": True,
        "port": 10250,
        "healthPort": 10260,
        "networkPolicy": {"enabled": True, "metricsFrom": PEERS},
        **PODS,
    },
    "gateway": {
        "enabled": True,
        "replicaCount": 3,
        "service": {"type": "LoadBalancer", "port": 8000, "annotations": {"a": "b"}},
        "tls": {"secretName": "certificate"},
        "ingress": {"enabled": True, "hosts": [{"host": "a.example", "paths": [{"path": "/v1"}]}]},
        "audit": False,
        "rateLimit": {"requestsPerSecond": 2.5, "burst": 10},
        "networkPolicy": {"enabled": True, "from": PEERS, "metricsFrom": PEERS, **API_SERVER},
        **PODS,
    },
}


@pytest.fixture
def own_controlplane() -> Iterator[ControlPlane]:
    """A control plane on which nothing is installed."""
    with ControlPlane.start() as it:
        yield it


def every_value(tmp_path: Path) -> str:
    path = tmp_path / "values.yaml"
    path.write_text(json.dumps(EVERY_VALUE))
    return f"--values={path}"


def add_a_key(controlplane: ControlPlane) -> None:
    """Write a sealing key as the operator does, with its field manager."""
    create(controlplane)
    patch = ("--type=merge", "--patch", json.dumps({"data": {"key-1": "c2VjcmV0"}}))
    controlplane.kubectl("patch", *KEYS, *patch, "--field-manager=devbox-secrets")


def keys(controlplane: ControlPlane) -> object:
    return get(controlplane, *KEYS).get("data")


@pytest.mark.parametrize(
    ("selector", "label"),
    [
        (None, "devbox-secrets.dev/devbox=true"),
        ({"matchLabels": {"kind": "box"}}, "kind=box"),
        ({"matchExpressions": [{"key": "kind", "operator": "In", "values": ["box", "cell"]}]}, "kind=box"),
    ],
    ids=["the default", "a label", "one of several values"],
)
def test_the_notes_show_how_to_create_a_devbox(selector: Json | None, label: str) -> None:
    chosen = [f"--set-json=devboxes.selectors={json.dumps([selector])}"] if selector else []
    notes = helm("install", "--dry-run=client", NAMESPACE, str(CHART), f"--namespace={NAMESPACE}", *chosen).stdout
    assert f"kubectl run box --labels {label} --image IMAGE" in notes


def test_the_notes_read_a_file_if_devboxes_get_files() -> None:
    notes = helm("install", "--dry-run=client", NAMESPACE, str(CHART), "--set=injection.as=files").stdout
    assert "-- sh -c 'test -s /var/run/secrets/devbox-secrets.dev/GITHUB_TOKEN && echo set'" in notes


def test_the_notes_name_an_operator_namespace_that_is_not_the_default() -> None:
    notes = helm("install", "--dry-run=client", NAMESPACE, str(CHART), "--namespace=elsewhere").stdout
    assert "devbox-secrets keys backup keys.json --operator-namespace elsewhere\n" in notes
    assert "devbox-secrets seal GITHUB_TOKEN --operator-namespace elsewhere < token" in notes


@pytest.mark.parametrize("what", INVALID)
def test_invalid_values_are_rejected(what: str) -> None:
    arguments, message = INVALID[what]
    done = render(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


def test_without_aggregation_the_roles_have_no_aggregation_labels() -> None:
    label = "rbac.authorization.k8s.io/aggregate-to-"
    assert render().stdout.count(label) == 3
    without = render("--set=rbac.aggregate=false").stdout
    assert label not in without
    assert all(f"name: devbox-secrets-{role}\n" in without for role in ("view", "edit", "share"))


ROOT = CHART.parents[1]
VERSION = re.findall(r"^appVersion: (\S+)$", (CHART / "Chart.yaml").read_text(), re.MULTILINE)[0]
DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ("", f"devbox-secrets:{VERSION}"),
        ("tag=1.2", "devbox-secrets:1.2"),
        (f"digest={DIGEST}", f"devbox-secrets@{DIGEST}"),
        (f"tag=1.2,image.digest={DIGEST}", f"devbox-secrets:1.2@{DIGEST}"),
        ("registry=registry.example:5000", f"registry.example:5000/devbox-secrets:{VERSION}"),
    ],
)
def test_the_image_reference_consists_of_registry_tag_and_digest(values: str, name: str) -> None:
    assert f'image: "{name}"' in render(f"--set=image.{values}" if values else "--set=").stdout


def test_a_chart_from_a_checkout_needs_the_images_name() -> None:
    done = render("--set=image.repository=")
    assert done.returncode != 0
    assert "image.repository is not set" in done.stderr
    assert "--set image.repository=REGISTRY/NAME,image.tag=TAG" in done.stderr


@pytest.mark.parametrize("document", ["README.md", "docs/quick-start.md"])
def test_the_documented_installation_works_as_written(
    own_controlplane: ControlPlane, tmp_path: Path, document: str
) -> None:
    """`make image`, kind and pipx are stubs: other tests run them."""
    (steps,) = (it for it in sessions((ROOT / document).read_text()) if "helm install" in it[-1].command)
    name = f"devbox-secrets:{VERSION}-0123456789ab"
    stubs = [
        f"make() {{ echo {name}; }}",
        'kind() { test "$*" = "create cluster" || test "$*" = "load docker-image $image"; }',
        'pipx() { test "$*" = "install ."; }',
    ]
    ran = run([*stubs, *(step.command for step in steps)], ROOT, environment(tmp_path, own_controlplane.kubeconfig))
    assert [it.output for it in ran if it.code] == []
    deployment = get(own_controlplane, "deployment", "devbox-secrets", f"--namespace={NAMESPACE}")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == name


@pytest.mark.parametrize("age", ["90d", "12h", "never"])
def test_the_rotation_age_of_sealing_keys_is_configurable(age: str) -> None:
    rendered = render("--set", f"keys.rotateAfter={age}").stdout
    assert re.search(rf'name: DEVBOX_SECRETS_ROTATE_KEYS\n +value: "{age}"\n', rendered)


def test_helm_waits_until_devboxes_have_the_value(controlplane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    install(controlplane)
    publish_key(controlplane)
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: box\nversion: 1.0.0\n")
    account = Account.of(controlplane, namespace)
    (tmp_path / "templates" / "token.yaml").write_text(json.dumps(account.manifest("TOKEN", b"x")))
    upgrade = ("upgrade", "box", str(tmp_path), "--install", f"--namespace={namespace}", "--wait")
    without = helm(*upgrade, "--timeout=3s", kubeconfig=controlplane.kubeconfig)
    assert without.returncode == 1
    assert "AccountSecret" in without.stderr
    with operator(controlplane, tmp_path):
        done = helm(*upgrade, "--timeout=20s", kubeconfig=controlplane.kubeconfig)
    assert done.returncode == 0, done.stderr
    assert account.data() == {"TOKEN": b"x"}


def test_install_yaml_can_be_applied_again_without_touching_the_keys(
    own_controlplane: ControlPlane,
) -> None:
    apply = ("apply", f"--filename={MANIFEST}")
    budget = ("poddisruptionbudget", "devbox-secrets", f"--namespace={NAMESPACE}")
    own_controlplane.kubectl(*apply)
    add_a_key(own_controlplane)
    before = get(own_controlplane, *budget)["metadata"]["generation"]
    again = own_controlplane.kubectl(*apply).stdout.splitlines()
    # kubectl replaces the whole selector of a PodDisruptionBudget, and prints "configured" even if it's unchanged.
    same = (" unchanged", "poddisruptionbudget.policy/devbox-secrets configured")
    assert [line for line in again if not line.endswith(same)] == []
    assert get(own_controlplane, *budget)["metadata"]["generation"] == before
    assert keys(own_controlplane) == {"key-1": "c2VjcmV0"}


def test_the_operators_pod_passes_pod_security_admission(
    controlplane: ControlPlane,
) -> None:
    install(controlplane)
    deployment = get(controlplane, "deployment", "devbox-secrets", f"--namespace={NAMESPACE}")
    template = deployment["spec"]["template"]
    operator = {"apiVersion": "v1", "kind": "Pod", **template}
    operator["metadata"]["name"] = "operator"
    assert dry_run(controlplane, operator, NAMESPACE)["spec"]["serviceAccountName"]


def test_a_helm_upgrade_changes_the_selectors_without_touching_the_keys(
    own_controlplane: ControlPlane, tmp_path: Path
) -> None:
    release(own_controlplane, "install", str(CHART), "--create-namespace")
    add_a_key(own_controlplane)
    release(own_controlplane, "upgrade", str(CHART), every_value(tmp_path))
    assert keys(own_controlplane) == {"key-1": "c2VjcmV0"}
    found = get(own_controlplane, "mutatingadmissionpolicybindings")["items"]
    chosen = [binding["spec"]["matchResources"]["objectSelector"] for binding in found]
    assert chosen == EVERY_VALUE["devboxes"]["selectors"]


def test_the_keys_and_the_crd_survive_a_helm_uninstall_and_install(
    own_controlplane: ControlPlane,
) -> None:
    install = ("install", str(CHART), "--create-namespace")
    release(own_controlplane, *install)
    add_a_key(own_controlplane)
    crd = get(own_controlplane, *CRD)["metadata"]["uid"]
    release(own_controlplane, "uninstall")
    release(own_controlplane, *install)
    assert keys(own_controlplane) == {"key-1": "c2VjcmV0"}
    assert get(own_controlplane, *CRD)["metadata"]["uid"] == crd
