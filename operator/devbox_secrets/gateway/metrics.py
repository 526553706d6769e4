"""The gateway's Prometheus metrics. No label holds what a person wrote, or a secret."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

HTTP_REQUESTS = Counter(
    "devbox_secrets_gateway_http_requests",
    "Requests by handler (the path's template), method and class of status code",
    ["handler", "method", "code"],
    registry=REGISTRY,
)
HTTP_REQUEST_DURATION = Histogram(
    "devbox_secrets_gateway_http_request_duration_seconds",
    "From a request's head until its response was sent",
    ["handler", "method"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
HTTP_REQUESTS_IN_FLIGHT = Gauge(
    "devbox_secrets_gateway_http_requests_in_flight", "Requests without a complete response", registry=REGISTRY
)
UPSTREAM_REQUESTS = Counter(
    "devbox_secrets_gateway_upstream_requests",
    "Requests to the API server by the class of status code, 429, timeout or error",
    ["code"],
    registry=REGISTRY,
)
REJECTED_REQUESTS = Counter(
    "devbox_secrets_gateway_rejected_requests",
    "Requests rejected because there are too many, by reason: rate_limit or unknown_token",
    ["reason"],
    registry=REGISTRY,
)
for _reason in ("rate_limit", "unknown_token"):
    REJECTED_REQUESTS.labels(_reason)  # a rate needs the series from before the first one
CERTIFICATE_EXPIRATION = Gauge(
    "devbox_secrets_certificate_expiration_timestamp_seconds",
    "When the server's certificate expires, in seconds since 1970",
    registry=None,
)
"""Registered where the gateway has a certificate: without one there is no time to show."""
