"""What is kept of each call: its line in the audit log, and metrics. Imports metrics.

What was sent reaches neither, since a name or a path may be a value in the wrong place: the endpoint is the template
of the path, the secret is named once it was found or made, the account likewise unless it is the token's own, and
x-request-id is hashed.
"""

import hashlib
import json
import logging
import time
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from devbox_secrets import metrics

#: Asked by the kubelet every other second: no calls.
_PROBES = ("/healthz", "/readyz")
_METHODS = ("GET", "POST")
_ID_DIGITS = 16
_USER_CHARACTERS = 256


@dataclass(slots=True)
class Call:
    """What became known of a call."""

    who: str | None = None
    account: str | None = None
    secret: str | None = None
    id: str | None = None


_CALL: ContextVar[Call] = ContextVar("call")


def met(user: str) -> None:
    """Note whose token the present call came with."""
    _CALL.get().who = user[:_USER_CHARACTERS]


def in_account(account: str) -> None:
    """Note the account that the present call is for."""
    _CALL.get().account = account


def found(name: str, secret_id: str) -> None:
    """Note the secret that the present call is about, which exists."""
    call = _CALL.get()
    call.secret, call.id = name, secret_id


class Calls:
    """Around the endpoints: counts each call, and writes its line where there is a log for it."""

    def __init__(self, app: ASGIApp, audit: logging.Logger | None) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call, and keep what is to be kept of it."""
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        known, status, started, here = Call(), 0, time.monotonic(), True

        async def heard() -> Message:
            nonlocal here
            message = await receive()
            here = here and message["type"] != "http.disconnect"
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            if here:  # what is said to nobody is no answer
                status = message.get("status", status)
            await send(message)

        before = _CALL.set(known)
        try:
            with metrics.CALLS_IN_FLIGHT.track_inprogress():
                await self._app(scope, heard, watched)
        finally:
            _CALL.reset(before)
            self._keep(known, scope, status, time.monotonic() - started)

    def _keep(self, known: Call, scope: Scope, status: int, seconds: float) -> None:
        endpoint = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        metrics.CALLS.labels(endpoint, method, f"{status // 100}xx" if status else "none").inc()
        metrics.CALL_SECONDS.labels(endpoint, method).observe(seconds)
        if self._audit:
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "who": known.who,
                "account": known.account,
                "call": f"{method} {endpoint}",
                "secret": known.secret,
                "id": known.id,
                "status": status or None,
                "ms": round(seconds * 1000, 1),
                "request": _hash(dict(scope["headers"]).get(b"x-request-id")),
                "http": scope["http_version"],
            }
            self._audit.info("%s", json.dumps(line))


def _hash(request_id: bytes | None) -> str | None:
    return hashlib.sha256(request_id).hexdigest()[:_ID_DIGITS] if request_id else None
