"""The chart installs the gateway only if it's enabled, without rights of its own and with separate metrics."""

from collections.abc import Iterator

import pytest
import yaml

from harness.controlplane import ControlPlane
from integration.support.chart import CHART, NAMESPACE, Json, dry_run, helm, install, render
from integration.support.rights import rights

NAME = "devbox-secrets-gateway"
METRICS = f"{NAME}-metrics"
USER = f"system:serviceaccount:{NAMESPACE}:{NAME}"


@pytest.fixture(scope="module")
def rendered() -> dict[str, Json]:
    """The gateway's objects by kind."""
    objects = list(filter(None, yaml.safe_load_all(render("--set=gateway.enabled=true").stdout)))
    return {each["kind"]: each for each in objects if each["metadata"]["name"] == NAME}


@pytest.fixture(scope="module")
def installed(controlplane: ControlPlane, rendered: dict[str, Json]) -> Iterator[None]:
    install(controlplane)
    body = yaml.safe_dump_all(rendered.values())
    controlplane.kubectl("apply", f"--namespace={NAMESPACE}", "--filename=-", input=body)
    yield
    controlplane.kubectl("delete", f"--namespace={NAMESPACE}", "--filename=-", input=body)


def test_the_gateway_is_off_by_default() -> None:
    assert NAME not in render().stdout


def test_the_gateway_consists_of_these_objects(rendered: dict[str, Json]) -> None:
    assert set(rendered) == {"ServiceAccount", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}


def test_the_network_policy_can_be_turned_off() -> None:
    assert ("NetworkPolicy", NAME) not in by_name("--set=gateway.networkPolicy.enabled=false")


def test_with_a_certificate_the_probes_use_tls() -> None:
    options = "--set=gateway.enabled=true,gateway.tls.secretName=certificate"
    objects = list(filter(None, yaml.safe_load_all(render(options).stdout)))
    (spec,) = (
        each["spec"]["template"]["spec"]
        for each in objects
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", NAME)
    )
    (container,) = spec["containers"]
    folder = {"name": "DEVBOX_SECRETS_CERTIFICATE_DIR", "value": "/etc/devbox-secrets/certificate"}
    assert folder in container["env"]
    assert folder["value"] in [mount["mountPath"] for mount in container["volumeMounts"]]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"


def test_the_certificate_has_the_services_names_and_the_configured_ones() -> None:
    options = "--set=gateway.enabled=true,gateway.tls.issuerRef.name=ca,gateway.tls.dnsNames[0]=secrets.example"
    done = render(options)
    assert done.returncode == 0, done.stderr
    objects = {(it["kind"], it["metadata"]["name"]): it for it in filter(None, yaml.safe_load_all(done.stdout))}
    certificate = objects["Certificate", NAME]["spec"]
    assert certificate["dnsNames"] == ["secrets.example", f"{NAME}.{NAMESPACE}", f"{NAME}.{NAMESPACE}.svc"]
    assert certificate["issuerRef"] == {"name": "ca", "kind": "Issuer", "group": "cert-manager.io"}
    volumes = objects["Deployment", NAME]["spec"]["template"]["spec"]["volumes"]
    assert [it["secret"]["secretName"] for it in volumes if "secret" in it] == [certificate["secretName"]]


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ("", "http://devbox-secrets-gateway.devbox-secrets.svc"),
        (",gateway.service.port=8000", "http://devbox-secrets-gateway.devbox-secrets.svc:8000"),
        (",gateway.tls.secretName=own,gateway.service.port=443", "https://devbox-secrets-gateway.devbox-secrets.svc"),
        (",gateway.tls.issuerRef.name=ca", "https://devbox-secrets-gateway.devbox-secrets.svc:80"),
    ],
)
def test_the_notes_show_the_gateways_url_and_how_to_create_a_key(values: str, url: str) -> None:
    options = (f"--namespace={NAMESPACE}", "--dry-run=client", f"--set=gateway.enabled=true{values}")
    notes = helm("install", NAMESPACE, str(CHART), *options).stdout
    assert f"  export RUNLOOP_BASE_URL={url}\n" in notes
    assert "$(devbox-secrets apikey create ci -n ACCOUNT)" in notes
    assert ("values are sent unencrypted" in notes) is url.startswith("http:")


