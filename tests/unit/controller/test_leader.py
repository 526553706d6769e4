"""Leader election: never two at once, whatever freezes, and none for longer than it may be."""

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


async def at_once() -> None:
    """Take no time."""


@dataclass
class Lease:
    """The one Lease."""

    spec: Body = field(default_factory=dict)
    version: int = 1
    writes: int = 0

    def put(self, **spec: object) -> None:
        """Have it changed."""
        self.spec = {**self.spec, **spec}
        self.version += 1

    @property
    def holder(self) -> object:
        return self.spec.get("holderIdentity")

    @property
    def body(self) -> Body:
        return {"metadata": {"resourceVersion": str(self.version)}, "spec": self.spec or None}


class LeaseWriter(Writer):
    """A replica's connection to the Lease, which is changed only at the version that was read."""

    def __init__(self, lease: Lease, pause: Callable[[], Awaitable[None]] = at_once) -> None:
        self.lease = lease
        self.pause = pause
        """What comes before each request arrives, and before its response does."""
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
    """A replica, by virtual time."""

    def __init__(self, lease: Lease, identity: str = "a") -> None:
        self.writer = LeaseWriter(lease)
        self.wall_clock_ahead = 0.0
        self.told: list[str] = []
        self.elector = LeaderElector(
            self.writer,
            "ours",
            identity,
            now,
            lambda: now() + self.wall_clock_ahead,
            reconnected=lambda is_older: self.told.append("older" if is_older else "reconnected"),
        )

    async def tries(self) -> bool:
        """Try once; tell whether it's the leader then."""
        await self.elector.acquire_or_renew()
        return self.elector.is_leader()

    async def leads_within(self, seconds: float) -> float | None:
        """Try every moment; give after how many seconds it became the leader."""
        since = now()
        while now() - since <= seconds:
            if await self.tries():
                return now() - since
            await asyncio.sleep(A_MOMENT)
        return None


async def prepared() -> None:
    """Be ready to lead at once."""


