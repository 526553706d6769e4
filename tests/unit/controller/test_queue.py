"""The queue: each name once, newest first, fair to names with few changes, and with backoff for each name."""

import asyncio
import tracemalloc
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devbox_secrets.controller.queue import WorkQueue
from unit.controller.virtual_time import run


def now() -> float:
    return asyncio.get_running_loop().time()


async def take(queue: WorkQueue) -> str:
    return (await queue.get())[0]


async def take_all(queue: WorkQueue) -> list[str]:
    return [await take(queue) for _ in range(len(queue))]


async def work_off(queue: WorkQueue) -> None:
    for name in await take_all(queue):
        queue.done(name)


def test_the_newest_name_is_first() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["a", "b"])
        queue.add(["c"])
        assert await take_all(queue) == ["c", "b", "a"]

    run(main())


def test_a_name_waits_once_at_its_last_position() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["a", "b", "c"])
        queue.add(["a"])
        assert len(queue) == 3
        assert await take_all(queue) == ["a", "c", "b"]

    run(main())


def test_a_flood_of_changes_does_not_delay_a_single_one() -> None:
    async def main() -> None:
        queue = WorkQueue()
        floods = [f"flood {number}" for number in range(100)]
        for _ in range(10):
            queue.add(floods)
        for _ in range(20):
            queue.add(["single"])
            queue.add(floods)
            assert await take(queue) == "single"
            queue.done("single")
            queue.done(await take(queue))

    run(main())


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize(("changes", "first"), [(3, "several"), (4, "single")])
def test_up_to_three_changes_do_not_move_a_name_back(small: bool, changes: int, first: str) -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["single"])
        for _ in range(changes):
            queue.add(["several"])
        assert (await queue.get(small=small))[0] == first

    run(main())


def test_a_flood_of_a_new_name_is_behind_a_single_change_of_one_that_had_its_fair_share() -> None:
    async def main() -> None:
        queue = WorkQueue()
        for _ in range(10):
            queue.add(["a", "b"])
            await work_off(queue)
        queue.add(["a"])
        for _ in range(5):
            queue.add(["new"])
        assert await take(queue) == "a"

    run(main())


def test_a_former_flood_does_not_count_after_the_queue_was_empty() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["other"])
        for _ in range(100):
            queue.add(["flood"])
        await work_off(queue)
        worker = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        for name in 5 * ["new"] + 5 * ["flood"]:
            queue.add([name])
        assert (await worker)[0] == "flood"  # the newest

    run(main())


def test_a_worker_for_small_accounts_leaves_a_flood_to_others() -> None:
    async def main() -> None:
        queue = WorkQueue()
        floods = ["flood 1", "flood 2"]
        for _ in range(10):
            queue.add(floods)
        small = asyncio.create_task(queue.get(small=True))
        await asyncio.sleep(1)
        assert not small.done()
        queue.add(["single"])
        assert (await small)[0] == "single"
        assert sorted(await take_all(queue)) == floods

    run(main())


def test_a_worker_for_small_accounts_takes_the_small_rest_of_a_flood() -> None:
    async def main() -> None:
        queue = WorkQueue()
        for _ in range(10):
            queue.add(["flood"])
        small = asyncio.create_task(queue.get(small=True))
        assert await take(queue) == "flood"
        queue.add(["flood"])
        queue.done("flood")
        await asyncio.sleep(1)
        assert (await small)[0] == "flood"

    run(main())


def test_a_worker_for_small_accounts_takes_a_single_change_of_one_that_had_more_than_its_share() -> None:
    async def main() -> None:
        queue = WorkQueue()
        for _ in range(10):
            queue.add(f"flood {number}" for number in range(100))
        for _ in range(50):
            queue.add(["single"])
            assert (await queue.get(small=True))[0] == "single"
            queue.done("single")

    run(main())


def test_of_small_accounts_the_one_that_had_fewer_changes_comes_first() -> None:
    async def main() -> None:
        queue = WorkQueue()
        for _ in range(10):
            queue.add(["flood"])
        for _ in range(10):
            queue.add(["often"])
            queue.done((await queue.get(small=True))[0])
        queue.add(["seldom"])
        queue.add(["often"])
        assert (await queue.get(small=True))[0] == "seldom"

    run(main())


