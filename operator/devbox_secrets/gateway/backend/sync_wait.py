"""Waits until a written value has reached the account Secret.

It reads the AccountSecret's status with the caller's token, so the caller needs no permission to read Secrets.
"""

import asyncio
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import chain, repeat

from devbox_secrets.api.models import Condition, read_status
from devbox_secrets.api.names import account_secrets_path
from devbox_secrets.errors import APIError, Forbidden, NotFound, Unauthorized
from devbox_secrets.gateway.backend.auth import Caller
from devbox_secrets.gateway.backend.record import Record
from devbox_secrets.gateway.backend.upstream import Body, Upstream
from devbox_secrets.gateway.contract.errors import ErrorResponse, not_found, service_unavailable

#: Pauses between reads without a watch; most values are synced within a second.
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
#: How many requests may wait at one replica: each has a connection to the API server, which takes a third of a MiB.
_MAX_WAITING = 500


class SyncWaiter:
    """The requests that wait at this replica."""

    def __init__(self, upstream: Upstream, timeout_seconds: float) -> None:
        self._upstream = upstream
        self._timeout_seconds = timeout_seconds
        self._timeouts: set[asyncio.Timeout] = set()

    async def wait(self, caller: Caller, record: Record) -> None:
        """Wait until the account Secrets in all namespaces of the account contain a record's value.

        Raises:
            ErrorResponse: it needs someone to act, or it timed out; the secret exists in either case.
            APIError: the token has expired, or the secret was deleted.
        """
        if len(self._timeouts) >= _MAX_WAITING:
            raise service_unavailable("the secret was written, but too many requests are already waiting")
        try:
            async with asyncio.timeout(self._timeout_seconds) as timeout:
                self._timeouts.add(timeout)
                ready = await _Wait(self._upstream, caller, record).ready()
        except TimeoutError:
            raise service_unavailable(
                "the secret was written, but devboxes don't have the value yet; to keep waiting, use the same"
                " x-request-id"
            ) from None
        finally:
            self._timeouts.discard(timeout)
        if not ready.holds:
            # The operator's message, which the caller may read in the status; by design it contains no value.
            raise ErrorResponse(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"the secret was written, but devboxes don't get its value: {ready.message}",
            )

    def stop(self) -> None:
        """End all waits, including later ones, since the process is stopping; another replica takes over."""
        self._timeout_seconds = 0
        for timeout in self._timeouts:
            timeout.reschedule(asyncio.get_running_loop().time())


@dataclass(slots=True)
class _Wait:
    """One wait for the condition Ready of one AccountSecret."""

    upstream: Upstream
    caller: Caller
    record: Record
    has_seen: bool = field(default=False, init=False)
    """Whether the caller has read the AccountSecret, and so is allowed to."""

    async def ready(self) -> Condition:
        """Return the condition Ready once it is final for the record's generation."""
        look = self._watch
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            try:
                if ready := await look():
                    return ready
            except APIError as error:
                # Only before the first read: a starting API server briefly knows no tokens, roles or kinds.
                match error:
                    case Forbidden() if not self.has_seen and look == self._watch:
                        look = self._read  # a role without `watch`
                        continue
                    case Forbidden() if not self.has_seen:
                        raise _not_visible() from None
                    case Unauthorized() | NotFound() if not self.has_seen:
                        raise
                    case NotFound() if look == self._read:
                        raise
            # The API server is unavailable or closed the watch, or there is no watch.
            await asyncio.sleep(pause)
        raise AssertionError  # the pauses don't end

    async def _watch(self) -> Condition | None:
        # Without a resourceVersion, the current state comes first; a retry may never see another event.
        query = {"fieldSelector": f"metadata.name={self.record.id.name}", "timeoutSeconds": "60"}
        path = account_secrets_path(self.caller.account)
        return await self.upstream.watch(self.caller.token, path, query, self._see)

    async def _read(self) -> Condition | None:
        path = account_secrets_path(self.caller.account, self.record.id.name)
        return self._see("MODIFIED", await self.upstream.request(self.caller.token, "GET", path))

    def _see(self, event: str, body: Body) -> Condition | None:
        self.has_seen = True
        if body["metadata"]["uid"] != str(self.record.id.uid):
            return None  # another object that had or has the same name
        if event == "DELETED":
            raise not_found()
        status, _ = read_status(body.get("status"))
        return status.decided(self.record.generation)


def _not_visible() -> ErrorResponse:
    return ErrorResponse(
        HTTPStatus.FORBIDDEN,
        "the secret was written, but the token's user can't read its status; grant the role devbox-secrets-edit,"
        " or omit wait",
    )
