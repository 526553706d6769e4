"""How the work on one account is divided."""

import asyncio

from devbox_secrets.errors import ClusterError
from devbox_secrets.reconcile import _each


def test_an_account_of_any_size_takes_a_few_connections_at_a_time() -> None:
    busy, most = 0, 0

    async def job(_: int) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        busy -= 1

    asyncio.run(_each(job, range(1000)))
    assert most == 4


def test_one_that_fails_holds_back_no_other_and_each_is_told_in_its_place() -> None:
    failure = ClusterError("no", 500)

    async def job(number: int) -> int:
        await asyncio.sleep(0)
        if number == 3:
            raise failure
        return number

    assert asyncio.run(_each(job, range(20))) == [failure if number == 3 else number for number in range(20)]
