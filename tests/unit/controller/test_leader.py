"""Leader election: never two leaders at once, even if processes freeze."""

import asyncio
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from devbox_secrets.controller.leader import (
    LEASE_DURATION_SECONDS,
    RENEW_DEADLINE_SECONDS,
    RETRY_PERIOD_SECONDS,
    LeaderElector,
)
from devbox_secrets.controller.writes import Writer
from devbox_secrets.errors import APIError, Conflict, Forbidden, Unreachable
from unit.controller.virtual_time import in_virtual_time, run, settle

Body = dict[str, Any]
A_MOMENT = 0.01
TIMELESS = {"renewTime": "", "acquireTime": ""}


async def no_pause() -> None:
    """Don't wait."""


@dataclass
class Lease:
    """The one Lease."""

    spec: Body = field(default_factory=dict)
    version: int = 1
    writes: int = 0

    def put(self, **spec: object) -> None:
        """Change it."""
        self.spec = {**self.spec, **spec}
        self.version += 1

    @property
    def holder(self) -> object:
        return self.spec.get("holderIdentity")

    @property
    def body(self) -> Body:
        return {"metadata": {"resourceVersion": str(self.version)}, "spec": self.spec or None}


class LeaseWriter(Writer):
    """A replica's access to the Lease, which it changes only at the version that it has read."""

    def __init__(self, lease: Lease, pause: Callable[[], Awaitable[None]] = no_pause) -> None:
        self.lease = lease
        self.pause = pause
        """Awaited before each request arrives, and before its response does."""
        self.error: APIError | None = None
        self.reads = 0

    async def read_lease(self, namespace: str) -> Body:
        await self._arrive(namespace)
        self.reads += 1
        body = self.lease.body
        await self.pause()
        return body

    async def write_lease(self, namespace: str, spec: Body, resource_version: str) -> Body:
        await self._arrive(namespace)
        if resource_version != str(self.lease.version):
            raise Conflict("PATCH …: 409 Conflict")
        self.lease.put(**spec)
        self.lease.writes += 1
        body = self.lease.body
        await self.pause()
        return body

    async def _arrive(self, namespace: str) -> None:
        assert namespace == "ours"
        await self.pause()
        if self.error:
            raise self.error


def now() -> float:
    return asyncio.get_running_loop().time()


class Replica:
    """A replica in virtual time."""

    def __init__(self, lease: Lease, identity: str = "a") -> None:
        self.writer = LeaseWriter(lease)
        self.wall_clock_ahead = 0.0
        self.reported: list[str] = []
        self.elector = LeaderElector(
            self.writer,
            "ours",
            identity,
            now,
            lambda: now() + self.wall_clock_ahead,
            reconnected=lambda is_older: self.reported.append("older" if is_older else "reconnected"),
        )

    async def tries(self) -> bool:
        """Try once; return whether it's the leader then."""
        await self.elector.acquire_or_renew()
        return self.elector.is_leader()

    async def leads_within(self, seconds: float) -> float | None:
        """Try repeatedly; return after how many seconds it became the leader."""
        since = now()
        while now() - since <= seconds:
            if await self.tries():
                return now() - since
            await asyncio.sleep(A_MOMENT)
        return None


async def prepared() -> None:
    """Prepare nothing."""


