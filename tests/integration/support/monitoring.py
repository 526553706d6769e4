"""The operator, the gateway and the webhook under load, and a Prometheus that scrapes them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
import yaml

from harness.controlplane import ControlPlane
from harness.pki import Authority
from harness.prometheus import Prometheus, prometheus
from integration.support.account import Account
from integration.support.chart import CHART, DEVBOX, NAMESPACE, Json, container, install, pod, render
from integration.support.gateway import Gateway, gateway, new_account, token
from integration.support.processes import Operator, Process, operator
from integration.support.sealing_keys import ensure_key
from integration.support.webhook import HOST, Webhook, webhook

DASHBOARD: Json = json.loads((CHART / "files" / "dashboard.json").read_text())
_MONITORED = (
    "--set=gateway.enabled=true,injection.method=webhook",
    "--set=metrics.podMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true",
)


@cache
def monitored_chart(*arguments: str) -> Mapping[tuple[str, str], Json]:
    """Render the chart with all components and all monitoring objects, and return them by kind and name."""
    objects = filter(None, yaml.safe_load_all(render(*_MONITORED, *arguments).stdout))
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


def write_rules(folder: Path) -> Json:
    """Write the chart's alerts to the Prometheus file rules.json, and return them."""
    rules: Json = monitored_chart()["PrometheusRule", "devbox-secrets"]["spec"]
    (folder / "rules.json").write_text(json.dumps(rules))
    return rules


@dataclass(frozen=True)
class Programs:
    """The servers, an account, and a client of the gateway with the account's token."""

    operator: Operator
    gateway: Gateway
    webhook: Webhook
    account: Account
    api: httpx.Client
    authority: Authority

    def review(self, value: str) -> None:
        """Let the webhook review a devbox that sets a variable itself."""
        box = pod({"containers": [container("a", env=[{"name": "A", "value": value}])]}, DEVBOX)
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        body = json.dumps(review | {"request": {"uid": "1", "object": box}})
        with self.webhook.connect(self.authority) as connection:
            connection.request("POST", "/required", body, {"Content-Type": "application/json"})
            assert connection.getresponse().status == 200


@contextmanager
def programs(controlplane: ControlPlane, folder: Path) -> Iterator[Programs]:
    """Run one replica of each, with logs in JSON."""
    install(controlplane, "--set=gateway.enabled=true")
    ensure_key(controlplane)
    authority = Authority.create("test")
    pair = authority.server(HOST, addresses=[])
    certificate = {"tls.crt": pair.certificate, "tls.key": pair.key}
    with (
        operator(controlplane, folder, log_format="json", reseal_gateway_values="true") as running_operator,
        gateway(controlplane, log_format="json") as running_gateway,
        webhook(folder / "webhook", certificate, log_format="json") as running_webhook,
    ):
        account = Account.of(controlplane, new_account(controlplane))
        with running_gateway.client(token(controlplane, account.name)) as api:
            yield Programs(running_operator, running_gateway, running_webhook, account, api, authority)


@contextmanager
def scraping(it: Programs, folder: Path, interval: str = "200ms") -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes them as in the chart's PodMonitor, and evaluates the alerts."""
    write_rules(folder)
    (endpoint,) = monitored_chart()["PodMonitor", "devbox-secrets"]["spec"]["podMetricsEndpoints"]
    targets: dict[str, Process] = {"operator": it.operator, "gateway": it.gateway.process, "webhook": it.webhook}
    scrape = {
        "job_name": "devbox-secrets",
        "honor_labels": endpoint["honorLabels"],
        "metrics_path": endpoint["path"],
        # With the labels that the Prometheus operator adds to a pod's metrics.
        "static_configs": [
            {
                "targets": [process.url.removeprefix("http://")],
                "labels": {"namespace": NAMESPACE, "container": name},
            }
            for name, process in targets.items()
        ],
    }
    times = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), interval)
    with prometheus(folder, {"global": times, "rule_files": ["rules.json"], "scrape_configs": [scrape]}) as server:
        yield server
