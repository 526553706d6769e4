"""kopf's watches: their events go into the cache and enqueue accounts.

Events are read through `on.event` alone: handlers of other kinds keep a copy of the whole object
in its annotations. A handler returns nothing, since what it returns is written into the status.

kopf runs in a thread with an event loop of its own: it ends when a kind isn't served or its token isn't accepted,
and then cancels every task of its loop. Two things that it doesn't tell are seen from its requests, through
aiohttp's tracing: that it lists a kind, so that a deletion may have been missed, and that a watch gets no answers.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import aiohttp
import kopf

from devbox_secrets.api.names import ACCOUNT_SECRET, GROUP, PLURAL, VERSION
from devbox_secrets.kube import config
from devbox_secrets.kube.client import Body

LOG = logging.getLogger(__name__)

#: What is watched, as kopf's handlers are told. The last word is the kind's name, here and in its path.
RESOURCES = (("v1", "namespaces"), ("v1", "secrets"), (GROUP, VERSION, PLURAL))
_KINDS = tuple(resource[-1] for resource in RESOURCES)
#: A watch is opened again as often, where the API server's last bookmark says, and is dead if that isn't possible.
_RENEW_SECONDS = 20
_DEAD_SECONDS = 25.0
#: A kind without any answer for that long is told, and kopf starts again.
_SILENT_SECONDS = 60.0
_CHECK_SECONDS = 1.0
_CONNECT_SECONDS = 5.0
_REQUEST_SECONDS = 60.0
_END_SECONDS = 5.0
#: Between two logins: kopf repeats one that isn't accepted at once.
_LOGIN_SECONDS = 1.0


class Watches:
    """kopf, which is started again whenever it ends or hears nothing."""

    def __init__(
        self, changed: Callable[[str, str, Body], None], listing: Callable[[str], None], identity: str
    ) -> None:
        """Prepare.

        Args:
            changed: takes an event: the kind's name, the event's type, the object.
            listing: takes a kind's name when kopf has begun to list it, or is refused.
            identity: this replica's name.
        """
        self._changed = changed
        self._listing = listing
        self._identity = identity
        self.settings = settings()
        self._restart = asyncio.Event()
        self._answered = dict.fromkeys(_KINDS, time.monotonic())
        self._refused: set[str] = set()
        self._logged_in = float("-inf")
        self._main: asyncio.AbstractEventLoop  # once it runs

    async def run(self, recover: Callable[[], Awaitable[None]]) -> None:
        """Watch until cancelled; whenever kopf has ended, recover first."""
        self._main = asyncio.get_running_loop()
        loop = asyncio.new_event_loop()
        # asyncio would log what nobody awaited, with objects and tracebacks; the end of kopf or its silence tells it.
        loop.set_exception_handler(lambda _, __: None)
        thread = threading.Thread(target=_run_until_stopped, args=(loop,), name="watches", daemon=True)
        thread.start()
        told = ""
        try:
            while True:
                reason = await self._watch(loop)
                if reason != told:
                    LOG.warning("watching again: %s", reason)
                told = reason
                await asyncio.sleep(_CHECK_SECONDS)
                await recover()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_CHECK_SECONDS)

    def restart(self) -> None:
        """Have kopf start again, which lists everything."""
        self._restart.set()

    def problem(self) -> str | None:
        """Say which kind's watch has had no answer for long."""
        now = time.monotonic()
        silent = {kind: now - at for kind, at in self._answered.items() if now - at > _SILENT_SECONDS}
        return "; ".join(f"no answer to the watch of {kind} for {age:.0f} s" for kind, age in silent.items()) or None

    async def _watch(self, loop: asyncio.AbstractEventLoop) -> str:
        """Run kopf in that loop until it ends, is to start again, or hears nothing; say which."""
        self._restart.clear()
        ended = asyncio.Event()
        started = time.monotonic()
        kopf_run = asyncio.run_coroutine_threadsafe(self._operate(ended), loop)
        try:
            while not ended.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._restart.wait(), _CHECK_SECONDS)
                    return "asked to"
                if time.monotonic() - started > _SILENT_SECONDS and (problem := self.problem()):
                    return problem
            # The type alone: a text may hold an object.
            return f"kopf ended: {type(kopf_run.exception()).__name__}"
        finally:
            kopf_run.cancel()
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _END_SECONDS)

    async def _operate(self, ended: asyncio.Event) -> None:
        try:
            await kopf.operator(
                registry=self.registry(),
                settings=self.settings,
                clusterwide=True,
                standalone=True,
                identity=self._identity,  # type: ignore[arg-type]  # kopf keeps the name of this str to itself
            )
        finally:
            self._hand_over(ended.set)

    def registry(self) -> kopf.OperatorRegistry:
        """Give kopf's registry: a handler for the events of each kind, and how to connect."""
        handlers = kopf.OperatorRegistry()
        for resource in RESOURCES:
            kind = resource[-1]
            kopf.on.event(*resource, id=kind, registry=handlers)(self.handler(kind))
        # By default it waits for a minute where a login fails, since a token's file is empty for a moment for instance.
        kopf.on.login(id="login", registry=handlers, backoff=_LOGIN_SECONDS)(self.login)
        return handlers

    def handler(self, kind: str) -> Callable[..., Coroutine[Any, Any, None]]:
        """Give what kopf calls with each event of a kind."""

        # Not a plain function: kopf would call that in a thread of its own.
        async def handle(event: Any, **_: Any) -> None:
            # What kopf lists has no type. We list it, too, and that tells what is missing as well.
            if event["type"] is not None:
                self._hand_over(self._changed, kind, event["type"], event["object"])

        return handle

    async def login(self, **_: Any) -> kopf.AiohttpSession:
        """Connect as our own client does; kopf calls it."""
        await asyncio.sleep(self._logged_in + _LOGIN_SECONDS - time.monotonic())
        self._logged_in = time.monotonic()
        traces = aiohttp.TraceConfig()
        traces.on_request_end.append(self._on_answer)
        server, session = await config.session([traces])
        return kopf.AiohttpSession(server=server, aiohttp_session=session)

    async def _on_answer(
        self, _: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestEndParams
    ) -> None:
        kind, query = request.url.name, request.url.query
        if kind not in self._answered:
            return
        if request.response.status == HTTPStatus.OK:
            self._answered[kind] = time.monotonic()
            self._refused.discard(kind)
            tells = "watch" not in query and "continue" not in query
        else:
            tells = kind not in self._refused  # at the first refusal, too: a list of ours tells the reason
            self._refused.add(kind)
        if tells:
            self._hand_over(self._listing, kind)

    def _hand_over(self, take: Callable[..., object], *what: object) -> None:
        """Have a function called in the main loop."""
        self._main.call_soon_threadsafe(take, *what)


