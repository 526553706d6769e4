"""Middleware: the audit log's line and the metrics of each request.

Nothing that was sent reaches them, since a name or a path may be a value in the wrong place. The path is the
template of its endpoint, the secret is named only if it exists, so is the account unless it is the token's own, and
x-request-id is hashed.
"""

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from devbox_secrets.gateway import metrics

#: The kubelet's, every other second: neither logged nor counted.
_PROBES = ("/healthz", "/readyz")
_METHODS = ("GET", "POST")
_HASH_DIGITS = 16
_MAX_USER_LENGTH = 256
_SCOPE_KEY = "devbox_secrets.audit"


@dataclass(slots=True)
class AuditEntry:
    """What is known of a request so far."""

    user: str | None = None
    account: str | None = None
    secret: str | None = None
    id: str | None = None

    def set_user(self, name: str) -> None:
        """Note whose token the request carries."""
        self.user = name[:_MAX_USER_LENGTH]

    def set_account(self, account: str) -> None:
        """Note the account, which is the token's own or has secrets that the caller may see."""
        self.account = account

    def set_secret(self, account: str, name: str, secret_id: str) -> None:
        """Note the secret, which exists, and its account."""
        self.account, self.secret, self.id = account, name, secret_id


def audit_entry(scope: Scope) -> AuditEntry:
    """Give a request's entry."""
    entry: AuditEntry = scope[_SCOPE_KEY]
    return entry


class AuditMiddleware:
    """Counts each request, and logs it where there is a log."""

    def __init__(self, app: ASGIApp, log: logging.Logger | None) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        status, started, is_connected = 0, time.monotonic(), True

        async def watch_receive() -> Message:
            nonlocal is_connected
            message = await receive()
            is_connected = is_connected and message["type"] != "http.disconnect"
            return message

        async def watch_send(message: Message) -> None:
            nonlocal status
            if is_connected:  # what nobody receives is no response
                status = message.get("status", status)
            await send(message)

        scope[_SCOPE_KEY] = AuditEntry()
        try:
            with metrics.HTTP_REQUESTS_IN_FLIGHT.track_inprogress():
                await self._app(scope, watch_receive, watch_send)
        finally:
            self._record(scope, status, time.monotonic() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        handler = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        metrics.HTTP_REQUESTS.labels(handler, method, f"{status // 100}xx" if status else "none").inc()
        metrics.HTTP_REQUEST_DURATION.labels(handler, method).observe(seconds)
        if self._log is None:
            return
        entry = audit_entry(scope)
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "user": entry.user,
            "account": entry.account,
            "request": f"{method} {handler}",
            "secret": entry.secret,
            "id": entry.id,
            "status": status or None,
            "duration_ms": round(seconds * 1000, 1),
            "request_id_hash": _hash(dict(scope["headers"]).get(b"x-request-id")),
            "protocol": f"HTTP/{scope['http_version']}",
        }
        self._log.info("%s", json.dumps(line))


def _hash(request_id: bytes | None) -> str | None:
    return hashlib.sha256(request_id).hexdigest()[:_HASH_DIGITS] if request_id else None
