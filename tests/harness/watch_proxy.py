"""A proxy for an API server that cuts and freezes watches, and delays, rejects and holds requests."""

import asyncio
import json
import random
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from harness.components import write_private
from harness.controlplane import ControlPlane

_EXPIRED = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}
_CLOSE_SECONDS = 0.25
_OWN_HEADERS = ("Host", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Accept-Encoding")


@dataclass
class WatchProxy:
    """Forwards requests with their headers, on the loopback address."""

    url: str = ""
    _upstream: str = ""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _watches: dict[asyncio.Task[None], str] = field(default_factory=dict)
    """The open watches and their paths."""
    _cut_kind: str | None = None
    _expired: set[str] = field(default_factory=set)
    """The paths of watches that will get the error Expired."""
    _frozen: set[asyncio.Task[None]] = field(default_factory=set)
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    delay_seconds: float = 0.0
    """The delay of each response that isn't a watch."""
    refusals: Sequence[int] = ()
    """The statuses with which half of the requests are rejected."""

    @classmethod
    @contextmanager
    def start(cls, controlplane: ControlPlane) -> Iterator["WatchProxy"]:
        """Run the proxy in a separate thread."""
        it = cls(_upstream=controlplane.url)
        started, stop = threading.Event(), asyncio.Event()
        it._open.set()
        main = it._serve(controlplane, started, stop)
        thread = threading.Thread(target=it._loop.run_until_complete, args=(main,))
        thread.start()
        started.wait()
        try:
            yield it
        finally:
            it._loop.call_soon_threadsafe(stop.set)
            thread.join()
            it._loop.close()

    @contextmanager
    def cut(self, kind: str = "") -> Iterator[None]:
        """End all watches or those of a kind, and reject new ones meanwhile; afterwards each expires once."""
        self._cut_kind = kind
        self._loop.call_soon_threadsafe(self._cut, kind)
        try:
            yield
        finally:
            self._cut_kind = None

    def freeze(self, kind: str = "") -> None:
        """Stop forwarding on the open watches of a kind, or of all, without closing them."""
        self._frozen.update(watch for watch, path in list(self._watches.items()) if _is_of(path, kind))

    @contextmanager
    def blackhole(self) -> Iterator[None]:
        """Forward nothing, like a broken network: requests, responses and events arrive afterwards."""
        self._loop.call_soon_threadsafe(self._open.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._open.set)

    def _cut(self, kind: str) -> None:
        for watch, path in list(self._watches.items()):
            if _is_of(path, kind):
                self._expired.add(path)
                watch.cancel()

    async def _serve(self, controlplane: ControlPlane, started: threading.Event, stop: asyncio.Event) -> None:
        trust = ssl.create_default_context(cadata=controlplane.authority.pem.decode())
        connector = aiohttp.TCPConnector(ssl=trust, limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def handle(request: web.Request) -> web.StreamResponse:
                return await self._handle(session, request)

            app = web.Application(client_max_size=1 << 24)
            app.router.add_route("*", "/{path:.*}", handle)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=_serving(controlplane))
            await site.start()
            self.url = "https://{}:{}".format(*runner.addresses[0][:2])
            started.set()
            await stop.wait()
            self._cut("")
            await runner.cleanup()
        # aiohttp closes TLS connections in the background, without a way to wait for it.
        await asyncio.sleep(_CLOSE_SECONDS)

    async def _handle(self, session: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
        is_watch, path = request.query.get("watch") == "true", request.path
        if is_watch and self._cut_kind is not None and _is_of(path, self._cut_kind):
            raise web.HTTPServiceUnavailable
        if is_watch and path in self._expired:
            self._expired.discard(path)
            return web.Response(text=json.dumps({"type": "ERROR", "object": _EXPIRED}) + "\n")
        if self.refusals and random.random() < 0.5:  # noqa: S311 - not for cryptography
            return _rejection(random.choice(self.refusals))  # noqa: S311
        if not is_watch:
            await asyncio.sleep(self.delay_seconds)
        await self._open.wait()
        try:
            return await self._forward(session, request, is_watch=is_watch)
        except (aiohttp.ClientConnectionError, ConnectionError):  # of either side
            raise web.HTTPBadGateway from None

    async def _forward(
        self, session: aiohttp.ClientSession, request: web.Request, *, is_watch: bool
    ) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name not in _OWN_HEADERS}
        async with session.request(
            request.method, self._upstream + request.path_qs, headers=headers, data=await request.read() or None
        ) as upstream:
            kept = {name: value for name, value in upstream.headers.items() if name not in _OWN_HEADERS}
            response = web.StreamResponse(status=upstream.status, headers=kept)
            await self._open.wait()
            await response.prepare(request)
            copying = asyncio.ensure_future(self._copy(upstream, response))
            if is_watch:
                self._watches[copying] = request.path
            await asyncio.gather(copying, return_exceptions=True)
            self._watches.pop(copying, None)
            return response

    async def _copy(self, upstream: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        async for chunk in upstream.content.iter_any():
            if asyncio.current_task() in self._frozen:
                await asyncio.Event().wait()
            await self._open.wait()
            await response.write(chunk)


def _is_of(path: str, kind: str) -> bool:
    return not kind or path.endswith(f"/{kind}")


def _rejection(status: int) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Refused", "code": status}
    return web.json_response(body | {"message": "refused"}, status=status, headers={"Retry-After": "1"})


def _serving(controlplane: ControlPlane) -> ssl.SSLContext:
    pair = controlplane.authority.server("localhost", addresses=["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(write_private(controlplane.folder / "watch-proxy.pem", pair.certificate + pair.key))
    return context