@pytest.mark.usefixtures("installed")
def test_its_service_account_has_no_rights_beyond_everyones(controlplane: ControlPlane) -> None:
    for namespace in (NAMESPACE, "default"):
        who = (f"--as={USER}", f"--as-group=system:serviceaccounts:{NAMESPACE}", "--as-group=system:authenticated")
        listing = controlplane.kubectl("auth", "can-i", "--list", "--no-headers", f"--namespace={namespace}", *who)
        everyones = {("configmaps", "devbox-secrets-public-keys", "get")} if namespace == NAMESPACE else set()
        assert rights(listing.stdout) == everyones


@pytest.mark.usefixtures("installed")
def test_its_pod_has_no_token_and_passes_pod_security_admission(
    controlplane: ControlPlane, rendered: dict[str, Json]
) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", **rendered["Deployment"]["spec"]["template"]}
    pod["metadata"] = {**pod["metadata"], "name": "gateway"}
    made = dry_run(controlplane, pod, NAMESPACE)
    assert [volume["name"] for volume in made["spec"]["volumes"]] == ["api-server"]


def test_its_pods_match_only_the_gateways_selectors(rendered: dict[str, Json]) -> None:
    every = list(
        filter(None, yaml.safe_load_all(render("--set=gateway.enabled=true,metrics.service.enabled=true").stdout))
    )
    labels = rendered["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = {
        (each["kind"], each["metadata"]["name"]): selector.get("matchLabels", selector)
        for each in every
        if each["kind"] in {"Deployment", "Service"}
        for selector in [each["spec"]["selector"]]
    }
    chosen = {what for what, selector in selectors.items() if selector.items() <= labels.items()}
    assert len(selectors) == 5
    assert chosen == {("Deployment", NAME), ("Service", NAME), ("Service", METRICS)}


# --- Metrics: on a separate port, which the clients' Service doesn't expose


def by_name(*options: str) -> dict[tuple[str, str], Json]:
    """Return each object's spec by kind and name."""
    objects = filter(None, yaml.safe_load_all(render("--set=gateway.enabled=true", *options).stdout))
    return {(each["kind"], each["metadata"]["name"]): each.get("spec", {}) for each in objects}


def test_its_service_does_not_expose_metrics() -> None:
    (port,) = by_name("--set=metrics.service.enabled=true")["Service", NAME]["ports"]
    assert port["targetPort"] == "http"


def test_metrics_are_unreachable_without_a_metrics_service() -> None:
    found = by_name()
    assert ("Service", METRICS) not in found
    assert [rule["ports"] for rule in found["NetworkPolicy", NAME]["ingress"]] == [[{"protocol": "TCP", "port": 8080}]]


def test_the_clusters_pods_can_reach_metrics_with_a_metrics_service() -> None:
    found = by_name("--set=metrics.service.enabled=true")
    assert [port["targetPort"] for port in found["Service", METRICS]["ports"]] == ["metrics"]
    _, rule = found["NetworkPolicy", NAME]["ingress"]
    assert rule == {"ports": [{"protocol": "TCP", "port": 9090}], "from": [{"namespaceSelector": {}}]}


def test_the_service_monitor_selects_only_the_metrics_ports() -> None:
    options = (
        "--set=metrics.service.enabled=true,metrics.serviceMonitor.enabled=true,injection.method=webhook",
        "--api-versions=monitoring.coreos.com/v1",
    )
    found = by_name(*options)
    (endpoint,) = found["ServiceMonitor", "devbox-secrets"]["endpoints"]
    targets = {
        name: {port["name"]: port["port"] for port in spec["ports"]}.get(endpoint["port"])
        for (kind, name), spec in found.items()
        if kind == "Service"
    }
    webhook = "devbox-secrets-webhook"
    assert targets == {NAME: None, METRICS: 9090, webhook: 8080, "devbox-secrets-metrics": 8080}


def test_the_rate_limit_and_the_audit_log_are_configurable() -> None:
    values = '{"audit": false, "rateLimit": {"requestsPerSecond": 2.5, "burst": 10}}'
    for options, settings in (
        ((), ("true", "0", "20")),
        ((f"--set-json=gateway={values}",), ("false", "2.5", "10")),
    ):
        (container,) = by_name(*options)["Deployment", NAME]["template"]["spec"]["containers"]
        env = {each["name"]: each.get("value") for each in container["env"]}
        assert (
            tuple(env[f"DEVBOX_SECRETS_{it}"] for it in ("AUDIT", "RATE_LIMIT_PER_SECOND", "RATE_LIMIT_BURST"))
            == settings
        )
