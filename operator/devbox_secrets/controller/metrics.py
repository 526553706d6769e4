"""The operator's Prometheus metrics. Labels contain namespaces and fixed words, never a secret or its name."""

import collections
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from devbox_secrets.api.models import Reason

REGISTRY = CollectorRegistry()

MAX_NAMESPACES = 500
"""How many namespaces get their own series; the others share one series per reason, with an empty namespace."""

ACCOUNT_SECRETS = Gauge(
    "devbox_secrets_accountsecrets",
    "AccountSecrets by reason of their Ready condition",
    ["reason"],
    registry=REGISTRY,
)
ACCOUNT_SECRETS_NOT_READY = Gauge(
    "devbox_secrets_accountsecrets_not_ready",
    "AccountSecrets that are not Ready, by namespace and reason",
    ["namespace", "reason"],
    registry=REGISTRY,
)
WRITES = Counter(
    "devbox_secrets_writes",
    "Writes to the Kubernetes API server by resource",
    ["resource"],
    registry=REGISTRY,
)
DRIFT_REPAIRS = Counter(
    "devbox_secrets_drift_repairs",
    "Account Secrets repaired after someone else changed or deleted them",
    registry=REGISTRY,
)
OPENS = Counter("devbox_secrets_opens", "Sealed values decrypted", registry=REGISTRY)
RESEALS = Counter(
    "devbox_secrets_reseals",
    "Attempts to reseal a gateway's value with the newest key, by outcome",
    ["outcome"],
    registry=REGISTRY,
)
for _outcome in ("resealed", "conflict", "failed"):
    RESEALS.labels(_outcome)  # initialized, so that a rate includes the first increment
RECONCILE_ERRORS = Counter(
    "devbox_secrets_reconcile_errors", "Failed reconciliations of accounts, which are retried", registry=REGISTRY
)
WORKQUEUE_DEPTH = Gauge("devbox_secrets_workqueue_depth", "Accounts waiting to be reconciled", registry=REGISTRY)
WORKQUEUE_QUEUE_DURATION = Histogram(
    "devbox_secrets_workqueue_queue_duration_seconds",
    "Time an account waited to be reconciled, in seconds",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120),
    registry=REGISTRY,
)
RECONCILE_DURATION = Histogram(
    "devbox_secrets_reconcile_duration_seconds",
    "Time it took to reconcile an account, in seconds",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
    registry=REGISTRY,
)
SYNC_DURATION = Histogram(
    "devbox_secrets_sync_duration_seconds",
    "Time from observing a change until the affected account Secrets were written, in seconds",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 120),
    registry=REGISTRY,
)
ROTATION_DUE = Gauge(
    "devbox_secrets_rotation_due", "AccountSecrets whose value is older than rotateAfter allows", registry=REGISTRY
)
NAMESPACES_WITHOUT_HOME = Gauge(
    "devbox_secrets_namespaces_without_home",
    "Namespaces whose label names an account without a home",
    registry=REGISTRY,
)
LEADER = Gauge("devbox_secrets_leader", "Whether this replica is the leader", registry=REGISTRY)
SEALING_KEYS = Gauge("devbox_secrets_sealing_keys", "Usable sealing keys", registry=REGISTRY)
SEALING_KEYS_LOST = Gauge(
    "devbox_secrets_sealing_keys_lost",
    "Whether all sealing keys are lost while there are AccountSecrets",
    registry=REGISTRY,
)
NEWEST_SEALING_KEY = Gauge(
    "devbox_secrets_newest_sealing_key_timestamp_seconds",
    "Creation time of the newest sealing key, in seconds since 1970",
    registry=REGISTRY,
)


def set_account_secrets(counts: Mapping[tuple[str, str], int]) -> None:
    """Set the gauges of AccountSecrets from counts by namespace and reason."""
    totals = dict.fromkeys(Reason, 0)
    known = {key: count for key, count in counts.items() if key[1] in totals}
    not_ready = collections.Counter[tuple[str, str]]()
    shown = set(sorted({namespace for namespace, reason in known if reason != Reason.SYNCED})[:MAX_NAMESPACES])
    for (namespace, reason), count in known.items():
        totals[Reason(reason)] += count
        if reason != Reason.SYNCED:
            not_ready[namespace if namespace in shown else "", reason] += count
    for reason, count in totals.items():
        ACCOUNT_SECRETS.labels(reason).set(count)
    ACCOUNT_SECRETS_NOT_READY.clear()
    for labels, count in not_ready.items():
        ACCOUNT_SECRETS_NOT_READY.labels(*labels).set(count)
