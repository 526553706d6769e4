"""The Lease: which of the replicas may write, and until when. Imports cluster.

Clocks are never compared between machines: a replica waits from when it saw the Lease change last,
and the holder stops by itself, earlier than any other would start. A process that was frozen finds
its right expired when it wakes. What was on its way by then is refused by its resourceVersion.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from devbox_secrets.cluster import Cluster
from devbox_secrets.errors import ClusterError

LOG = logging.getLogger(__name__)

#: Seconds for which the others leave a holder alone that doesn't renew.
DURATION_SECONDS = 6
#: Seconds after its last renewal for which the holder itself goes on writing.
RENEW_SECONDS = 4.0
#: Seconds from one look at the Lease to the next.
RETRY_SECONDS = 1.0
_REQUEST_SECONDS = 2.0
_GLANCE_SECONDS = 0.05


class Lease:
    """The right to write: gained, kept, lost and given back."""

    def __init__(
        self, cluster: Cluster, namespace: str, identity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.known = False
        """Whether the Lease could be read yet."""
        self.term = 0
        """Counts how often it was gained: two looks in one term had nobody else in between."""
        self._cluster = cluster
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._until = float("-inf")
        self._seen: tuple[str, str] | None = None
        self._seen_at = float("-inf")

    def held(self) -> bool:
        """Tell whether this replica may write now."""
        return self._clock() < self._until

    async def gained(self) -> int:
        """Wait until it's held, and give the term."""
        while not self.held():  # noqa: ASYNC110 - time alone can end it
            await asyncio.sleep(_GLANCE_SECONDS)
        return self.term

    async def over(self, term: int) -> None:
        """Wait until a term is over."""
        while self.held() and self.term == term:  # noqa: ASYNC110 - time alone can end it
            await asyncio.sleep(_GLANCE_SECONDS)

    async def keep(self) -> None:
        """Look at the Lease again and again; take it when it's free, renew it while it's ours."""
        while True:
            await self.look()
            await asyncio.sleep(RETRY_SECONDS)

    async def look(self) -> None:
        """Look once; what can't be read or written is tried again the next time."""
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                await self._look()
        except (ClusterError, TimeoutError) as error:
            LOG.info("the Lease: %s", error or "no answer")
        else:
            self.known = True

    async def release(self) -> None:
        """Give it back, so that the next needn't wait."""
        if not self.held():
            return
        self._until = float("-inf")
        try:
            body = await self._cluster.read_lease(self._namespace)
            if (body.get("spec") or {}).get("holderIdentity") == self._identity:
                await self._cluster.write_lease(self._namespace, {"holderIdentity": ""}, _version(body))
        except ClusterError as error:
            LOG.info("the Lease can't be given back: %s", error)

    async def _look(self) -> None:
        asked = self._clock()
        body = await self._cluster.read_lease(self._namespace)
        spec = body.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        seen = holder, spec.get("renewTime", "")
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        alive = self._clock() < self._seen_at + DURATION_SECONDS
        if holder not in {"", self._identity} and alive:
            return
        await self._cluster.write_lease(self._namespace, self._claim(spec, holder), _version(body))
        if not self.held():
            self.term += 1
            LOG.info("this replica writes now")
        # From before the question: the others count from when they see the answer.
        self._until = asked + RENEW_SECONDS

    def _claim(self, spec: dict[str, Any], holder: str) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        claim = {"holderIdentity": self._identity, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now}
        if holder == self._identity:
            return claim
        return {**claim, "acquireTime": now, "leaseTransitions": spec.get("leaseTransitions", 0) + 1}


def _version(body: dict[str, Any]) -> str:
    version: str = body["metadata"]["resourceVersion"]
    return version
