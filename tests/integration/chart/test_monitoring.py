"""The chart's monitors, alerts and dashboard work with a Prometheus that scrapes the running programs."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from harness.prometheus import Prometheus, program
from integration.support.chart import NAMESPACE, until
from integration.support.monitoring import DASHBOARD, Programs, monitored_chart, programs, scraping, write_rules

CANARY = "canary-in-the-metrics"
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


# --- The rendered chart


def test_the_pod_monitor_selects_every_pod_and_only_its_metrics_port() -> None:
    chart = monitored_chart()
    spec = chart["PodMonitor", "devbox-secrets"]["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    ports = {}
    for (kind, name), each in chart.items():
        if kind == "Deployment":
            template = each["spec"]["template"]
            assert spec["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
            (ports[name],) = (
                port["containerPort"]
                for port in template["spec"]["containers"][0]["ports"]
                if port["name"] == endpoint["port"]
            )
    assert ports == {"devbox-secrets": 8080, "devbox-secrets-webhook": 8080, "devbox-secrets-gateway": 9090}
    for name, port in ports.items():
        rule = chart["NetworkPolicy", name]["spec"]["ingress"][-1]
        assert rule == {"ports": [{"protocol": "TCP", "port": port}], "from": [{"namespaceSelector": {}}]}


def test_both_monitors_keep_the_namespace_label_of_a_metric() -> None:
    options = "metrics.service.enabled=true,metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=false"
    services = monitored_chart(f"--set={options}")
    (by_service,) = services["ServiceMonitor", "devbox-secrets"]["spec"]["endpoints"]
    (by_pod,) = monitored_chart()["PodMonitor", "devbox-secrets"]["spec"]["podMetricsEndpoints"]
    assert by_service["honorLabels"] is by_pod["honorLabels"] is True


def test_labels_and_annotations_are_configurable() -> None:
    options = [f"metrics.{kind}.labels.release=prom" for kind in ("podMonitor", "prometheusRule", "dashboard")]
    made = monitored_chart(f"--set={','.join(options)},metrics.dashboard.annotations.folder=Secrets")
    names = {
        "PodMonitor": "devbox-secrets",
        "PrometheusRule": "devbox-secrets",
        "ConfigMap": "devbox-secrets-dashboard",
    }
    assert {made[kind, name]["metadata"]["labels"]["release"] for kind, name in names.items()} == {"prom"}
    dashboard = made["ConfigMap", "devbox-secrets-dashboard"]
    metadata = dashboard["metadata"]
    assert (metadata["labels"]["grafana_dashboard"], metadata["annotations"]["folder"]) == ("1", "Secrets")
    assert json.loads(dashboard["data"]["devbox-secrets.json"]) == DASHBOARD


def test_the_log_format_applies_to_every_server() -> None:
    made = monitored_chart("--set=logFormat=json")
    formats = [
        variable["value"]
        for (kind, _), each in made.items()
        if kind == "Deployment"
        for variable in each["spec"]["template"]["spec"]["containers"][0]["env"]
        if variable["name"] == "DEVBOX_SECRETS_LOG_FORMAT"
    ]
    assert formats == ["json"] * 3


# --- The alerts with invented series


def promtool(folder: Path, *arguments: str) -> str:
    done = subprocess.run([program("promtool"), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_rules(tmp_path: Path) -> None:
    write_rules(tmp_path)
    assert "SUCCESS" in promtool(tmp_path, "check", "rules", "--lint-fatal", "rules.json")


def test_alerts_fire_only_when_they_should(tmp_path: Path) -> None:
    write_rules(tmp_path)
    shutil.copy(Path(__file__).with_name("alerts.yaml"), tmp_path)
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "alerts.yaml")


def test_every_alert_fires_in_a_test(tmp_path: Path) -> None:
    tests = Path(__file__).with_name("alerts.yaml").read_text()
    fired = set(re.findall(r'alertname(?:: |=")(\w+)', tests))
    assert {rule["alert"] for group in write_rules(tmp_path)["groups"] for rule in group["rules"]} == fired


# --- Alerts and dashboard with the metrics of running programs


def generate_activity(it: Programs) -> None:
    """Put something into every metric: a Ready AccountSecret and one that isn't, a request and a review."""
    it.account.is_ready(it.account.put("TOKEN", CANARY.encode()))
    other = it.account.apply(it.account.manifest("OTHER", CANARY.encode(), sealed_for="elsewhere"))
    it.account.is_ready(other, "CannotOpen")
    assert it.api.post("/v1/secrets", json={"name": "MADE", "value": CANARY}).is_success
    it.review(CANARY)


@dataclass(frozen=True)
class Monitored:
    """A Prometheus that scrapes running programs, and the name of their account."""

    prometheus: Prometheus
    account: str


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    """Programs and a Prometheus on a separate control plane, because the gateway's objects stay there."""
    folder = tmp_path_factory.mktemp("monitoring")
    with ControlPlane.start() as it, programs(it, folder) as running:
        generate_activity(running)
        with scraping(running, folder) as server:
            yield Monitored(server, running.account.name)


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_of_the_dashboard_has_a_result(query: str, monitored: Monitored) -> None:
    expression = query.replace("$__rate_interval", "5s")
    until(f"{expression} has a result", lambda: monitored.prometheus.query(expression))


def test_every_alert_is_evaluated_and_has_the_right_namespace(monitored: Monitored) -> None:
    not_ready = {
        "alertname": "DevboxSecretsAccountSecretsNotReady",
        "namespace": monitored.account,
        "reason": "CannotOpen",
        "severity": "warning",
    }
    # The test's certificate is valid for a day.
    expires = {
        "alertname": "DevboxSecretsCertificateExpiresSoon",
        "namespace": NAMESPACE,
        "container": "webhook",
        "severity": "warning",
    }

    def are_as_expected() -> bool:
        active = [each["labels"] for each in monitored.prometheus.get("alerts")["alerts"]]
        account_alerts = [each for each in active if each.get("namespace") == monitored.account]
        no_leader = "DevboxSecretsNoLeader" in {each["alertname"] for each in active}
        return account_alerts == [not_ready] and expires in active and not no_leader

    until("the alerts are as expected", are_as_expected)
    (group,) = monitored.prometheus.get("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}


def test_each_metric_has_the_right_namespace_label(monitored: Monitored) -> None:
    query = f'devbox_secrets_accountsecrets_not_ready{{namespace="{monitored.account}",reason="CannotOpen"}}'
    (own,) = until("the metric is scraped", lambda: monitored.prometheus.query(query))
    assert own["value"][1] == "1"
    (leader,) = monitored.prometheus.query("devbox_secrets_leader")
    assert leader["metric"]["namespace"] == NAMESPACE


def test_metrics_contain_no_values_and_no_names_of_secrets(monitored: Monitored) -> None:
    until("all programs are scraped", lambda: len(monitored.prometheus.query("up == 1")) == 3)
    series = json.dumps(monitored.prometheus.get("series", **{"match[]": '{__name__!=""}'}))
    assert monitored.account in series
    assert [word for word in (CANARY, '"other"', '"token"', "TOKEN", "MADE") if word in series] == []


def test_the_logs_are_json_lines_without_values(tmp_path: Path) -> None:
    with ControlPlane.start() as controlplane:
        with programs(controlplane, tmp_path) as it:
            generate_activity(it)
        logs = [it.operator.log, it.gateway.log, it.webhook.log]
    for log in logs:
        lines = [json.loads(line) for line in log.splitlines()]
        assert ("time", "level", "logger", "message") in {tuple(line) for line in lines}
        assert CANARY not in log
