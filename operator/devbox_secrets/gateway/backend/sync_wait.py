"""Waits until a written value has reached the account Secret.

It reads the AccountSecret's status with the caller's token: the caller needn't be allowed to read Secrets.
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

#: Between two reads where there is no watch: most of what is synced is synced within a second.
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
#: How many requests may wait at one replica: each has a connection to the API server, a third of a MiB here.
_MAX_WAITING = 500


class SyncWaiter:
    """The requests that wait at this replica."""

    def __init__(self, upstream: Upstream, timeout_seconds: float) -> None:
        self._upstream = upstream
        self._timeout_seconds = timeout_seconds
        self._timeouts: set[asyncio.Timeout] = set()

    async def wait(self, caller: Caller, record: Record) -> None:
        """Wait until the account Secret holds a record's value, in all namespaces of the account.

        Raises:
            ErrorResponse: it won't before someone acts, or hasn't in time; the secret exists in either case.
            APIError: the token has expired, or the secret was deleted.
        """
        if len(self._timeouts) >= _MAX_WAITING:
            raise service_unavailable(
                "the secret is written, but too many calls wait here already for devboxes to have theirs"
            )
        try:
            async with asyncio.timeout(self._timeout_seconds) as timeout:
                self._timeouts.add(timeout)
                ready = await _Wait(self._upstream, caller, record).ready()
        except TimeoutError:
            raise service_unavailable(
                "the secret is written, but devboxes don't have the value yet; with the same x-request-id a call"
                " goes on waiting"
            ) from None
        finally:
            self._timeouts.discard(timeout)
        if not ready.holds:
            # The operator's sentence, which the caller may read in the status: by design it holds no value.
            raise ErrorResponse(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"the secret is there, but devboxes don't get this value: {ready.message}",
            )

    def stop(self) -> None:
        """End all waits, and later ones at once, since the process is stopping: another replica goes on."""
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
    """Whether the caller has seen the AccountSecret, and so may see it."""

    async def ready(self) -> Condition:
        """Give the condition Ready once it's about the record's generation and stays as it is."""
        look = self._watch
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            try:
                if ready := await look():
                    return ready
            except APIError as error:
                # Only before the first sight: a starting API server knows neither tokens, roles nor kinds for a moment.
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
            # The API server is away, or ended the watch, or there is none.
            await asyncio.sleep(pause)
        raise AssertionError  # the pauses don't end

    async def _watch(self) -> Condition | None:
        # Without a resourceVersion: the current state comes first, and for a retry nothing else may ever come.
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
        "the secret is written, but the token's user may not see what becomes of it: the role devbox-secrets-edit lets"
        " it; or call without wait",
    )
