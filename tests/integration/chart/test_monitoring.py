"""The chart's monitors, alerts and dashboard; a Prometheus scrapes the operator, the gateway and the webhook."""

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


# --- What the chart renders.


def test_the_pod_monitor_selects_every_pod_and_its_port_alone() -> None:
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


def test_both_monitors_keep_the_namespace_of_a_metric() -> None:
    options = "metrics.service.enabled=true,metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=false"
    services = monitored_chart(f"--set={options}")
    (by_service,) = services["ServiceMonitor", "devbox-secrets"]["spec"]["endpoints"]
    (by_pod,) = monitored_chart()["PodMonitor", "devbox-secrets"]["spec"]["podMetricsEndpoints"]
    assert by_service["honorLabels"] is by_pod["honorLabels"] is True


def test_labels_and_annotations_are_what_the_values_say() -> None:
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


def test_every_server_logs_in_the_format_of_the_values() -> None:
    made = monitored_chart("--set=logFormat=json")
    formats = [
        variable["value"]
        for (kind, _), each in made.items()
        if kind == "Deployment"
        for variable in each["spec"]["template"]["spec"]["containers"][0]["env"]
        if variable["name"] == "DEVBOX_SECRETS_LOG_FORMAT"
    ]
    assert formats == ["json"] * 3


# --- The alerts, on series that were made up.


def promtool(folder: Path, *arguments: str) -> str:
    done = subprocess.run([program("promtool"), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_rules(tmp_path: Path) -> None:
    write_rules(tmp_path)
    assert "SUCCESS" in promtool(tmp_path, "check", "rules", "--lint-fatal", "rules.json")


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    write_rules(tmp_path)
    shutil.copy(Path(__file__).with_name("alerts.yaml"), tmp_path)
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "alerts.yaml")


def test_every_alert_fires_in_a_test(tmp_path: Path) -> None:
    tests = Path(__file__).with_name("alerts.yaml").read_text()
    fired = set(re.findall(r'alertname(?:: |=")(\w+)', tests))
    assert {rule["alert"] for group in write_rules(tmp_path)["groups"] for rule in group["rules"]} == fired


# --- Alerts and dashboard, on the metrics of running programs.


def work(it: Programs) -> None:
    """Have something in every metric: AccountSecrets that are Ready and one that isn't, a call, a review."""
    it.account.is_ready(it.account.put("TOKEN", CANARY.encode()))
    other = it.account.apply(it.account.manifest("OTHER", CANARY.encode(), sealed_for="elsewhere"))
    it.account.is_ready(other, "CannotOpen")
    assert it.api.post("/v1/secrets", json={"name": "MADE", "value": CANARY}).is_success
    it.review(CANARY)


@dataclass(frozen=True)
class Monitored:
    """A Prometheus that scrapes programs at work, and their account's name."""

    prometheus: Prometheus
    account: str


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    """All of it on a control plane of this module's own, since the gateway's objects stay there."""
    folder = tmp_path_factory.mktemp("monitoring")
    with ControlPlane.start() as it, programs(it, folder) as running:
        work(running)
        with scraping(running, folder) as server:
            yield Monitored(server, running.account.name)


@pytest.mark.parametrize("query", QUERIES)
def test_the_dashboard_s_query_has_a_result(query: str, monitored: Monitored) -> None:
    expression = query.replace("$__rate_interval", "5s")
    until(f"{expression} has a result", lambda: monitored.prometheus.query(expression))


def test_every_alert_is_evaluated_and_has_the_namespace_of_those_it_is_for(monitored: Monitored) -> None:
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

    def are_as_they_should() -> bool:
        active = [each["labels"] for each in monitored.prometheus.get("alerts")["alerts"]]
        of_the_account = [each for each in active if each.get("namespace") == monitored.account]
        no_leader = "DevboxSecretsNoLeader" in {each["alertname"] for each in active}
        return of_the_account == [not_ready] and expires in active and not no_leader

    until("the alerts are as they should be", are_as_they_should)
    (group,) = monitored.prometheus.get("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}


def test_a_metric_of_a_namespace_has_that_namespace_and_any_other_the_operator_s(monitored: Monitored) -> None:
    query = f'devbox_secrets_accountsecrets_not_ready{{namespace="{monitored.account}",reason="CannotOpen"}}'
    (own,) = until("it is scraped", lambda: monitored.prometheus.query(query))
    assert own["value"][1] == "1"
    (leader,) = monitored.prometheus.query("devbox_secrets_leader")
    assert leader["metric"]["namespace"] == NAMESPACE


def test_no_metric_has_a_value_or_the_name_of_a_secret(monitored: Monitored) -> None:
    until("everything is scraped", lambda: len(monitored.prometheus.query("up == 1")) == 3)
    series = json.dumps(monitored.prometheus.get("series", **{"match[]": '{__name__!=""}'}))
    assert monitored.account in series
    assert [word for word in (CANARY, '"other"', '"token"', "TOKEN", "MADE") if word in series] == []


def test_the_logs_are_lines_of_json_without_a_value(tmp_path: Path) -> None:
    with ControlPlane.start() as controlplane:
        with programs(controlplane, tmp_path) as it:
            work(it)
        logs = [it.operator.log, it.gateway.log, it.webhook.log]
    for log in logs:
        lines = [json.loads(line) for line in log.splitlines()]
        assert ("time", "level", "logger", "message") in {tuple(line) for line in lines}
        assert CANARY not in log
