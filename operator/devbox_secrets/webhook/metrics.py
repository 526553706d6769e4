"""The webhook's Prometheus metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge

REGISTRY = CollectorRegistry()

ADMISSION_REVIEWS = Counter(
    "devbox_secrets_admission_reviews",
    "Admission reviews by result: patched, unchanged or rejected",
    ["result"],
    registry=REGISTRY,
)
for _result in ("patched", "unchanged", "rejected"):
    ADMISSION_REVIEWS.labels(_result)  # a rate needs the series from before the first one
CERTIFICATE_EXPIRATION = Gauge(
    "devbox_secrets_certificate_expiration_timestamp_seconds",
    "When the server's certificate expires, in seconds since 1970",
    registry=REGISTRY,
)