@asynccontextmanager
async def running(*jobs: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run jobs meanwhile."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        await settle()
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@in_virtual_time
async def test_a_lease_that_nobody_holds_is_acquired_at_once() -> None:
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
async def test_a_lease_that_was_given_back_is_acquired_at_once_and_the_transition_counted() -> None:
    lease = Lease({"holderIdentity": "", "leaseTransitions": 7, "renewTime": "x"})
    assert await Replica(lease).tries()
    assert lease.spec["leaseTransitions"] == 8


@in_virtual_time
async def test_a_lease_whose_transitions_are_the_most_that_it_can_count_is_acquired() -> None:
    lease = Lease({"holderIdentity": "", "leaseTransitions": 2**31 - 1})
    assert await Replica(lease).tries()
    assert lease.spec["leaseTransitions"] == 2**31 - 1


@in_virtual_time
async def test_a_lease_that_is_renewed_is_never_taken() -> None:
    lease = Lease({"holderIdentity": "other", "renewTime": "0"})
    replica = Replica(lease)
    for turn in range(20):
        assert not await replica.tries()
        await asyncio.sleep(LEASE_DURATION_SECONDS - 1)
        lease.put(renewTime=str(turn))
    assert lease.holder == "other"


@in_virtual_time
async def test_a_lease_is_taken_only_its_duration_after_its_last_change_was_seen() -> None:
    # Its renewTime is of another clock, and may be of long ago.
    lease = Lease({"holderIdentity": "other", "renewTime": "2000-01-01T00:00:00.000000Z"})
    replica = Replica(lease)
    assert await replica.leads_within(3) is None
    lease.put(renewTime="2000-01-01T00:00:01.000000Z")
    assert await replica.leads_within(20) == pytest.approx(LEASE_DURATION_SECONDS, abs=2 * A_MOMENT)
    assert lease.holder == "a"


@in_virtual_time
async def test_a_change_of_the_holder_alone_is_a_change() -> None:
    lease = Lease({"holderIdentity": "other", "renewTime": "x"})
    replica = Replica(lease)
    assert await replica.leads_within(5) is None
    lease.put(holderIdentity="third")
    assert await replica.leads_within(20) == pytest.approx(LEASE_DURATION_SECONDS, abs=2 * A_MOMENT)


@in_virtual_time
async def test_a_renewal_keeps_the_term_and_when_it_was_acquired() -> None:
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
async def test_a_lease_of_our_own_is_taken_again_at_once_in_a_new_term() -> None:
    lease = Lease()
    replica = Replica(lease)
    await replica.tries()
    term = replica.elector.term
    await asyncio.sleep(RENEW_DEADLINE_SECONDS + A_MOMENT)
    assert await replica.tries()
    assert replica.elector.term == term + 1


@in_virtual_time
async def test_a_term_counts_from_before_its_request() -> None:
    replica = Replica(Lease())
    replica.writer.pause = lambda: asyncio.sleep(0.4)
    assert await replica.tries()
    await asyncio.sleep(RENEW_DEADLINE_SECONDS - 2 * 0.4 - A_MOMENT)  # its own: the read before doesn't count
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
async def test_what_can_not_be_read_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
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
async def test_a_request_without_a_response_is_given_up_in_time() -> None:
    replica = Replica(Lease())
    replica.writer.pause = lambda: asyncio.sleep(1000)
    assert not await replica.tries()
    assert now() < RENEW_DEADLINE_SECONDS
    assert replica.elector.problem


@in_virtual_time
async def test_a_request_without_a_response_is_logged_as_such(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    replica = Replica(Lease())
    replica.writer.pause = lambda: asyncio.sleep(1000)
    await replica.tries()
    assert caplog.messages == ["cannot read or renew the Lease: no response within 3.4s"]


@in_virtual_time
async def test_a_replica_that_does_not_lead_has_observed_who_does() -> None:
    replica = Replica(Lease({"holderIdentity": "other", "renewTime": "x"}))
    assert not await replica.tries()
    assert replica.elector.problem is None


@in_virtual_time
async def test_it_tries_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
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
async def test_a_lease_that_is_released_is_free_for_the_next_at_once() -> None:
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
async def test_a_lease_that_another_one_has_by_now_is_not_released() -> None:
    lease = Lease()
    replica = Replica(lease)
    await replica.tries()
    lease.put(holderIdentity="other")
    await replica.elector.release()
    assert lease.holder == "other"


@in_virtual_time
async def test_a_lease_that_can_not_be_released_is_logged_and_not_led_by(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    replica = Replica(Lease())
    await replica.tries()
    replica.writer.error = Unreachable("GET …: no")
    await replica.elector.release()
    assert not replica.elector.is_leader()
    assert caplog.messages[-1] == "cannot release the Lease: GET …: no"


@in_virtual_time
async def test_who_leads_prepares_first() -> None:
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
async def test_who_does_not_lead_prepares_nothing() -> None:
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
async def test_what_fails_to_prepare_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
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
async def test_a_term_that_ends_by_time_alone_is_lost_and_logged(caplog: pytest.LogCaptureFixture) -> None:
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
async def test_a_lease_that_is_released_is_lost_and_logged(caplog: pytest.LogCaptureFixture) -> None:
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
async def test_each_term_is_prepared_for() -> None:
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
async def test_what_was_prepared_for_a_term_that_ended_meanwhile_is_prepared_again() -> None:
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
async def test_what_was_prepared_until_after_the_term_waits_for_the_next() -> None:
    replica = Replica(Lease())

    async with running(replica.elector.lead(lambda: asyncio.sleep(RENEW_DEADLINE_SECONDS + 1))):
        await replica.tries()
        await asyncio.sleep(RENEW_DEADLINE_SECONDS + 2)
        assert not replica.elector.leading.is_set()


class Clock:
    """A clock that goes on while a process stands still: its event loop's doesn't."""

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
    # No timer had its turn yet.
    assert not elector.is_leader()
    await elector.release()


@pytest.mark.parametrize(("frozen", "leads"), [(RENEW_DEADLINE_SECONDS - 1, True), (RENEW_DEADLINE_SECONDS, False)])
async def test_a_process_that_was_frozen_before_the_response_does_not_lead_by_it(frozen: float, leads: bool) -> None:
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
    """Stop until the test goes on with this replica: for as long as it likes."""
    yield


class SteppedReplica:
    """A replica that goes on by one request or response at a time, as the test says."""

    def __init__(self, lease: Lease, identity: str, clock: Clock) -> None:
        self.elector = LeaderElector(LeaseWriter(lease, frozen), "ours", identity, clock)
        self.busy: Coroutine[Any, Any, None] | None = None

    def step(self, *, release: bool) -> None:
        """Go on with what it's at, or begin to renew or release."""
        if self.busy is None:
            self.busy = self.elector.release() if release else self.elector.acquire_or_renew()
        try:
            self.busy.send(None)
        except StopIteration:
            self.busy = None

    def close(self) -> None:
        if self.busy:
            self.busy.close()


# Which replica goes on, after how many seconds, by how many requests and responses, and whether it may release.
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
def test_no_two_replicas_lead_at_once_and_none_but_the_holder_whatever_freezes(
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
                # In one term the Lease went to nobody else and back.
                assert transitions.setdefault(leader, lease.spec["leaseTransitions"]) == lease.spec["leaseTransitions"]
        for replica in replicas.values():
            replica.close()

    run(main())


@in_virtual_time
async def test_a_leader_that_gets_each_answer_after_three_seconds_stays_one(caplog: pytest.LogCaptureFixture) -> None:
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
    assert await replica.tries()  # refused
    assert await replica.tries()
    assert replica.writer.reads == 2
    assert (replica.elector.term, lease.writes) == (1, 2)


@in_virtual_time
async def test_a_term_ends_by_the_wall_clock_where_a_pause_stopped_the_other(caplog: pytest.LogCaptureFixture) -> None:
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
async def test_a_wall_clock_that_is_set_back_extends_no_term() -> None:
    replica = Replica(Lease())
    assert await replica.tries()
    replica.wall_clock_ahead = -1000
    await asyncio.sleep(RENEW_DEADLINE_SECONDS)
    assert not replica.elector.is_leader()


@in_virtual_time
async def test_a_lease_that_can_be_read_again_or_is_older_than_before_tells_of_a_gap() -> None:
    replica = Replica(lease := Lease(version=7))
    await replica.tries()
    await replica.tries()
    assert replica.told == []
    replica.writer.error = Unreachable("GET …: no")
    await replica.tries()
    replica.writer.error = None
    await replica.tries()
    assert replica.told == ["reconnected"]
    lease.version = 3
    await replica.tries()  # refused
    await replica.tries()
    assert replica.told == ["reconnected", "older"]


@in_virtual_time
async def test_a_leader_that_finds_another_holder_stops_at_once() -> None:
    replica = Replica(lease := Lease())
    assert await replica.tries()
    lease.put(holderIdentity="other")
    await replica.tries()  # refused
    assert not await replica.tries()
