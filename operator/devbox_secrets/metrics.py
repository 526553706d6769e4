"""What Prometheus sees. Counts and times alone: no label is a person's text or a secret's."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # a second series for each, which nobody asks for
REGISTRY = CollectorRegistry()
"""What the operator shows."""
WEBHOOK_REGISTRY = CollectorRegistry()
"""What the webhook shows, which is another process."""
GATEWAY_REGISTRY = CollectorRegistry()
"""What the gateway shows, which is yet another."""

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
    "When the server's certificate ends, in seconds since 1970",
    registry=WEBHOOK_REGISTRY,
)
"""The gateway's as well, where it has one: without one there is no time to show."""

CALLS = Counter(
    "devbox_secrets_gateway_calls",
    "Calls by endpoint, method and class of status",
    ["endpoint", "method", "status"],
    registry=GATEWAY_REGISTRY,
)
CALL_SECONDS = Histogram(
    "devbox_secrets_gateway_call_seconds",
    "From a call's head until its answer was sent",
    ["endpoint", "method"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=GATEWAY_REGISTRY,
)
CALLS_IN_FLIGHT = Gauge(
    "devbox_secrets_gateway_calls_in_flight", "Calls that aren't answered yet", registry=GATEWAY_REGISTRY
)
CONNECTIONS = Gauge("devbox_secrets_gateway_connections", "Connections of clients", registry=GATEWAY_REGISTRY)
UPSTREAM = Counter(
    "devbox_secrets_gateway_upstream_requests",
    "Requests to the API server by its answer: the class of its status, 429, late or none",
    ["answer"],
    registry=GATEWAY_REGISTRY,
)
TURNED_AWAY = Counter(
    "devbox_secrets_gateway_turned_away",
    "Calls told to come again because there are too many, by whose",
    ["whose"],
    registry=GATEWAY_REGISTRY,
)
