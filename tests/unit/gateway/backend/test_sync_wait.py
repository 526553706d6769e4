"""Waiting until devboxes have a value: what ends a wait, and how."""

import asyncio
from collections.abc import Awaitable

import pytest

from devbox_secrets.errors import APIError, NotFound, Unauthorized, Unreachable
from devbox_secrets.gateway.backend import sync_wait
from devbox_secrets.gateway.backend.auth import Caller
from devbox_secrets.gateway.backend.record import Record, read_object
from devbox_secrets.gateway.backend.sync_wait import SyncWaiter
from devbox_secrets.gateway.contract.errors import ErrorResponse
from unit.gateway.api_server import EDIT, APIServer, once, ready


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_wait, "_PAUSES", (0.001,))


@pytest.fixture
def server() -> APIServer:
    return APIServer()


@pytest.fixture
def caller(server: APIServer) -> Caller:
    return Caller("team-a", server.add_account("team-a"))


@pytest.fixture
def record(server: APIServer, caller: Caller) -> Record:
    return read_object(server.put("team-a", "token", "TOKEN"))


@pytest.fixture
def waiter(server: APIServer) -> SyncWaiter:
    return SyncWaiter(server, 5)


async def response_of(wait: Awaitable[None]) -> tuple[int, str]:
    """Return the error with which a wait ends."""
    with pytest.raises(ErrorResponse) as caught:
        await wait
    return caught.value.status, str(caught.value)


async def run_tasks() -> None:
    """Run the started tasks until they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_wait_ends_when_devboxes_have_the_value(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await run_tasks()
    assert not waiting.done()
    await server.set_status("team-a", "token", ready())
    await waiting


async def test_a_status_of_an_older_generation_does_not_end_a_wait(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    record.metadata["generation"] = 2
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await server.set_status("team-a", "token", ready(1))
    await run_tasks()
    assert not waiting.done()
    await server.set_status("team-a", "token", ready(2))
    await waiting


async def test_a_problem_that_people_must_solve_ends_a_wait_immediately(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    await server.set_status("team-a", "token", ready(message="it is too large", reason="TooLarge"))
    assert await response_of(waiter.wait(caller, record)) == (
        422,
        "the secret was written, but devboxes don't get its value: it is too large",
    )


async def test_a_temporary_problem_does_not_end_a_wait(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    await server.set_status("team-a", "token", ready(message="not now", reason="NotWritten"))
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await run_tasks()
    assert not waiting.done()
    await server.set_status("team-a", "token", ready())
    await waiting


async def test_a_wait_ends_when_the_secret_is_deleted(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await run_tasks()
    await server.delete("team-a", "token")
    assert (await response_of(waiting))[0] == 404


async def test_a_wait_ends_after_its_timeout(server: APIServer, caller: Caller, record: Record) -> None:
    status, sentence = await response_of(SyncWaiter(server, 0.01).wait(caller, record))
    assert status == 503
    assert sentence.startswith("the secret was written, but devboxes don't have the value yet")


async def test_waits_end_when_the_process_stops_and_so_do_later_ones(
    waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await run_tasks()
    waiter.stop()
    assert (await response_of(waiting))[0] == 503
    assert (await response_of(waiter.wait(caller, record)))[0] == 503


async def test_too_many_waits_are_rejected(
    waiter: SyncWaiter, caller: Caller, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_wait, "_MAX_WAITING", 1)
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await run_tasks()
    assert "too many requests are already waiting" in (await response_of(waiter.wait(caller, record)))[1]
    waiting.cancel()


async def test_without_permission_to_watch_the_secret_is_read_repeatedly(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    server.rights[caller.token, "team-a"] = EDIT - {"watch"}
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await run_tasks()
    await server.set_status("team-a", "token", ready())
    await waiting


async def test_without_permission_to_read_a_wait_ends_with_an_error(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    server.rights[caller.token, "team-a"] = frozenset({"list", "create"})
    status, sentence = await response_of(waiter.wait(caller, record))
    assert status == 403
    assert sentence.startswith("the secret was written, but the token's user can't read its status")


@pytest.mark.parametrize("error", [Unauthorized("401"), NotFound("404")])
async def test_an_error_before_the_secret_was_seen_is_raised(
    error: APIError, server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    server.before = once(error, "WATCH")
    with pytest.raises(type(error)):
        await waiter.wait(caller, record)


async def test_an_unavailable_api_server_does_not_end_a_wait(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    await server.set_status("team-a", "token", ready())
    server.before = once(Unreachable("away"), "WATCH")
    await waiter.wait(caller, record)
    assert len(server.requests) == 2


async def test_another_object_of_the_same_name_does_not_end_a_wait(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    del server.objects["team-a", "token"]
    server.put("team-a", "token", "TOKEN")
    await server.set_status("team-a", "token", ready())
    assert (await response_of(SyncWaiter(server, 0.01).wait(caller, record)))[0] == 503
