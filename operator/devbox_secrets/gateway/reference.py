"""docs/openapi.json, made from the endpoints: `python -m devbox_secrets.gateway.reference`. Imports app.

Run by `make generate` alone.
"""

import asyncio
import json
import sys

import aiohttp

from devbox_secrets.gateway.app import endpoints
from devbox_secrets.gateway.document import document
from devbox_secrets.gateway.rates import Rates
from devbox_secrets.gateway.store import Store
from devbox_secrets.gateway.upstream import Upstream
from devbox_secrets.gateway.waiting import Waiting


async def reference() -> str:
    """Give the text of docs/openapi.json."""
    async with aiohttp.ClientSession() as session:  # nobody is asked
        upstream = Upstream(session, None, 0)  # type: ignore[arg-type]
        app = endpoints(upstream, Store(upstream, "", ()), Waiting(upstream, 0), 0, Rates(0, 1))
    return json.dumps(document(app), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(reference()))