def _run_until_stopped(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


class _NoDiffs(kopf.DiffBaseStorage):
    """Nothing to compare an object with: handlers of events don't ask, and a copy of each is dear."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""


def settings() -> kopf.OperatorSettings:
    """Give kopf's settings: the one Secret name is all that we may watch, and nothing is posted."""
    result = kopf.OperatorSettings()
    # The key is a tuple: as text, "v1/secrets" would match nothing and ask for every Secret.
    result.watching.field_selectors["v1", "secrets"] = f"metadata.name={ACCOUNT_SECRET}"
    # For hours, and often: until a watch is back, no deletion is heard of.
    result.networking.error_backoffs = (1,) * 36_000
    result.networking.connect_timeout = _CONNECT_SECONDS
    result.networking.request_timeout = _REQUEST_SECONDS
    result.watching.server_timeout = _RENEW_SECONDS
    result.watching.inactivity_timeout = _DEAD_SECONDS
    # The process ends itself.
    result.process.ultimate_exiting_timeout = None
    result.scanning.disabled = True
    result.posting.enabled = False
    # By default a list of everything is in memory at once, and so is a task for each of its objects.
    result.watching.chunk_size = 500
    result.queueing.idle_timeout = 0.1
    result.persistence.diffbase_storage = _NoDiffs()
    return result