def test_a_worker_for_small_accounts_leaves_one_that_has_got_more_changes_meanwhile() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["a"])
        for _ in range(10):
            queue.add(["a"])
        small = asyncio.create_task(queue.get(small=True))
        await asyncio.sleep(1)
        assert not small.done()
        assert await take(queue) == "a"
        small.cancel()

    run(main())


def test_the_memory_does_not_grow_while_a_worker_for_small_accounts_has_none_to_wait_for() -> None:
    async def main() -> None:
        queue = WorkQueue()
        tracemalloc.start()
        for _ in range(5000):
            queue.add(["often"])
            name = (await queue.get(small=True))[0]
            queue.add(["other"])
            queue.done(await take(queue))
            queue.add(["often"])
            queue.done(name)
        assert tracemalloc.get_traced_memory()[0] < 100_000
        tracemalloc.stop()

    run(main())


def test_the_memory_does_not_grow_while_the_queue_is_never_empty() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["first"])
        tracemalloc.start()
        for number in range(5000):
            queue.add([f"{number % 2}", f"{number % 2}"])
            queue.done(await take(queue))
        assert tracemalloc.get_traced_memory()[0] < 100_000
        tracemalloc.stop()

    run(main())


def test_the_time_to_enqueue_a_name_does_not_grow_with_the_backlog() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(str(number) for number in range(30_000))  # if it grew, this would time out
        assert len(queue) == 30_000

    run(main())


def test_continuous_single_changes_do_not_delay_a_flood_forever() -> None:
    async def main() -> None:
        queue = WorkQueue()
        for _ in range(10):
            queue.add(["flood"])
        taken = []
        for _ in range(30):
            queue.add(["single"])
            taken.append(await take(queue))
            queue.done(taken[-1])
        assert "flood" in taken

    run(main())


def test_a_name_that_changes_after_its_turn_is_before_the_rest_of_the_backlog() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(str(number) for number in range(1000))
        queue.done(first := await take(queue))
        queue.add([first])
        assert await take(queue) == first

    run(main())


def test_a_worker_waits_for_a_name() -> None:
    async def main() -> None:
        queue = WorkQueue()
        worker = asyncio.create_task(take(queue))
        await asyncio.sleep(5)
        assert not worker.done()
        queue.add(["a"])
        assert await worker == "a"
        assert now() == 5

    run(main())


def test_each_of_two_names_wakes_a_worker() -> None:
    async def main() -> None:
        queue = WorkQueue()
        workers = [asyncio.create_task(take(queue)) for _ in range(2)]
        await asyncio.sleep(1)
        queue.add(["a", "b"])
        assert sorted(await asyncio.gather(*workers)) == ["a", "b"]

    run(main())


def test_a_name_is_returned_with_the_time_since_it_was_first_added() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["a"])
        await asyncio.sleep(2)
        queue.add(["a"])
        await asyncio.sleep(3)
        assert await queue.get() == ("a", 5)

    run(main())


@pytest.mark.parametrize("release", [WorkQueue.done, WorkQueue.failed])
def test_a_name_added_during_work_on_it_is_returned_again_right_afterwards(
    release: Callable[[WorkQueue, str], object],
) -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["a"])
        await queue.get()
        queue.add(["a"])
        await asyncio.sleep(2)
        queue.add(["a"])
        other = asyncio.create_task(queue.get())
        await asyncio.sleep(3)
        assert len(queue) == 0
        assert not other.done()
        release(queue, "a")
        assert await other == ("a", 5)
        assert now() == 5

    run(main())


def test_a_name_that_succeeded_is_not_returned_again() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["a"])
        queue.done(await take(queue))
        await asyncio.sleep(1000)
        assert len(queue) == 0

    run(main())


def test_a_name_that_fails_is_returned_again_with_increasing_delay() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["a"])
        name = await take(queue)
        for delay in [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, *[60.0] * 20]:
            since, planned = now(), queue.failed(name)
            name = await take(queue)
            assert planned == pytest.approx(delay)
            assert now() - since == pytest.approx(delay)

    run(main())


