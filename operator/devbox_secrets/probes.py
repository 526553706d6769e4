"""What the kubelet and Prometheus ask a process over HTTP: /readyz, /healthz, /metrics. Imports nothing of ours."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

Trouble = Callable[[], Awaitable[str | None]]
"""Says what is wrong, if something is."""


async def serve(port: int, *, unready: Trouble, unhealthy: Trouble, measure: Callable[[], bytes]) -> web.AppRunner:
    """Answer until the runner is cleaned up: 200, or 503 with what is wrong."""

    def probe(trouble: Trouble) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            said = await trouble()
            return web.Response(text=said or "ok", status=503 if said else 200)

        return answer

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=measure(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [
            web.get("/readyz", probe(unready)),
            web.get("/healthz", probe(unhealthy)),
            web.get("/metrics", metrics),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
