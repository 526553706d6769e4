"""Leader election by a Lease: decides whether this replica may write.

Clocks are never compared between machines: a replica waits from when it saw the Lease change last,
and the leader stops by itself, earlier than any other would start. A process that was frozen finds
its term expired when it wakes. What was on its way by then is refused by its resourceVersion.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from devbox_secrets.controller.writes import Writer
from devbox_secrets.errors import APIError

LOG = logging.getLogger(__name__)

#: Seconds for which the others leave a holder alone that doesn't renew.
LEASE_DURATION_SECONDS = 6
#: Seconds after its last renewal for which the leader itself goes on writing.
RENEW_DEADLINE_SECONDS = 4.0
#: Seconds from one try to acquire or renew the Lease to the next.
RETRY_PERIOD_SECONDS = 1.0
#: An int32: anyone may have written the largest.
_MOST_TRANSITIONS = 2**31 - 1
_REQUEST_SECONDS = 2.0
_PREPARE_RETRY_SECONDS = 1.0


class LeaderElector:
    """Acquires, renews, loses and releases the Lease; the one place that knows whether this replica leads."""

    def __init__(
        self,
        writer: Writer,
        namespace: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
        reconnected: Callable[[], None] = lambda: None,
    ) -> None:
        self.observed = False
        """Whether the Lease could be read yet."""
        self.term = 0
        """Counts how often it was acquired: at two moments of one term nobody else led in between."""
        self.leading = asyncio.Event()
        """Set while this replica leads and is prepared to: what works waits for it."""
        self._writer = writer
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._reconnected = reconnected
        self._failed = False
        self._until = float("-inf")
        self._acquired = asyncio.Event()
        self._lost = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._seen: tuple[str, str] | None = None
        self._seen_at = float("-inf")

    def is_leader(self) -> bool:
        """Tell whether this replica may write now."""
        return self._clock() < self._until

    async def run(self) -> None:
        """Acquire the Lease when it's free, renew it while it's ours."""
        while True:
            await self.acquire_or_renew()
            await asyncio.sleep(RETRY_PERIOD_SECONDS)

    async def lead(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """In each term: prepare, and let those who wait for `leading` go on until the Lease is lost."""
        while True:
            await self._acquired.wait()
            term = self.term
            try:
                await prepare()
            except Exception as error:  # noqa: BLE001 - no one object keeps every replica from leading
                reason = str(error) if isinstance(error, APIError) else type(error).__name__
                LOG.warning("not ready to write yet: %s", reason)
                await asyncio.sleep(_PREPARE_RETRY_SECONDS)
                continue
            if term != self.term or not self.is_leader():
                continue
            self.leading.set()
            await self._lost.wait()
            self.leading.clear()
            LOG.info("lost the lease")

    async def acquire_or_renew(self) -> None:
        """Try once; what can't be read or written is tried again the next time.

        Nothing else asks the API server as often, so this is also what notices when it's back: `reconnected` is called.
        """
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                await self._acquire_or_renew()
        except (APIError, TimeoutError) as error:
            LOG.info("the Lease: %s", str(error) or "no answer")
            self._failed = True
        else:
            self.observed = True
            if self._failed:
                self._failed = False
                self._reconnected()

    async def release(self) -> None:
        """Give the Lease back, so that the next leader needn't wait."""
        if not self.is_leader():
            return
        self._expire()
        try:
            body = await self._writer.read_lease(self._namespace)
            if (body.get("spec") or {}).get("holderIdentity") == self._identity:
                await self._writer.write_lease(self._namespace, {"holderIdentity": ""}, _version(body))
        except APIError as error:
            LOG.info("the Lease can't be released: %s", error)

    async def _acquire_or_renew(self) -> None:
        asked = self._clock()
        body = await self._writer.read_lease(self._namespace)
        spec = body.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        seen = holder, spec.get("renewTime", "")
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        alive = self._clock() < self._seen_at + LEASE_DURATION_SECONDS
        if holder not in {"", self._identity} and alive:
            return
        await self._writer.write_lease(self._namespace, self._claim(spec, holder), _version(body))
        # From before the request: the others count from when they see its result.
        self._extend(asked + RENEW_DEADLINE_SECONDS)

    def _extend(self, until: float) -> None:
        """Lead until a time of the clock, in a new term unless the last one goes on."""
        if not self.is_leader():
            self._expire()
            if until <= self._clock():
                return  # frozen between the request and its response
            self.term += 1
            LOG.info("acquired the lease")
        self._until = until
        if self._expiry:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(until - self._clock(), self._expire)
        self._lost.clear()
        self._acquired.set()

    def _expire(self) -> None:
        """End the term: also for those who wait for that, whom time alone doesn't wake."""
        self._until = float("-inf")
        if self._expiry:
            self._expiry.cancel()
        self._acquired.clear()
        self._lost.set()

    def _claim(self, spec: dict[str, Any], holder: str) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        claim = {"holderIdentity": self._identity, "leaseDurationSeconds": LEASE_DURATION_SECONDS, "renewTime": now}
        if holder == self._identity:
            return claim
        transitions = min(spec.get("leaseTransitions", 0) + 1, _MOST_TRANSITIONS)
        return {**claim, "acquireTime": now, "leaseTransitions": transitions}


def _version(body: dict[str, Any]) -> str:
    version: str = body["metadata"]["resourceVersion"]
    return version
