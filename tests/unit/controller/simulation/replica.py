"""A replica of the operator: its real code in its own event loop, with simulated requests and watches."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

from devbox_secrets.api.names import PLURAL
from devbox_secrets.controller import process
from devbox_secrets.controller.cache import Cache
from devbox_secrets.controller.leader import LeaderElector
from devbox_secrets.controller.settings import ControllerSettings
from devbox_secrets.controller.watch import news_filter
from devbox_secrets.controller.writes import Writer
from devbox_secrets.errors import APIError, RequestTimeout, ServerError, Unreachable
from devbox_secrets.kube.client import Body, Response
from unit.controller.simulation.api_server import OPERATOR, ApiServer
from unit.controller.simulation.world import ProcessLoop, World
from unit.kube.fake_api import FakeClient

KINDS = ("namespaces", "secrets", PLURAL)
#: For a request, a response or a watch event.
LONGEST_DELAY_SECONDS = 6.0


class Replica:
    """A process, until it ends."""

    def __init__(self, world: World, api: ApiServer, cache: type[Cache], writer: type[Writer]) -> None:
        self.world = world
        self.api = api
        self.alive = True
        self.watches: Watches
        self._loop = ProcessLoop(world)
        self._loop.set_exception_handler(lambda _, context: world.violations.append(f"asyncio: {context}"))
        parts: dict[str, Any] = {
            "Cache": cache,
            "Writer": writer,
            "LeaderElector": partial(LeaderElector, clock=self._loop.time, wall_clock=self._loop.time),
            "Watches": partial(Watches, self),
            "_now": world.time,
        }
        with mock.patch.multiple(process, **parts):
            self.controller = process.Controller(
                FakeClient(self), ControllerSettings(namespace=OPERATOR, rotate_keys=None)
            )
        self._main = self._loop.create_task(self._run())
        world.loops.append(self._loop)

    async def _run(self) -> None:
        try:
            await self.controller.sync()
            await asyncio.gather(self.controller.watch(), *self.controller.jobs())
        except Exception as error:  # noqa: BLE001 - any error ends the process
            self.world.violations.append(f"a job ended: {type(error).__name__}: {error}")
        finally:
            if self.alive:
                await self.controller.stop_leading()
            self.alive = False

    def call(self, callback: Callable[[], object]) -> None:
        """Call a function in the process; it waits while the process is frozen."""
        if self.alive:
            self._loop.call_soon(callback)
            self._loop.run_until_idle()

    def freeze(self, seconds: float) -> None:
        """Stop the process for a while, as SIGSTOP does."""
        if not self._loop.frozen:
            self._loop.frozen = True
            self.world.later(seconds, self._thaw)

    def _thaw(self) -> None:
        """Let the process continue."""
        self._loop.frozen = False
        if self.alive:
            self._loop.run_until_idle()

    def stop(self) -> None:
        """End the process, as SIGTERM does."""
        self.call(self._main.cancel)

    def kill(self) -> None:
        """End the process, as SIGKILL does."""
        self.alive = self._loop.frozen = False
        self._main.cancel()
        self._loop.run_until_idle()
        self.world.loops.remove(self._loop)
        self._loop.close()

    async def answer(self, method: str, path: str, query: Mapping[str, str], body: Body, media_type: str) -> Response:
        """Send a request, which arrives even if nobody waits for the response any more."""
        if not self.alive:
            raise Unreachable("the process has ended")
        handle = partial(self.api.handle, method, path, query, body, media_type)
        answer: asyncio.Future[Response] = self._loop.create_future()
        self.world.later(self.world.delay(LONGEST_DELAY_SECONDS), partial(self._arrive, handle, answer))
        return await answer

    def _arrive(self, handle: Callable[[], Response], answer: asyncio.Future[Response]) -> None:
        result: Response | APIError
        if self.api.is_down or self.world.chance(0.01):
            result = Unreachable("no connection")
        elif self.world.chance(0.01):
            result = ServerError("500")
        else:
            try:
                result = handle()
            except APIError as error:
                result = error
            if self.world.chance(0.01):
                result = RequestTimeout("no response, but the request was handled")
        self.world.later(self.world.delay(LONGEST_DELAY_SECONDS), lambda: self.call(partial(_answer, answer, result)))


def _answer(future: asyncio.Future[Response], result: Response | APIError) -> None:
    if future.done():
        return
    if isinstance(result, APIError):
        future.set_exception(result)
    else:
        future.set_result(result)


class Watches:
    """A replica's watches: events arrive in order, late, sometimes twice; an interrupted watch misses some."""

    def __init__(
        self,
        replica: Replica,
        changed: Callable[[str, str, Body], None],
        knows: Callable[[str, Body], bool],
        listing: Callable[[str], None],
        _identity: str,
    ) -> None:
        self.settings = SimpleNamespace(watching=SimpleNamespace(chunk_size=0))
        self._replica = replica
        self._changed = changed
        self._knows = knows
        self._listing = listing
        # When the last event arrives, by kind; a kind that isn't in it isn't watched.
        self._open: dict[str, list[float]] = {}
        replica.watches = self

    async def run(self, _recover: Callable[[], Awaitable[None]]) -> None:
        """Watch until canceled."""
        for kind in KINDS:
            self._watch(kind)
        self._replica.api.watchers.append(self._notify)
        try:
            await asyncio.Event().wait()
        finally:
            self._replica.api.watchers.remove(self._notify)

    def restart(self) -> None:
        self._replica.world.violations.append("the operator mistook the API server's state for an older one")

    def interrupt(self, kind: str) -> None:
        """Interrupt a watch: events on their way are lost, and those until it's restarted."""
        world = self._replica.world
        if self._open.pop(kind, None):
            world.later(world.random.uniform(0.1, LONGEST_DELAY_SECONDS), lambda: self._watch(kind))

    def _watch(self, kind: str) -> None:
        """List a kind, and watch it from then on."""
        world = self._replica.world
        self._open[kind] = [world.now]
        world.later(world.delay(1), lambda: self._replica.call(lambda: self._listing(kind)))

    def _notify(self, kind: str, event: str, body: Body) -> None:
        if stream := self._open.get(kind):
            world = self._replica.world
            stream[0] = max(stream[0], world.now + world.delay(LONGEST_DELAY_SECONDS))
            deliver = partial(self._deliver, stream, kind, event, body)
            world.later(stream[0] - world.now, deliver)
            if world.chance(0.05):
                world.later(stream[0] - world.now + world.random.uniform(0, LONGEST_DELAY_SECONDS), deliver)

    def _deliver(self, stream: list[float], kind: str, event: str, body: Body) -> None:
        # The filter runs in another thread, perhaps before the process has handled a former event or a response.
        is_news = news_filter(kind, self._knows)
        if self._open.get(kind) is stream and is_news(event={"type": event, "object": body}):
            self._replica.call(partial(self._changed, kind, event, body))


class ErrorHandler(logging.Handler):
    """Records logged errors as violations; a failed request only explains that keys can't be written back."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if not (message := record.getMessage()).startswith("cannot write back the sealing keys"):
            self._world.violations.append(f"logged: {message}")
