"""The audit log line and the metrics of each request.

Neither repeats text from a request, since a name or a path may be a value in the wrong place. The path is the
endpoint's template, x-request-id is hashed, and a secret, or an account other than the token's own, is named only if
it exists.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from prometheus_client import Counter, Histogram
from starlette.requests import Request

from devbox_secrets.gateway import metrics
from devbox_secrets.gateway.contract.operations import REQUEST_ID_HEADER

#: The kubelet's requests, one every few seconds: neither logged nor counted.
_PROBES = ("/healthz", "/readyz")
_METHODS = ("GET", "POST")
_HASH_DIGITS = 16
_MAX_USER_LENGTH = 256


@dataclass(slots=True)
class AuditEntry:
    """What is known about a request so far."""

    user: str | None = None
    account: str | None = None
    secret: str | None = None
    id: str | None = None
    status: int | None = None
    """The response's status; None if the client disconnected before."""

    def set_user(self, name: str) -> None:
        """Record the user of the request's token."""
        self.user = name[:_MAX_USER_LENGTH]

    def set_account(self, account: str) -> None:
        """Record the account, which is the user's own or has secrets that the caller may see."""
        self.account = account

    def set_secret(self, account: str, name: str, secret_id: str) -> None:
        """Record the secret, which exists, and its account."""
        self.account, self.secret, self.id = account, name, secret_id


@contextmanager
def audited(request: Request, template: str | None, log: logging.Logger | None) -> Iterator[AuditEntry]:
    """Yield a request's entry; at the end count the request, and log it if there is a log."""
    entry, started = AuditEntry(), time.monotonic()
    if template in _PROBES:
        yield entry
        return
    metrics.HTTP_REQUESTS_IN_FLIGHT.inc()
    try:
        yield entry
    finally:
        metrics.HTTP_REQUESTS_IN_FLIGHT.dec()
        _record(entry, request, template or "none", time.monotonic() - started, log)


def _record(entry: AuditEntry, request: Request, handler: str, seconds: float, log: logging.Logger | None) -> None:
    method = request.method if request.method in _METHODS else "other"
    _counter(handler, method, f"{entry.status // 100}xx" if entry.status else "none").inc()
    _histogram(handler, method).observe(seconds)
    if log is None:
        return
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "user": entry.user,
        "account": entry.account,
        "request": f"{method} {handler}",
        "secret": entry.secret,
        "id": entry.id,
        "status": entry.status,
        "duration_ms": round(seconds * 1000, 1),
        "request_id_hash": _hash(request.headers.get(REQUEST_ID_HEADER)),
        "protocol": f"HTTP/{request.scope['http_version']}",
    }
    log.info("%s", json.dumps(line))


@cache
def _counter(handler: str, method: str, code: str) -> Counter:
    return metrics.HTTP_REQUESTS.labels(handler, method, code)


@cache
def _histogram(handler: str, method: str) -> Histogram:
    return metrics.HTTP_REQUEST_DURATION.labels(handler, method)


def _hash(request_id: str | None) -> str | None:
    return hashlib.sha256(request_id.encode("latin-1")).hexdigest()[:_HASH_DIGITS] if request_id else None
