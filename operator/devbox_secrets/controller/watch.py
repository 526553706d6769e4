"""kopf's watches: their events update the cache and enqueue accounts.

Only `on.event` is used: other handlers keep a copy of the whole object in its annotations. A handler
returns None, since kopf writes what it returns into the status.

kopf runs in a thread with its own event loop: it exits when a kind isn't served or its token is rejected,
and then cancels every task in its loop. aiohttp's tracing shows two things that kopf doesn't report:
that it lists a kind, so that a deletion may have been missed, and that a watch gets no responses.
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
import uvloop

from devbox_secrets.api.names import ACCOUNT_SECRET, GROUP, PLURAL, VERSION
from devbox_secrets.kube import config
from devbox_secrets.kube.client import Body

LOG = logging.getLogger(__name__)

#: The watched kinds, as kopf's handlers take them. The last part is the kind's name, here and in its path.
RESOURCES = (("v1", "namespaces"), ("v1", "secrets"), (GROUP, VERSION, PLURAL))
#: Maximum number of objects in a page of a list. Parsed JSON needs several times its size in memory.
PAGE_SIZE = 100
_KINDS = tuple(resource[-1] for resource in RESOURCES)
#: A watch is reopened at this interval, from the API server's last bookmark; if that fails, the watch is dead.
_RENEW_SECONDS = 20
_DEAD_SECONDS = 25.0
#: When a kind has had no response for this long, it is reported and kopf restarts.
_SILENT_SECONDS = 60.0
_CHECK_SECONDS = 1.0
_CONNECT_SECONDS = 5.0
_REQUEST_SECONDS = 60.0
_END_SECONDS = 5.0
#: Minimum time between two logins: kopf retries a rejected one at once.
_LOGIN_SECONDS = 1.0


class Watches:
    """Runs kopf, and restarts it whenever it exits or gets no responses."""

    def __init__(
        self,
        changed: Callable[[str, str, Body], None],
        knows: Callable[[str, Body], bool],
        listing: Callable[[str], None],
        identity: str,
    ) -> None:
        """Prepare the watches.

        Args:
            changed: called with each event: the kind's name, the event's type, the object.
            knows: called with a kind's name and an object, in kopf's thread; returns whether the cache has it already.
            listing: called with a kind's name when kopf starts to list it, or is refused.
            identity: this replica's name.
        """
        self._changed = changed
        self._knows = knows
        self._listing = listing
        self._identity = identity
        self.settings = settings()
        self._restart = asyncio.Event()
        self._answered = dict.fromkeys(_KINDS, time.monotonic())
        self._refused: set[str] = set()
        self._logged_in = float("-inf")
        self._main: asyncio.AbstractEventLoop  # set by `run`

    async def run(self, recover: Callable[[], Awaitable[None]]) -> None:
        """Watch until cancelled; whenever kopf has exited, call `recover` first."""
        self._main = asyncio.get_running_loop()
        loop = uvloop.new_event_loop()
        # By default asyncio logs errors that nobody awaited, with objects and tracebacks. We notice them anyway,
        # since kopf exits or gets no responses.
        loop.set_exception_handler(lambda _, __: None)
        thread = threading.Thread(target=_run_until_stopped, args=(loop,), name="watches", daemon=True)
        thread.start()
        told = ""
        try:
            while True:
                reason = await self._watch(loop)
                if reason != told:
                    LOG.warning("restarting the watches: %s", reason)
                told = reason
                await asyncio.sleep(_CHECK_SECONDS)
                await recover()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_CHECK_SECONDS)

    def restart(self) -> None:
        """Restart kopf, which then lists everything."""
        self._restart.set()

    def problem(self) -> str | None:
        """Return which kinds' watches have had no response for too long, or None."""
        now = time.monotonic()
        silent = {kind: now - at for kind, at in self._answered.items() if now - at > _SILENT_SECONDS}
        return "; ".join(f"no response to the watch of {kind} for {age:.0f}s" for kind, age in silent.items()) or None

    async def _watch(self, loop: asyncio.AbstractEventLoop) -> str:
        """Run kopf in this loop until it exits, should restart, or gets no responses; return which."""
        self._restart.clear()
        ended = asyncio.Event()
        started = time.monotonic()
        kopf_run = asyncio.run_coroutine_threadsafe(self._operate(ended), loop)
        try:
            while not ended.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._restart.wait(), _CHECK_SECONDS)
                    return "a restart was requested"
                if time.monotonic() - started > _SILENT_SECONDS and (problem := self.problem()):
                    return problem
            # Only the type: the text may contain an object.
            return f"kopf exited: {type(kopf_run.exception()).__name__}"
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
                identity=self._identity,  # type: ignore[arg-type]  # kopf doesn't export the name of this str
            )
        finally:
            self._hand_over(ended.set)

    def registry(self) -> kopf.OperatorRegistry:
        """Return kopf's registry: an event handler for each kind, and the login."""
        handlers = kopf.OperatorRegistry()
        for resource in RESOURCES:
            kind = resource[-1]
            is_news = news_filter(kind, self._knows)
            kopf.on.event(*resource, id=kind, registry=handlers, when=is_news)(self.handler(kind))
        # By default kopf waits for a minute after a failed login, even if a token's file was empty only for a moment.
        kopf.on.login(id="login", registry=handlers, backoff=_LOGIN_SECONDS)(self.login)
        return handlers

    def handler(self, kind: str) -> Callable[..., Coroutine[Any, Any, None]]:
        """Return the function that kopf calls with each event of a kind that its filter accepts."""

        # Not a plain function: kopf would call it in another thread.
        async def handle(event: Any, **_: Any) -> None:
            self._hand_over(self._changed, kind, event["type"], event["object"])

        return handle

    async def login(self, **_: Any) -> kopf.AiohttpSession:
        """Connect as our own client does; called by kopf."""
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
            tells = kind not in self._refused  # also at the first refusal: our own list then shows the reason
            self._refused.add(kind)
        if tells:
            self._hand_over(self._listing, kind)

    def _hand_over(self, take: Callable[..., object], *what: object) -> None:
        """Call a function in the main loop."""
        self._main.call_soon_threadsafe(take, *what)