@asynccontextmanager
async def running(*jobs: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run jobs during the block."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        await settle()
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@in_virtual_time
async def test_a_lease_without_a_holder_is_acquired_immediately() -> None:
    lease = Lease()
    replica = Replica(lease)
    assert not replica.elector.is_leader()
    assert await replica.tries()
    assert {**lease.spec, **TIMELESS} == {
        "holderIdentity": "a",
        "leaseDurationSeconds": LEASE_DURATION_SECONDS,
        "leaseTransitions": 1,
        **TIMELESS,
    }
    assert lease.spec["renewTime"] == lease.spec["acquireTime"]


@in_virtual_time
async def test_a_released_lease_is_acquired_immediately_and_the_transition_counted() -> None:
    lease = Lease({"holderIdentity": "", "leaseTransitions": 7, "renewTime": "x"})
    assert await Replica(lease).tries()
    assert lease.spec["leaseTransitions"] == 8


@in_virtual_time
async def test_the_number_of_transitions_starts_again_after_its_maximum() -> None:
    lease = Lease({"holderIdentity": "", "leaseTransitions": 2**31 - 1})
    assert await Replica(lease).tries()
    assert lease.spec["leaseTransitions"] == 1


@in_virtual_time
async def test_a_renewed_lease_is_never_taken() -> None:
    lease = Lease({"holderIdentity": "other", "renewTime": "0"})
    replica = Replica(lease)
    for turn in range(20):
        assert not await replica.tries()
        await asyncio.sleep(LEASE_DURATION_SECONDS - 1)
        lease.put(renewTime=str(turn))
    assert lease.holder == "other"


@in_virtual_time
async def test_a_lease_is_taken_only_its_duration_after_the_last_observed_change() -> None:
    # Its renewTime is from another clock, and may be long ago.
    lease = Lease({"holderIdentity": "other", "renewTime": "2000-01-01T00:00:00.000000Z"})
    replica = Replica(lease)
    assert await replica.leads_within(3) is None
    lease.put(renewTime="2000-01-01T00:00:01.000000Z")
    assert await replica.leads_within(20) == pytest.approx(LEASE_DURATION_SECONDS, abs=2 * A_MOMENT)
    assert lease.holder == "a"


@in_virtual_time
async def test_a_change_of_only_the_holder_is_a_change() -> None:
    lease = Lease({"holderIdentity": "other", "renewTime": "x"})
    replica = Replica(lease)
    assert await replica.leads_within(5) is None
    lease.put(holderIdentity="third")
    assert await replica.leads_within(20) == pytest.approx(LEASE_DURATION_SECONDS, abs=2 * A_MOMENT)


@in_virtual_time
async def test_a_renewal_keeps_the_term_and_the_acquire_time() -> None:
    lease = Lease()
    replica = Replica(lease)
    await replica.tries()
    acquired, term = lease.spec, replica.elector.term
    await asyncio.sleep(RENEW_DEADLINE_SECONDS / 2)
    assert await replica.tries()
    assert replica.elector.term == term
    assert lease.spec["acquireTime"] == acquired["acquireTime"]
    assert lease.spec["leaseTransitions"] == 1
    assert lease.spec["renewTime"] > acquired["renewTime"]
    await asyncio.sleep(RENEW_DEADLINE_SECONDS - A_MOMENT)
    assert replica.elector.is_leader()


@in_virtual_time
async def test_without_a_renewal_the_leader_stops_by_itself_before_any_other_starts() -> None:
    lease = Lease()
    replica = Replica(lease)
    await replica.tries()
    await asyncio.sleep(RENEW_DEADLINE_SECONDS - A_MOMENT)
    assert replica.elector.is_leader()
    await asyncio.sleep(2 * A_MOMENT)
    assert not replica.elector.is_leader()
    assert RENEW_DEADLINE_SECONDS < LEASE_DURATION_SECONDS


@in_virtual_time
async def test_our_own_lease_is_acquired_again_immediately_in_a_new_term() -> None:
    lease = Lease()
    replica = Replica(lease)
    await replica.tries()
    term, transitions = replica.elector.term, replica.elector.transitions
    await asyncio.sleep(RENEW_DEADLINE_SECONDS + A_MOMENT)
    assert await replica.tries()
    assert (replica.elector.term, replica.elector.transitions) == (term + 1, transitions)


async def former_leader(lease: Lease) -> Replica:
    """Return a replica that led, and after which another one led and released the Lease."""
    replica, other = Replica(lease), Replica(lease, "b")
    assert await replica.tries()
    assert await other.leads_within(20)
    await other.elector.release()
    return replica


@in_virtual_time
async def test_the_transitions_differ_if_another_replica_has_led_between_two_terms() -> None:
    replica = await former_leader(Lease())
    transitions = replica.elector.transitions
    assert await replica.tries()
    assert replica.elector.transitions > transitions


@in_virtual_time
async def test_the_transitions_differ_even_if_the_response_to_the_acquisition_is_lost() -> None:
    lease = Lease()
    replica = await former_leader(lease)
    transitions = replica.elector.transitions
    pauses = iter([0, 0, 0, 10])  # before and after the read, and before and after the write
    replica.writer.pause = lambda: asyncio.sleep(next(pauses))
    assert not await replica.tries()
    assert lease.holder == "a"
    replica.writer.pause = no_pause
    assert await replica.tries()
    assert replica.elector.transitions > transitions


@in_virtual_time
async def test_a_term_starts_before_its_request() -> None:
    replica = Replica(Lease())
    replica.writer.pause = lambda: asyncio.sleep(0.4)
    assert await replica.tries()
    await asyncio.sleep(RENEW_DEADLINE_SECONDS - 2 * 0.4 - A_MOMENT)  # of the write: the read before it doesn't count
    assert replica.elector.is_leader()
    await asyncio.sleep(2 * A_MOMENT)
    assert not replica.elector.is_leader()


@in_virtual_time
async def test_a_lease_that_changed_since_it_was_read_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lease = Lease()
    replica = Replica(lease)
    arrivals = 0

    async def pause() -> None:
        nonlocal arrivals
        arrivals += 1
        if arrivals == 3:
            lease.put(holderIdentity="faster")

    replica.writer.pause = pause
    assert not await replica.tries()
    assert lease.holder == "faster"
    assert caplog.messages == ["conflict on the Lease: PATCH …: 409 Conflict"]


@in_virtual_time
async def test_a_lease_that_cannot_be_read_is_logged_and_read_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    replica = Replica(Lease())
    replica.writer.error = Forbidden("GET …: 403 no right")
    assert not await replica.tries()
    assert not await replica.tries()
    assert replica.elector.problem == "cannot read or renew the Lease: GET …: 403 no right"
    replica.writer.error = None
    assert await replica.tries()
    assert replica.elector.problem is None
    assert caplog.messages == ["cannot read or renew the Lease: GET …: 403 no right", "acquired the lease"]


@in_virtual_time
async def test_a_request_without_a_response_times_out_before_the_deadline() -> None:
    replica = Replica(Lease())
    replica.writer.pause = lambda: asyncio.sleep(1000)
    assert not await replica.tries()
    assert now() < RENEW_DEADLINE_SECONDS
    assert replica.elector.problem


@in_virtual_time
async def test_a_request_without_a_response_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    replica = Replica(Lease())
    replica.writer.pause = lambda: asyncio.sleep(1000)
    await replica.tries()
    assert caplog.messages == ["cannot read or renew the Lease: no response within 3.4s"]


@in_virtual_time
async def test_a_replica_that_knows_another_leader_has_no_problem() -> None:
    replica = Replica(Lease({"holderIdentity": "other", "renewTime": "x"}))
    assert not await replica.tries()
    assert replica.elector.problem is None


@in_virtual_time
async def test_the_lease_is_acquired_and_then_renewed_periodically(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lease = Lease()
    replica = Replica(lease)
    async with running(replica.elector.run()):
        await asyncio.sleep(100 * RETRY_PERIOD_SECONDS)
        assert replica.elector.is_leader()
    assert lease.writes == pytest.approx(100, abs=2)
    assert replica.elector.term == 1
    assert caplog.messages == ["acquired the lease"]


@in_virtual_time
async def test_a_released_lease_can_be_acquired_immediately() -> None:
    lease = Lease()
    first, second = Replica(lease, "a"), Replica(lease, "b")
    await first.tries()
    assert not await second.tries()
    await first.elector.release()
    assert not first.elector.is_leader()
    assert lease.holder == ""
    assert await second.tries()


@in_virtual_time
async def test_a_replica_that_does_not_lead_has_nothing_to_release() -> None:
    lease = Lease({"holderIdentity": "other", "renewTime": "x"})
    replica = Replica(lease)
    await replica.tries()
    await replica.elector.release()
    assert (lease.holder, lease.writes) == ("other", 0)


@in_virtual_time
async def test_a_lease_that_another_replica_holds_is_not_released() -> None:
    lease = Lease()
    replica = Replica(lease)
    await replica.tries()
    lease.put(holderIdentity="other")
    await replica.elector.release()
    assert lease.holder == "other"


@in_virtual_time
async def test_a_failed_release_is_logged_and_the_replica_stops_leading(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    replica = Replica(Lease())
    await replica.tries()
    replica.writer.error = Unreachable("GET …: no")
    await replica.elector.release()
    assert not replica.elector.is_leader()
    assert caplog.messages[-1] == "cannot release the Lease: GET …: no"


@in_virtual_time
async def test_a_leader_prepares_before_it_leads() -> None:
    replica = Replica(Lease())
    ready = asyncio.Event()
    prepares: list[bool] = []

    async def prepare() -> None:
        prepares.append(replica.elector.is_leader())
        await ready.wait()

    async with running(replica.elector.run(), replica.elector.lead(prepare)):
        assert prepares == [True]
        assert not replica.elector.leading.is_set()
        ready.set()
        await settle()
        assert replica.elector.leading.is_set()


@in_virtual_time
async def test_a_replica_that_does_not_lead_does_not_prepare() -> None:
    replica = Replica(Lease({"holderIdentity": "other", "renewTime": "x"}))
    prepares: list[None] = []

    async def prepare() -> None:
        prepares.append(None)

    async with running(replica.elector.lead(prepare)):
        await replica.tries()
        await settle()
        assert prepares == []
        assert not replica.elector.leading.is_set()


@in_virtual_time
async def test_a_failed_preparation_is_logged_and_retried(caplog: pytest.LogCaptureFixture) -> None:
    replica = Replica(Lease())
    failures = [Unreachable("GET …: no"), Unreachable("GET …: still no")]

    async def prepare() -> None:
        if failures:
            raise failures.pop(0)

    async with running(replica.elector.run(), replica.elector.lead(prepare)):
        assert not replica.elector.leading.is_set()
        await replica.elector.leading.wait()
    assert caplog.messages == ["cannot start leading yet: GET …: no", "cannot start leading yet: GET …: still no"]


@in_virtual_time
async def test_an_expired_lease_is_lost_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    replica = Replica(Lease())
    async with running(replica.elector.lead(prepared)):
        await replica.tries()
        await settle()
        assert replica.elector.leading.is_set()
        await asyncio.sleep(RENEW_DEADLINE_SECONDS)
        assert not replica.elector.leading.is_set()
    assert caplog.messages == ["acquired the lease", "lost the lease"]


@in_virtual_time
async def test_a_released_lease_is_lost_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    replica = Replica(Lease())
    async with running(replica.elector.lead(prepared)):
        await replica.tries()
        await settle()
        await replica.elector.release()
        await settle()
        assert not replica.elector.leading.is_set()
    assert caplog.messages == ["acquired the lease", "lost the lease"]


@in_virtual_time
async def test_a_leader_prepares_for_each_term() -> None:
    replica = Replica(Lease())
    terms: list[int] = []

    async def prepare() -> None:
        terms.append(replica.elector.term)

    async with running(replica.elector.lead(prepare)):
        for _ in range(3):
            await replica.tries()
            await settle()
            assert replica.elector.leading.is_set()
            await asyncio.sleep(RENEW_DEADLINE_SECONDS)
            assert not replica.elector.leading.is_set()
    assert terms == [1, 2, 3]


@in_virtual_time
async def test_a_preparation_that_outlasts_its_term_is_repeated_in_the_next() -> None:
    replica = Replica(Lease())
    terms: list[int] = []

    async def prepare() -> None:
        terms.append(replica.elector.term)
        if len(terms) == 1:
            await asyncio.sleep(RENEW_DEADLINE_SECONDS + 1)

    async with running(replica.elector.lead(prepare)):
        await replica.tries()
        await asyncio.sleep(RENEW_DEADLINE_SECONDS + A_MOMENT)
        await replica.tries()
        await settle()
        assert not replica.elector.leading.is_set()
        await asyncio.sleep(1)
        assert replica.elector.leading.is_set()
    assert terms == [1, 2]


@in_virtual_time
async def test_after_a_preparation_that_outlasts_its_term_the_replica_does_not_lead() -> None:
    replica = Replica(Lease())

    async with running(replica.elector.lead(lambda: asyncio.sleep(RENEW_DEADLINE_SECONDS + 1))):
        await replica.tries()
        await asyncio.sleep(RENEW_DEADLINE_SECONDS + 2)
        assert not replica.elector.leading.is_set()


class Clock:
    """A clock that continues while a process is frozen, unlike the one of its event loop."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_process_that_was_frozen_finds_its_term_expired() -> None:
    clock = Clock()
    elector = LeaderElector(LeaseWriter(Lease()), "ours", "a", clock)
    await elector.acquire_or_renew()
    assert elector.is_leader()
    clock.now += RENEW_DEADLINE_SECONDS
    # No timer has fired yet.
    assert not elector.is_leader()
    await elector.release()


@pytest.mark.parametrize(("frozen", "leads"), [(RENEW_DEADLINE_SECONDS - 1, True), (RENEW_DEADLINE_SECONDS, False)])
async def test_a_process_that_was_frozen_before_the_response_does_not_lead_after_the_deadline(
    frozen: float, leads: bool
) -> None:
    clock, lease = Clock(), Lease()

    async def pause() -> None:
        if lease.writes:
            clock.now += frozen

    elector = LeaderElector(LeaseWriter(lease, pause), "ours", "a", clock)
    await elector.acquire_or_renew()
    assert lease.holder == "a"
    assert elector.is_leader() is leads
    assert elector.term == (1 if leads else 0)


@types.coroutine
def frozen() -> Generator[None, None, None]:
    """Pause until the test continues with this replica."""
    yield


class SteppedReplica:
    """A replica that the test advances by one request or response at a time."""

    def __init__(self, lease: Lease, identity: str, clock: Clock) -> None:
        self.elector = LeaderElector(LeaseWriter(lease, frozen), "ours", identity, clock)
        self.busy: Coroutine[Any, Any, None] | None = None

    def step(self, *, release: bool) -> None:
        """Continue the current operation, or start to renew or release."""
        if self.busy is None:
            self.busy = self.elector.release() if release else self.elector.acquire_or_renew()
        try:
            self.busy.send(None)
        except StopIteration:
            self.busy = None

    def close(self) -> None:
        if self.busy:
            self.busy.close()


# Which replica continues, after how many seconds, by how many requests and responses; it releases if the last is 0.
steps = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from([0, 0, 0.1, 2, 3.9, 6]),
        st.sampled_from([1, 2, 3, 5, 5]),
        st.integers(0, 9),
    ),
    min_size=3,
    max_size=30,
)


@settings(deadline=None)
@given(steps=steps)
@example(steps=[("a", 0, 5, 1), ("b", 0, 5, 1), ("b", LEASE_DURATION_SECONDS, 5, 1)])
@example(steps=[("a", 0, 3, 1), ("a", 3.9, 2, 1), ("b", 0, 5, 1), ("a", 3.9, 5, 1), ("b", 2.1, 5, 1)])
def test_only_the_holder_leads_even_if_replicas_freeze(
    steps: list[tuple[str, float, int, int]],
) -> None:
    async def main() -> None:
        clock, lease = Clock(), Lease()
        replicas = {identity: SteppedReplica(lease, identity, clock) for identity in "abc"}
        transitions: dict[tuple[str, int], int] = {}
        for identity, seconds, times, dice in steps:
            clock.now += seconds
            for _ in range(times):
                replicas[identity].step(release=dice == 0)
            leaders = {name: each.elector.term for name, each in replicas.items() if each.elector.is_leader()}
            assert list(leaders) in ([], [lease.holder])
            for leader in leaders.items():
                # During a term, the Lease didn't go to another replica and back.
                assert transitions.setdefault(leader, lease.spec["leaseTransitions"]) == lease.spec["leaseTransitions"]
        for replica in replicas.values():
            replica.close()

    run(main())


@in_virtual_time
async def test_a_leader_with_slow_responses_stays_the_leader(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    replica, other = Replica(lease := Lease()), Replica(lease, "b")
    replica.writer.pause = other.writer.pause = lambda: asyncio.sleep(1.5)
    async with running(replica.elector.run()):
        await asyncio.sleep(7)
        async with running(other.elector.run()):
            for _ in range(1000):
                assert replica.elector.is_leader()
                assert not other.elector.is_leader()
                await asyncio.sleep(0.1)
    assert caplog.messages == ["acquired the lease"]


@in_virtual_time
async def test_a_leader_renews_without_reading() -> None:
    replica = Replica(lease := Lease())
    async with running(replica.elector.run()):
        await asyncio.sleep(10 * RETRY_PERIOD_SECONDS)
    assert replica.writer.reads == 1
    assert lease.writes > 5


@in_virtual_time
async def test_a_leader_whose_lease_was_changed_reads_it_again() -> None:
    replica = Replica(lease := Lease())
    assert await replica.tries()
    lease.put(renewTime="of someone else")
    assert await replica.tries()  # rejected
    assert await replica.tries()
    assert replica.writer.reads == 2
    assert (replica.elector.term, lease.writes) == (1, 2)


@in_virtual_time
async def test_a_term_ends_by_the_wall_clock_if_the_other_clock_stopped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    replica = Replica(Lease())
    async with running(replica.elector.lead(prepared)):
        assert await replica.tries()
        await settle()
        replica.wall_clock_ahead = RENEW_DEADLINE_SECONDS
        assert not replica.elector.is_leader()
        assert await replica.tries()
        await settle()
        assert replica.elector.leading.is_set()
    assert replica.elector.term == 2
    assert caplog.messages == ["acquired the lease", "acquired the lease", "lost the lease"]


@in_virtual_time
async def test_setting_the_wall_clock_back_does_not_extend_a_term() -> None:
    replica = Replica(Lease())
    assert await replica.tries()
    replica.wall_clock_ahead = -1000
    await asyncio.sleep(RENEW_DEADLINE_SECONDS)
    assert not replica.elector.is_leader()


@in_virtual_time
async def test_a_reconnection_and_a_lease_older_than_before_are_reported() -> None:
    replica = Replica(lease := Lease(version=7))
    await replica.tries()
    await replica.tries()
    assert replica.reported == []
    replica.writer.error = Unreachable("GET …: no")
    await replica.tries()
    replica.writer.error = None
    await replica.tries()
    assert replica.reported == ["reconnected"]
    lease.version = 3
    await replica.tries()  # rejected
    await replica.tries()
    assert replica.reported == ["reconnected", "older"]


@in_virtual_time
async def test_a_leader_that_finds_another_holder_stops_leading() -> None:
    replica = Replica(lease := Lease())
    assert await replica.tries()
    lease.put(holderIdentity="other")
    await replica.tries()  # rejected
    assert not await replica.tries()
