"""A client for the API server that returns prepared responses and records the requests."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from devbox_secrets.kube.client import Client

Json = dict[str, Any]


@dataclass
class FakeClient(Client):
    """Responds to each `METHOD path` with a body, or raises an error."""

    responses: Mapping[str, Json | Exception]
    requests: list[tuple[str, Json]] = field(default_factory=list)
    """Each request's `METHOD path` and its options."""

    async def request(self, method: str, path: str, **options: Any) -> Json:  # noqa: ANN401 - the client's own
        self.requests.append((f"{method} {path}", options))
        response = self.responses[f"{method} {path}"]
        if isinstance(response, Exception):
            raise response
        return response

    async def pages(self, path: str, query: Mapping[str, str], limit: int = 500, **_: object) -> AsyncIterator[Json]:
        yield await self.request("GET", path, query=query, limit=limit)