def test_consecutive_failures_are_counted_for_each_name() -> None:
    async def main() -> None:
        queue = WorkQueue()
        assert queue.failures("a") == 0
        for failures in (1, 2):
            queue.add(["a"])
            await take(queue)
            queue.failed("a")
            assert (queue.failures("a"), queue.failures("b")) == (failures, 0)

    run(main())


def test_a_success_resets_the_delay_of_the_next_failure() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["a"])
        for _ in range(5):
            queue.failed(await take(queue))
        queue.done(await take(queue))
        queue.add(["a"])
        assert queue.failed(await take(queue)) == pytest.approx(0.2)

    run(main())


def test_a_name_that_fails_delays_no_other() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["bad"])
        for _ in range(8):
            queue.failed(await take(queue))
        queue.add(["good"])
        assert await queue.get() == ("good", 0)
        assert queue.failed("good") == pytest.approx(0.2)
        since = now()
        assert await take(queue) == "good"
        assert now() - since == pytest.approx(0.2)

    run(main())


def test_a_name_added_during_its_backoff_is_returned_immediately_and_only_once() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["a"])
        queue.failed(await take(queue))
        queue.add(["a"])
        assert await queue.get() == ("a", 0)
        queue.done("a")
        await asyncio.sleep(1000)
        assert len(queue) == 0

    run(main())


def test_a_name_added_during_its_backoff_keeps_its_count_of_failures() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["a"])
        queue.failed(await take(queue))
        queue.add(["a"])
        assert queue.failed(await take(queue)) == pytest.approx(0.4)

    run(main())


def test_an_empty_queue_is_not_stuck() -> None:
    async def main() -> None:
        queue = WorkQueue()
        await asyncio.sleep(100)
        assert queue.stuck_seconds() == 0
        queue.add(["a"])
        await take(queue)
        await asyncio.sleep(100)
        assert queue.stuck_seconds() == 0

    run(main())


def test_the_queue_can_be_stuck_before_the_first_name_was_taken() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add(["a"])
        await asyncio.sleep(10)
        assert queue.stuck_seconds() == 10

    run(main())


def test_the_queue_is_stuck_since_the_oldest_was_added_or_the_last_was_taken() -> None:
    async def main() -> None:
        queue = WorkQueue()
        await asyncio.sleep(100)
        queue.add(["a"])
        await asyncio.sleep(10)
        queue.add(["b"])
        assert queue.stuck_seconds() == 10
        await take(queue)
        assert queue.stuck_seconds() == 0
        await asyncio.sleep(7)
        assert queue.stuck_seconds() == 7

    run(main())


seconds = st.floats(0, 3)


@settings(deadline=None)
@given(
    adds=st.lists(st.tuples(seconds, st.lists(st.sampled_from("abc"), max_size=3)), max_size=12),
    works=st.lists(st.tuples(seconds, st.booleans()), min_size=1, max_size=6),
    workers=st.integers(1, 3),
)
def test_each_change_is_worked_on_and_no_name_twice_at_once(
    adds: list[tuple[float, list[str]]], works: list[tuple[float, bool]], workers: int
) -> None:
    async def main() -> None:
        queue, working, turns = WorkQueue(), set[str](), count()
        changed, seen = dict.fromkeys("abc", 0), dict.fromkeys("abc", 0)

        async def work() -> None:
            while True:
                name = await take(queue)
                assert name not in working
                working.add(name)
                observed = changed[name]
                turn = next(turns)
                duration, succeeds = works[turn % len(works)]
                await asyncio.sleep(duration)
                working.remove(name)
                if succeeds or turn > 30:
                    seen[name] = observed
                    queue.done(name)
                else:
                    queue.failed(name)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for _ in range(workers)]
            for pause, names in adds:
                await asyncio.sleep(pause)
                for name in names:
                    changed[name] += 1
                queue.add(names)
            await asyncio.sleep(10_000)
            assert seen == changed
            assert not working
            assert len(queue) == 0
            for task in tasks:
                task.cancel()

    run(main())
