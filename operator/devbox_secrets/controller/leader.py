"""Leader election with a Lease: decides whether this replica may write.

Clocks are never compared between machines: a replica counts from when it last saw the Lease change,
and the leader stops on its own, before any other replica starts. A process that was frozen finds its
term expired when it resumes. So does one whose machine was paused: there the monotonic clock stops too,
but the wall clock is set forward, so a term expires by whichever clock is ahead. A write that is sent
before a clock shows this fails because of its resourceVersion, as does one that was already in flight.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from devbox_secrets.controller.writes import Writer
from devbox_secrets.errors import APIError, Conflict, RequestTimeout
from devbox_secrets.kube.client import Body

LOG = logging.getLogger(__name__)

#: Seconds for which other replicas accept a holder that doesn't renew.
LEASE_DURATION_SECONDS = 9
#: Seconds after its last renewal for which the leader keeps writing.
RENEW_DEADLINE_SECONDS = 7.0
#: Seconds between the starts of two attempts to acquire or renew the Lease.
RETRY_PERIOD_SECONDS = 1.0
#: leaseTransitions is an int32, and someone may have written its maximum.
_MOST_TRANSITIONS = 2**31 - 1
#: Two renewals fit into the deadline: a leader stays leader even if each response takes three seconds.
_REQUEST_SECONDS = 3.4
_PREPARE_RETRY_SECONDS = 1.0


class LeaderElector:
    """Acquires, renews, loses and releases the Lease; the only place that knows whether this replica leads."""

    def __init__(
        self,
        writer: Writer,
        namespace: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        reconnected: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.problem: str | None = "the Lease has not been read yet"
        """Why the Lease couldn't be read or renewed the last time; None if it could."""
        self.term = 0
        """How often the Lease was acquired: within one term, no other replica has led."""
        self.transitions = 0
        """The Lease's leaseTransitions; if it's the same in two terms, no other replica has led between them."""
        self.leading = asyncio.Event()
        """Set while this replica leads and is prepared; the workers wait for it."""
        self._writer = writer
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._wall_clock = wall_clock
        self._reconnected = reconnected
        self._until = self._until_by_wall = float("-inf")
        self._acquired = asyncio.Event()
        self._lost = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._seen: tuple[str, str] | None = None
        self._seen_at = float("-inf")
        # The Lease after our last renewal.
        self._renewed: Body | None = None
        self._version = 0

    def is_leader(self) -> bool:
        """Return whether this replica may write now."""
        return self._clock() < self._until and self._wall_clock() < self._until_by_wall

    async def run(self) -> None:
        """Acquire the Lease when it's free, and renew it while it's ours."""
        while True:
            started = self._clock()
            await self.acquire_or_renew()
            await asyncio.sleep(max(started + RETRY_PERIOD_SECONDS - self._clock(), 0))

    async def lead(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """In each term, prepare, then set `leading` until the Lease is lost."""
        while True:
            await self._acquired.wait()
            term = self.term
            try:
                await prepare()
            except Exception as error:  # noqa: BLE001 - no single object keeps every replica from leading
                reason = str(error) if isinstance(error, APIError) else type(error).__name__
                LOG.warning("cannot start leading yet: %s", reason)
                await asyncio.sleep(_PREPARE_RETRY_SECONDS)
                continue
            if term != self.term or not self.is_leader():
                continue
            self.leading.set()
            await self._lost.wait()
            self.leading.clear()
            LOG.info("lost the lease")

    async def acquire_or_renew(self) -> None:
        """Try once; after a failure, `run` tries again.

        No other request is as frequent, so this also notices when the API server is back: `reconnected` is called, with
        whether the Lease is older than before, as after a restore of etcd from a snapshot.
        """
        version = self._version
        try:
            await self._acquire_or_renew()
        except Conflict as error:
            LOG.info("conflict on the Lease: %s", error)
        except APIError as error:
            if self.problem != (problem := f"cannot read or renew the Lease: {error}"):
                LOG.warning("%s", problem)
            self.problem = problem
        else:
            gap, self.problem = self.problem, None
            is_older = self._version < version
            if version and (gap or is_older):
                self._reconnected(is_older)

    async def release(self) -> None:
        """Release the Lease, so that the next leader needn't wait."""
        if not self.is_leader():
            return
        self._expire()
        try:
            lease = await self._read()
            if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                await self._write({"holderIdentity": ""}, lease)
        except APIError as error:
            LOG.info("cannot release the Lease: %s", error)

    async def _acquire_or_renew(self) -> None:
        # A leader needn't read first: if someone else wrote the Lease, the renewal fails.
        lease, self._renewed = (self._renewed if self.is_leader() else None), None
        if lease is None:
            lease = await self._read()
        spec = lease.get("spec") or {}
        holder, renew_time = spec.get("holderIdentity") or "", spec.get("renewTime", "")
        if (holder, renew_time) != self._seen:
            self._seen, self._seen_at = (holder, renew_time), self._clock()
        alive = self._clock() < self._seen_at + LEASE_DURATION_SECONDS
        if holder not in {"", self._identity} and alive:
            self._expire()  # if it was ours, someone cleared or replaced the Lease
            return
        # Counted from before the request: other replicas count from when they see its result.
        asked, asked_by_wall = self._clock(), self._wall_clock()
        self._renewed = await self._write(self._claim(spec, holder), lease)
        self.transitions = self._renewed["spec"].get("leaseTransitions", 0)
        self._extend(asked + RENEW_DEADLINE_SECONDS, asked_by_wall + RENEW_DEADLINE_SECONDS)

    async def _read(self) -> Body:
        return self._note(await _in_time(self._writer.read_lease(self._namespace)))

    async def _write(self, spec: Body, lease: Body) -> Body:
        write = self._writer.write_lease(self._namespace, spec, lease["metadata"]["resourceVersion"])
        return self._note(await _in_time(write))

    def _note(self, lease: Body) -> Body:
        self._version = int(lease["metadata"]["resourceVersion"])
        return lease

    def _extend(self, until: float, until_by_wall: float) -> None:
        """Lead until these times; start a new term unless the last one still runs."""
        if not self.is_leader():
            self._expire()
            if until <= self._clock() or until_by_wall <= self._wall_clock():
                return  # frozen between the request and its response
            self.term += 1
            LOG.info("acquired the lease")
        self._until, self._until_by_wall = until, until_by_wall
        if self._expiry:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(until - self._clock(), self._expire)
        self._lost.clear()
        self._acquired.set()

    def _expire(self) -> None:
        """End the term and wake those who wait for that; the clocks by themselves don't wake them."""
        self._until = float("-inf")
        if self._expiry:
            self._expiry.cancel()
        self._acquired.clear()
        self._lost.set()

    def _claim(self, spec: Body, holder: str) -> Body:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        claim = {"holderIdentity": self._identity, "leaseDurationSeconds": LEASE_DURATION_SECONDS, "renewTime": now}
        if holder == self._identity:
            return claim
        transitions = spec.get("leaseTransitions", 0) % _MOST_TRANSITIONS + 1
        return {**claim, "acquireTime": now, "leaseTransitions": transitions}


async def _in_time(request: Awaitable[Body]) -> Body:
    """Abort a request early enough for another one."""
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            return await request
    except TimeoutError:
        raise RequestTimeout(f"no response within {_REQUEST_SECONDS}s") from None
