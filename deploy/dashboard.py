"""Prints the JSON of the Grafana dashboard that the chart contains."""

import json
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

_SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")
_COLUMNS = 24


@dataclass(frozen=True)
class Panel:
    """A panel, with its queries by legend and the unit of the values."""

    title: str
    description: str
    queries: dict[str, str]
    unit: str = "short"


def _rate(metric: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[$__rate_interval]))"


def _quantile(quantile: float, metric: str, by: str = "le") -> str:
    return f"histogram_quantile({quantile}, {_rate(f'{metric}_bucket', by)})"


def _quantiles(metric: str) -> dict[str, str]:
    return {f"p{quantile * 100:.0f}": _quantile(quantile, metric) for quantile in (0.5, 0.99)}


_STATS = [
    Panel("Ready", "AccountSecrets that are Ready", {"": 'max(devbox_secrets_accountsecrets{reason="Synced"})'}),
    Panel(
        "Not Ready",
        "AccountSecrets that aren't Ready",
        {"": 'sum(max by (reason) (devbox_secrets_accountsecrets{reason!="Synced"}))'},
    ),
    Panel("Rotation due", "AccountSecrets older than their rotateAfter", {"": "max(devbox_secrets_rotation_due)"}),
    Panel(
        "Without a home",
        "Namespaces whose label names an account that doesn't exist",
        {"": "max(devbox_secrets_namespaces_without_home)"},
    ),
    Panel("Leaders", "Replicas of the operator that are the leader; should be 1", {"": "sum(devbox_secrets_leader)"}),
    Panel("Sealing keys", "Usable sealing keys", {"": "max(devbox_secrets_sealing_keys)"}),
    Panel(
        "Newest key",
        "Age of the newest sealing key",
        {"": "time() - max(devbox_secrets_newest_sealing_key_timestamp_seconds)"},
        "s",
    ),
    Panel(
        "Certificates",
        "Time until the certificates of the webhook and the gateway expire",
        {
            "{{container}}": "min by (container) (devbox_secrets_certificate_expiration_timestamp_seconds) - time()",
        },
        "s",
    ),
]
_ROWS = {
    "AccountSecrets": [
        Panel(
            "AccountSecrets by reason",
            "The reason of the Ready condition; Synced is Ready",
            {"{{reason}}": "max by (reason) (devbox_secrets_accountsecrets) > 0"},
        ),
        Panel(
            "Not Ready by namespace",
            "The 20 namespaces and reasons with the most AccountSecrets that aren't Ready",
            {
                "{{namespace}}: {{reason}}": "topk(20, max by (namespace, reason)"
                " (devbox_secrets_accountsecrets_not_ready))",
            },
        ),
    ],
    "Operator": [
        Panel(
            "Sync duration",
            "Time from a change until the account Secrets are written",
            _quantiles("devbox_secrets_sync_duration_seconds"),
            "s",
        ),
        Panel("Queue depth", "Accounts waiting to be reconciled", {"accounts": "max(devbox_secrets_workqueue_depth)"}),
        Panel(
            "Queue duration",
            "Time that accounts wait to be reconciled",
            _quantiles("devbox_secrets_workqueue_queue_duration_seconds"),
            "s",
        ),
        Panel(
            "Reconcile duration",
            "Time to reconcile an account",
            _quantiles("devbox_secrets_reconcile_duration_seconds"),
            "s",
        ),
        Panel(
            "Writes",
            "Writes to the API server by resource",
            {"{{resource}}": _rate("devbox_secrets_writes_total", "resource")},
            "ops",
        ),
        Panel(
            "Errors and repairs",
            "Failed reconciliations, and repairs of account Secrets that something else changed",
            {
                "reconcile errors": _rate("devbox_secrets_reconcile_errors_total"),
                "drift repairs": _rate("devbox_secrets_drift_repairs_total"),
            },
            "ops",
        ),
        Panel("Decrypted values", "Sealed values decrypted", {"decrypted": _rate("devbox_secrets_opens_total")}, "ops"),
        Panel(
            "Reseals",
            "Attempts to reseal a value from the gateway with the newest key, by outcome",
            {"{{outcome}}": _rate("devbox_secrets_reseals_total", "outcome")},
            "ops",
        ),
    ],
    "Gateway and webhook": [
        Panel(
            "Requests",
            "Requests to the gateway by class of status code",
            {"{{code}}": _rate("devbox_secrets_gateway_http_requests_total", "code")},
            "reqps",
        ),
        Panel(
            "Request duration (p99)",
            "By handler, which is the path's template",
            {
                "{{method}} {{handler}}": _quantile(
                    0.99, "devbox_secrets_gateway_http_request_duration_seconds", "le, method, handler"
                )
            },
            "s",
        ),
        Panel(
            "Requests in flight",
            "Requests without a complete response",
            {"requests": "sum(devbox_secrets_gateway_http_requests_in_flight)"},
        ),
        Panel(
            "Requests to the API server",
            "By class of status code, 429, timeout or error",
            {"{{code}}": _rate("devbox_secrets_gateway_upstream_requests_total", "code")},
            "reqps",
        ),
        Panel(
            "Rejected requests",
            "Requests rejected because there are too many",
            {"{{reason}}": _rate("devbox_secrets_gateway_rejected_requests_total", "reason")},
            "reqps",
        ),
        Panel(
            "Admission reviews",
            "Admission reviews of the webhook by result",
            {"{{result}}": _rate("devbox_secrets_admission_reviews_total", "result")},
            "reqps",
        ),
    ],
}


def _panel(panel: Panel, builder: stat.Panel | timeseries.Panel) -> stat.Panel | timeseries.Panel:
    builder.title(panel.title).description(panel.description).datasource(_SOURCE).unit(panel.unit)
    for number, (legend, query) in enumerate(panel.queries.items()):
        target = prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + number))
        builder.with_target(target)
    return builder


def _build() -> dashboard.Dashboard:
    built = (
        dashboard.Dashboard("devbox-secrets")
        .uid("devbox-secrets")
        .tags(["devbox-secrets"])
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("1m")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for panel in _STATS:
        built.with_panel(_panel(panel, stat.Panel().height(4).span(_COLUMNS // len(_STATS))))
    for title, panels in _ROWS.items():
        built.with_row(dashboard.Row(title))
        in_line = next(number for number in (4, 3, 2) if len(panels) % number == 0)
        for panel in panels:
            built.with_panel(_panel(panel, timeseries.Panel().height(8).span(_COLUMNS // in_line).min(0)))
    return built


if __name__ == "__main__":
    print(json.dumps(_build().build(), cls=JSONEncoder, indent=2))
