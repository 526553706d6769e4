"""A small API server in memory, and a client of it: lists, reads, and writes that insist on a resourceVersion."""

import asyncio
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from devbox_secrets.errors import Conflict, NotFound, NotLeader
from devbox_secrets.kube.client import APPLY, Body, Client, Response


class FakeApi:
    """Objects by their REST path."""

    def __init__(self) -> None:
        self.objects: dict[str, Body] = {}
        self.requests: list[tuple[str, str]] = []
        """Method and path of every request, in their order."""
        self.failures: dict[tuple[str, str], list[Exception]] = {}
        """By method and path: what the next requests fail with, one after the other."""
        self.before: dict[tuple[str, str], Callable[[], object]] = {}
        """By method and path: what happens just before the next such request."""
        self.held: dict[tuple[str, str], asyncio.Event] = {}
        """By method and path: what the next such request waits for."""
        self._version = 0

    def put(self, path: str, body: Mapping[str, Any]) -> Body:
        """Take an object as someone else wrote it."""
        self._version += 1
        created = {"uid": f"uid-{self._version}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        metadata = created | {**body.get("metadata", {}), "resourceVersion": str(self._version)}
        self.objects[path] = {**body, "metadata": metadata}
        return self.objects[path]

    def delete(self, path: str) -> None:
        """Forget an object."""
        self._version += 1
        del self.objects[path]

    def snapshot(self) -> Callable[[], None]:
        """Give what restores the objects and their versions as they are now."""
        objects, version = deepcopy(self.objects), self._version

        def restore() -> None:
            self.objects, self._version = objects, version

        return restore

    def paths(self, method: str) -> list[str]:
        """Give the paths of the requests with a method, in their order."""
        return [path for each, path in self.requests if each == method]

    def fail(self, method: str, path: str, *errors: Exception) -> None:
        """Fail the next requests, each with one of these errors."""
        self.failures[method, path] = list(errors)

    def handle(self, method: str, path: str, query: Mapping[str, str], body: Body, media_type: str) -> Response:
        """Answer a request."""
        self.requests.append((method, path))
        if happens := self.before.pop((method, path), None):
            happens()
        if errors := self.failures.get((method, path)):
            raise errors.pop(0)
        if method == "POST":
            return Response(201, self.put(f"{path}/{body['metadata']['name']}", body))
        target = path.removesuffix("/status")
        found = self.objects.get(target)
        if method == "GET":
            return Response(200, self._list(path, query) if found is None else found)
        if found is None and media_type == APPLY:
            return Response(201, self.put(target, _applied(target, {}, body, query)))
        if found is None:
            raise NotFound(f"{method} {path}: 404 NotFound")
        expected = (body.get("preconditions") or body["metadata"]).get("resourceVersion")
        if expected not in {None, found["metadata"]["resourceVersion"]}:
            raise Conflict(f"{method} {path}: 409 Conflict")
        if method == "DELETE":
            self.delete(target)
            return Response(200, {})
        change = _applied(target, found, body, query) if media_type == APPLY else _merged(found, body)
        return Response(200, self.put(target, change))

    def _list(self, path: str, query: Mapping[str, str]) -> Body:
        prefix, _, kind = path.rpartition("/")
        name = query.get("fieldSelector", "").removeprefix("metadata.name=")
        items = [
            body
            for at, body in self.objects.items()
            if at.startswith(prefix) and at.split("/")[-2] == kind and (not name or body["metadata"]["name"] == name)
        ]
        if not {"limit", "fieldSelector"} & query.keys():
            raise NotFound(f"GET {path}: 404 NotFound")
        return {"metadata": {"resourceVersion": str(self._version)}, "items": items}


def _applied(path: str, found: Body, body: Body, query: Mapping[str, str]) -> Body:
    """Apply as the one manager that there is: what it doesn't name goes."""
    *_, namespace, _, _ = path.split("/")
    fields = {
        "f:data": {f"f:{name}": {} for name in body.get("data", {})},
        "f:metadata": {"f:labels": {f"f:{name}": {} for name in body["metadata"].get("labels", {})}},
    }
    entry = {"manager": query["fieldManager"], "operation": "Apply", "time": "2026-01-01T00:00:00Z", "fieldsV1": fields}
    metadata = {**found.get("metadata", {}), "namespace": namespace, **body["metadata"], "managedFields": [entry]}
    return {**body, "metadata": metadata}


def _merged(found: Body, patch: Body) -> Body:
    """RFC 7396."""
    result = dict(found)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name) or {}, value) if isinstance(value, dict) else value
    return result


class FakeClient(Client):
    """The real client's methods on a `FakeApi`: fenced as the real one is."""

    def __init__(self, api: FakeApi, may_write: Callable[[], bool] = lambda: True) -> None:
        super().__init__(api, may_write)  # type: ignore[arg-type]  # handed on by `fenced`
        self.api = api

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        media_type: str = "application/json",
        **_: object,
    ) -> Response:
        if method != "GET" and not self._may_write():
            raise NotLeader(f"{method} {path}: not sent")
        if held := self.api.held.pop((method, path), None):
            await held.wait()
        return self.api.handle(method, path, query or {}, body or {}, media_type)
