"""What Prometheus sees. Counts and times alone: no label is a person's text or a secret's."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # a second series for each, which nobody asks for
REGISTRY = CollectorRegistry()
"""What the operator shows."""
WEBHOOK_REGISTRY = CollectorRegistry()
"""What the webhook shows, which is another process."""

ACCOUNT_SECRETS = Gauge(
    "devbox_secrets_accountsecrets",
    "AccountSecrets by the reason of their Ready condition",
    ["reason"],
    registry=REGISTRY,
)
WRITES = Counter(
    "devbox_secrets_writes",
    "Writes to the API server by what was written",
    ["what"],
    registry=REGISTRY,
)
DRIFT_REPAIRS = Counter(
    "devbox_secrets_drift_repairs",
    "Account Secrets that someone else had changed or deleted, and that were put right",
    registry=REGISTRY,
)
OPENS = Counter("devbox_secrets_opens", "Sealed values opened", registry=REGISTRY)
RESEALS = Counter(
    "devbox_secrets_reseals",
    "Attempts to seal a value from the gateway anew with the newest key, by what came of it",
    ["outcome"],
    registry=REGISTRY,
)
FAILURES = Counter("devbox_secrets_failures", "Accounts put off because of an error", registry=REGISTRY)
QUEUE_DEPTH = Gauge("devbox_secrets_queue_depth", "Accounts that wait to be looked at", registry=REGISTRY)
QUEUE_SECONDS = Histogram(
    "devbox_secrets_queue_seconds",
    "How long an account waited to be looked at",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120),
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "devbox_secrets_reconcile_seconds",
    "How long an account's reconciliation took",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
    registry=REGISTRY,
)
SYNC_SECONDS = Histogram(
    "devbox_secrets_sync_seconds",
    "From the news of a change until the account Secrets that it concerns were written",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 120),
    registry=REGISTRY,
)
ROTATION_DUE = Gauge(
    "devbox_secrets_rotation_due", "AccountSecrets older than their rotateAfter allows", registry=REGISTRY
)
LOST_NAMESPACES = Gauge(
    "devbox_secrets_lost_namespaces",
    "Namespaces whose label names an account that has no home",
    registry=REGISTRY,
)
LEADER = Gauge("devbox_secrets_leader", "Whether this replica is the one that writes", registry=REGISTRY)
SEALING_KEYS = Gauge("devbox_secrets_sealing_keys", "Sealing keys at hand", registry=REGISTRY)
NEWEST_KEY_AGE_SECONDS = Gauge(
    "devbox_secrets_newest_key_age_seconds", "Time since the newest sealing key was made", registry=REGISTRY
)

REVIEWS = Counter(
    "devbox_secrets_reviews",
    "Requests of the API server to the webhook by its answer",
    ["answer"],
    registry=WEBHOOK_REGISTRY,
)
CERTIFICATE_END = Gauge(
    "devbox_secrets_certificate_end_seconds",
    "When the webhook's certificate ends, in seconds since 1970",
    registry=WEBHOOK_REGISTRY,
)
