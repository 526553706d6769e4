"""The gateway's Prometheus metrics. No label contains a secret or any text from a request."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

HTTP_REQUESTS = Counter(
    "devbox_secrets_gateway_http_requests",
    "Requests by handler (path template), method and status class",
    ["handler", "method", "code"],
    registry=REGISTRY,
)
HTTP_REQUEST_DURATION = Histogram(
    "devbox_secrets_gateway_http_request_duration_seconds",
    "Time from a request's head until its response was sent, in seconds",
    ["handler", "method"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
HTTP_REQUESTS_IN_FLIGHT = Gauge(
    "devbox_secrets_gateway_http_requests_in_flight", "Requests currently being served", registry=REGISTRY
)
UPSTREAM_REQUESTS = Counter(
    "devbox_secrets_gateway_upstream_requests",
    "Requests to the Kubernetes API server by outcome: status class, 429, timeout or error",
    ["code"],
    registry=REGISTRY,
)
REJECTED_REQUESTS = Counter(
    "devbox_secrets_gateway_rejected_requests",
    "Requests rejected because there were too many, by reason: rate_limit or unknown_token",
    ["reason"],
    registry=REGISTRY,
)
for _reason in ("rate_limit", "unknown_token"):
    REJECTED_REQUESTS.labels(_reason)  # initialized, so that a rate includes the first increment
CERTIFICATE_EXPIRATION = Gauge(
    "devbox_secrets_certificate_expiration_timestamp_seconds",
    "Expiration time of the server's certificate, in seconds since 1970",
    registry=None,
)
"""Registered only if the gateway has a certificate."""
