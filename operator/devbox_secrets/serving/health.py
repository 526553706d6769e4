"""Probes and metrics over HTTP: /readyz, /healthz, /metrics."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

Probe = Callable[[], Awaitable[str | None]]
"""Returns what is wrong, or None."""


async def serve(port: int, *, unready: Probe, unhealthy: Probe, measure: Callable[[], bytes]) -> web.AppRunner:
    """Serve until the runner is cleaned up; a probe gets 200, or 503 with what is wrong."""

    def respond(probe: Probe) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_: web.Request) -> web.Response:
            problem = await probe()
            return web.Response(text=problem or "ok", status=503 if problem else 200)

        return handle

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=measure(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [
            web.get("/readyz", respond(unready)),
            web.get("/healthz", respond(unhealthy)),
            web.get("/metrics", metrics),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
