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
    """Give the error with which a wait ends."""
    with pytest.raises(ErrorResponse) as caught:
        await wait
    return caught.value.status, str(caught.value)


async def in_turn() -> None:
    """Let what was started get to where it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_ends_when_devboxes_have_the_value(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await in_turn()
    assert not waiting.done()
    await server.set_status("team-a", "token", ready())
    await waiting


async def test_a_status_of_an_older_generation_does_not_end_it(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    record.metadata["generation"] = 2
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await server.set_status("team-a", "token", ready(1))
    await in_turn()
    assert not waiting.done()
    await server.set_status("team-a", "token", ready(2))
    await waiting


async def test_what_only_people_can_change_is_told_at_once(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    await server.set_status("team-a", "token", ready(message="it is too large", reason="TooLarge"))
    assert await response_of(waiter.wait(caller, record)) == (
        422,
        "the secret was written, but devboxes don't get its value: it is too large",
    )


async def test_what_could_not_be_written_for_now_is_waited_for(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    await server.set_status("team-a", "token", ready(message="not now", reason="NotWritten"))
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await in_turn()
    assert not waiting.done()
    await server.set_status("team-a", "token", ready())
    await waiting


async def test_it_ends_with_the_secret(server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record) -> None:
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await in_turn()
    await server.delete("team-a", "token")
    assert (await response_of(waiting))[0] == 404


async def test_it_ends_after_its_time(server: APIServer, caller: Caller, record: Record) -> None:
    status, sentence = await response_of(SyncWaiter(server, 0.01).wait(caller, record))
    assert status == 503
    assert sentence.startswith("the secret was written, but devboxes don't have the value yet")


async def test_it_ends_when_the_process_stops_and_so_do_later_ones(
    waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await in_turn()
    waiter.stop()
    assert (await response_of(waiting))[0] == 503
    assert (await response_of(waiter.wait(caller, record)))[0] == 503


async def test_too_many_do_not_wait(
    waiter: SyncWaiter, caller: Caller, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_wait, "_MAX_WAITING", 1)
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await in_turn()
    assert "too many requests are already waiting" in (await response_of(waiter.wait(caller, record)))[1]
    waiting.cancel()


async def test_without_the_right_to_watch_it_reads(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    server.rights[caller.token, "team-a"] = EDIT - {"watch"}
    waiting = asyncio.create_task(waiter.wait(caller, record))
    await in_turn()
    await server.set_status("team-a", "token", ready())
    await waiting


async def test_without_the_right_to_read_either_it_says_so(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    server.rights[caller.token, "team-a"] = frozenset({"list", "create"})
    status, sentence = await response_of(waiter.wait(caller, record))
    assert status == 403
    assert sentence.startswith("the secret was written, but the token's user can't read its status")


@pytest.mark.parametrize("error", [Unauthorized("401"), NotFound("404")])
async def test_who_never_saw_the_secret_is_told_the_error(
    error: APIError, server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    server.before = once(error, "WATCH")
    with pytest.raises(type(error)):
        await waiter.wait(caller, record)


async def test_an_api_server_that_is_away_is_waited_for(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    await server.set_status("team-a", "token", ready())
    server.before = once(Unreachable("away"), "WATCH")
    await waiter.wait(caller, record)
    assert len(server.requests) == 2


async def test_another_object_of_the_same_name_says_nothing(
    server: APIServer, waiter: SyncWaiter, caller: Caller, record: Record
) -> None:
    del server.objects["team-a", "token"]
    server.put("team-a", "token", "TOKEN")
    await server.set_status("team-a", "token", ready())
    assert (await response_of(SyncWaiter(server, 0.01).wait(caller, record)))[0] == 503
