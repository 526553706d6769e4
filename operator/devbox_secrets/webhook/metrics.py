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
    ADMISSION_REVIEWS.labels(_result)  # initialized, so that a rate includes the first increment
CERTIFICATE_EXPIRATION = Gauge(
    "devbox_secrets_certificate_expiration_timestamp_seconds",
    "Expiration time of the server's certificate, in seconds since 1970",
    registry=REGISTRY,
)
