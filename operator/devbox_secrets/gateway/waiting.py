"""Waits until devboxes' Secret holds what was written. Imports callers, record, upstream and answers.

Asked in the caller's name, of the AccountSecret's status: the Secret itself the caller need not be able to read.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from http import HTTPStatus
from itertools import chain, repeat
from typing import Annotated, Any

from fastapi import Query
from starlette.requests import ClientDisconnect, Request

from devbox_secrets.api import AccountSecretStatus, Condition, account_secrets_path
from devbox_secrets.errors import ClusterError
from devbox_secrets.gateway.answers import Declined, bad_request, later, not_found
from devbox_secrets.gateway.callers import Caller
from devbox_secrets.gateway.record import Record
from devbox_secrets.gateway.upstream import Body, Upstream

#: Between two looks where there is no watch: what is synced at all is synced within a second, mostly.
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
#: How many may wait at one replica: each has a connection to the API server, a third of a MiB here.
_MOST = 500

#: Gives the record when it may be answered.
Hold = Callable[[Caller, Record], Awaitable[Record]]
_See = Callable[[str, Body], Condition | None]


_WAIT = Query(
    description="Whether the answer comes only when devboxes' Secret holds the value.",
    json_schema_extra={"enum": ["true", "false"]},
)


async def hold_of(request: Request, wait: Annotated[str | None, _WAIT] = None) -> Hold:
    """Give what holds a call's answer back: with wait=true until devboxes' Secret holds the value, else nothing.

    Raises:
        Declined: `wait` is neither true nor false.
    """
    waiting: Waiting = request.app.state.waiting
    return partial(waiting.until_held, request) if _is_true(wait) else _at_once


def refuse_wait(request: Request) -> None:
    """Refuse to wait for a deletion, rather than to pretend.

    Raises:
        Declined: it was asked for.
    """
    if _is_true(request.query_params.get("wait")):
        raise bad_request(
            "wait=true is for creating and updating: of a secret that is deleted nothing is left that could tell"
            " when devboxes' Secret follows, usually within a second; delete it without"
        )


class Waiting:
    """All calls that wait at this replica."""

    def __init__(self, upstream: Upstream, seconds: float) -> None:
        self._upstream = upstream
        self._seconds = seconds
        self._ends: set[asyncio.Timeout] = set()

    async def until_held(self, request: Request, caller: Caller, record: Record) -> Record:
        """Wait until devboxes' Secret holds the value of a record, in all namespaces of the account, and give it.

        Raises:
            Declined: it won't before someone acts, or hasn't in time; the secret is there in either case.
            ClusterError: the token's time is over, or the secret was deleted.
            ClientDisconnect: nobody waits any more.
        """
        if len(self._ends) >= _MOST:
            raise later("the secret is written, but too many calls wait here already for devboxes to have theirs")
        try:
            async with asyncio.timeout(self._seconds) as end:
                self._ends.add(end)
                ready = await _unless_gone(request, self._decided(caller, record))
        except TimeoutError:
            raise later(
                "the secret is written, but devboxes don't have the value yet; with the same x-request-id a call"
                " goes on waiting"
            ) from None
        finally:
            self._ends.discard(end)
        if not ready.holds:
            # The operator's sentence, which the caller may read in the status: by design it holds no value.
            raise Declined(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"the secret is there, but devboxes don't get this value: {ready.message}",
            )
        return record

    def stop(self) -> None:
        """End all waits, and those that begin from now on, since the process ends: another replica goes on."""
        self._seconds = 0
        for end in self._ends:
            end.reschedule(asyncio.get_running_loop().time())

    async def _decided(self, caller: Caller, record: Record) -> Condition:
        """Give the condition Ready once it is about the record's generation and stays."""
        known = False

        def see(kind: str, body: Body) -> Condition | None:
            nonlocal known
            known = True
            return _seen(kind, body, record)

        look = self._watch
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            try:
                if ready := await look(caller, record, see):
                    return ready
            except ClusterError as error:
                # Who has seen it may: an API server that starts knows neither tokens, roles nor kinds for a moment.
                match error.status:
                    case HTTPStatus.FORBIDDEN if not known and look == self._watch:
                        look = self._read  # a role without `watch`
                        continue
                    case HTTPStatus.FORBIDDEN if not known:
                        raise _unseen() from None
                    case HTTPStatus.UNAUTHORIZED | HTTPStatus.NOT_FOUND if not known:
                        raise
                    case HTTPStatus.NOT_FOUND if look == self._read:
                        raise
            # The API server is away, or ended the watch, or there is none.
            await asyncio.sleep(pause)
        raise AssertionError  # the pauses don't end

    async def _watch(self, caller: Caller, record: Record, see: _See) -> Condition | None:
        # Without a resourceVersion: first comes what is there, which for a retry may be all that ever comes.
        query = {"fieldSelector": f"metadata.name={record.id.name}", "timeoutSeconds": "60"}
        return await self._upstream.watch(caller.token, account_secrets_path(caller.account), query, see)

    async def _read(self, caller: Caller, record: Record, see: _See) -> Condition | None:
        path = account_secrets_path(caller.account, record.id.name)
        return see("MODIFIED", await self._upstream.ask(caller.token, "GET", path))


def _is_true(wait: str | None) -> bool:
    if wait not in {"true", "false", None}:
        raise bad_request("wait must be true or false")
    return wait == "true"


def _unseen() -> Declined:
    return Declined(
        HTTPStatus.FORBIDDEN,
        "the secret is written, but the token's user may not see what becomes of it: the role devbox-secrets-edit lets"
        " it; or call without wait",
    )


async def _at_once(_: Caller, record: Record) -> Record:
    return record


def _seen(kind: str, body: Body, record: Record) -> Condition | None:
    if body["metadata"]["uid"] != str(record.id.uid):
        return None  # one that had the name before, or has it since
    if kind == "DELETED":
        raise not_found()
    return AccountSecretStatus.model_validate(body.get("status") or {}).decided(record.generation)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Condition]) -> Condition:
    """Do some work while the client is there; its body has been read."""

    async def leaves() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(leaves())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