def news_filter(kind: str, knows: Callable[[str, Body], bool]) -> Callable[..., bool]:
    """Return the function that tells kopf whether to handle an event of a kind; `knows` is as for `Watches`."""

    def is_news(event: Any, **_: Any) -> bool:
        # Events from kopf's lists have no type. We list the same objects, which also shows what was deleted.
        if event["type"] is None:
            return False
        # The cache has the results of our own writes, which cause most events.
        return event["type"] == "DELETED" or not knows(kind, event["object"])

    return is_news


def _run_until_stopped(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


class _NoDiffs(kopf.DiffBaseStorage):
    """Stores nothing to compare objects with: event handlers don't need it, and a copy of each object is expensive."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""


class _NoProgress(kopf.ProgressStorage):
    """Stores no progress of handlers: event handlers have none, and looking for it takes a tenth of an event's time."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""

    def purge(self, **_: Any) -> None:
        """Remove nothing."""

    def touch(self, **_: Any) -> None:
        """Change nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def settings() -> kopf.OperatorSettings:
    """Return kopf's settings: of Secrets, only the one name that we may watch; and no Events."""
    result = kopf.OperatorSettings()
    # The key must be a tuple: the string "v1/secrets" would match nothing, and kopf would ask for every Secret.
    result.watching.field_selectors["v1", "secrets"] = f"metadata.name={ACCOUNT_SECRET}"
    # Every second, for hours: until a watch is back, we miss deletions.
    result.networking.error_backoffs = (1,) * 36_000
    result.networking.connect_timeout = _CONNECT_SECONDS
    result.networking.request_timeout = _REQUEST_SECONDS
    result.watching.server_timeout = _RENEW_SECONDS
    result.watching.inactivity_timeout = _DEAD_SECONDS
    # Our own process decides when to exit.
    result.process.ultimate_exiting_timeout = None
    result.scanning.disabled = True
    result.posting.enabled = False
    # By default kopf keeps a whole list in memory, and a task for each of its objects.
    result.watching.chunk_size = PAGE_SIZE
    result.queueing.idle_timeout = 0.01
    result.persistence.diffbase_storage = _NoDiffs()
    result.persistence.progress_storage = _NoProgress()
    return result
