"""A small API server in memory and a client for it, with lists, reads, and writes that check the resourceVersion."""

import asyncio
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Protocol

from devbox_secrets.errors import Conflict, NotFound, NotLeader
from devbox_secrets.kube.client import APPLY, Body, Client, Response


class FakeApi:
    """Objects by their REST path."""

    def __init__(self) -> None:
        self.objects: dict[str, Body] = {}
        self.requests: list[tuple[str, str]] = []
        """Method and path of each request, in order."""
        self.failures: dict[tuple[str, str], list[Exception]] = {}
        """The errors of the next requests, by method and path."""
        self.before: dict[tuple[str, str], Callable[[], object]] = {}
        """Functions to call just before the next request, by method and path."""
        self.held: dict[tuple[str, str], asyncio.Event] = {}
        """Events for which the next request waits, by method and path."""
        self._version = 0

    def timestamp(self) -> str:
        """Return the time of a write."""
        return "2026-01-01T00:00:00Z"

    def put(self, path: str, body: Mapping[str, Any]) -> Body:
        """Store an object as someone else wrote it."""
        self._version += 1
        created = {"uid": f"uid-{self._version}", "creationTimestamp": self.timestamp()}
        metadata = created | {**body.get("metadata", {}), "resourceVersion": str(self._version)}
        self.objects[path] = {**body, "metadata": metadata}
        return self.objects[path]

    def delete(self, path: str) -> None:
        """Delete an object."""
        self._version += 1
        del self.objects[path]

    def snapshot(self) -> Callable[[], None]:
        """Return a function that restores the current objects and their versions."""
        objects, version = deepcopy(self.objects), self._version

        def restore() -> None:
            self.objects, self._version = objects, version

        return restore

    def paths(self, method: str) -> list[str]:
        """Return the paths of the requests with a method, in order."""
        return [path for each, path in self.requests if each == method]

    def fail(self, method: str, path: str, *errors: Exception) -> None:
        """Fail the next requests, each with one of these errors."""
        self.failures[method, path] = list(errors)

    async def answer(self, method: str, path: str, query: Mapping[str, str], body: Body, media_type: str) -> Response:
        """Respond to a request, after waiting if it's held."""
        if held := self.held.pop((method, path), None):
            await held.wait()
        return self.handle(method, path, query, body, media_type)

    def handle(self, method: str, path: str, query: Mapping[str, str], body: Body, media_type: str) -> Response:
        """Respond to a request."""
        self.requests.append((method, path))
        if callback := self.before.pop((method, path), None):
            callback()
        if errors := self.failures.get((method, path)):
            raise errors.pop(0)
        if method == "POST":
            return Response(201, self.put(f"{path}/{body['metadata']['name']}", body))
        target = path.removesuffix("/status")
        found = self.objects.get(target)
        if method == "GET":
            return Response(200, self._list(path, query) if found is None else found)
        if found is None and media_type == APPLY:
            if body["metadata"].get("uid"):
                raise Conflict(f"{method} {path}: 409 Conflict")
            return Response(201, self.put(target, _applied(target, {}, body, self._manager(query))))
        if found is None:
            raise NotFound(f"{method} {path}: 404 NotFound")
        expected = (body.get("preconditions") or body["metadata"]).get("resourceVersion")
        if expected and expected != found["metadata"]["resourceVersion"]:
            raise Conflict(f"{method} {path}: 409 Conflict")
        if method == "DELETE":
            self.delete(target)
            return Response(200, {})
        change = _applied(target, found, body, self._manager(query)) if media_type == APPLY else _merged(found, body)
        return Response(200, self.put(target, change))

    def _manager(self, query: Mapping[str, str]) -> Body:
        return {"manager": query["fieldManager"], "operation": "Apply", "time": self.timestamp()}

    def _list(self, path: str, query: Mapping[str, str]) -> Body:
        prefix, _, kind = path.rpartition("/")
        name = query.get("fieldSelector", "").removeprefix("metadata.name=")
        items = [
            body
            for at, body in self.objects.items()
            if at.startswith(prefix) and at.split("/")[-2] == kind and (not name or body["metadata"]["name"] == name)
        ]
        if not {"limit", "fieldSelector"} & query.keys():
            raise NotFound(f"GET {path}: 404 NotFound", details={"kind": prefix.rpartition("/")[2], "name": kind})
        return {"metadata": {"resourceVersion": str(self._version)}, "items": items}


def _applied(path: str, found: Body, body: Body, manager: Body) -> Body:
    """Apply with force: remove what the manager applied before and no longer names; keep what others wrote."""
    *_, namespace, _, _ = path.split("/")
    metadata = {**found.get("metadata", {}), "namespace": namespace, **body["metadata"]}
    data, labels = body.get("data", {}), labels_of(body)
    fields = {"f:data": _named(data), "f:metadata": {"f:labels": _named(labels)}}
    former: Body = {"f:data": {}, "f:metadata": {"f:labels": {}}}
    others: list[Body] = []
    for entry in metadata.get("managedFields", []):
        theirs: Body = {name: {} for name in entry["fieldsV1"]["f:data"] if name not in fields["f:data"]}
        if (entry["manager"], entry["operation"]) == (manager["manager"], "Apply"):
            former = entry["fieldsV1"]
        elif theirs or entry["operation"] == "Apply":
            others.append({**entry, "fieldsV1": {**entry["fieldsV1"], "f:data": theirs}})
    metadata["labels"] = _without(labels_of(found), former["f:metadata"]["f:labels"]) | labels
    metadata["managedFields"] = [*others, {**manager, "fieldsV1": fields}]
    result = {**found, **body, "metadata": metadata}
    if found.get("data") or data:
        result["data"] = _without(found.get("data", {}), former["f:data"]) | data
    return result


def labels_of(body: Body) -> Body:
    """Return an object's labels."""
    labels: Body = body.get("metadata", {}).get("labels") or {}
    return labels


def _named(values: Body) -> Body:
    return {f"f:{name}": {} for name in values}


def _without(values: Body, fields: Body) -> Body:
    return {name: value for name, value in values.items() if f"f:{name}" not in fields}


def _merged(found: Body, patch: Body) -> Body:
    """RFC 7396."""
    result = dict(found)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name) or {}, value) if isinstance(value, dict) else value
    return result


class Answers(Protocol):
    """What a `FakeClient` sends its requests to."""

    async def answer(self, method: str, path: str, query: Mapping[str, str], body: Body, media_type: str) -> Response:
        """Respond to a request."""


class FakeClient(Client):
    """The real client's methods with a `FakeApi`, or with what leads to one; writes are fenced as in the real one."""

    def __init__(self, api: Answers, may_write: Callable[[], bool] = lambda: True) -> None:
        super().__init__(api, may_write)  # type: ignore[arg-type]  # passed on by `fenced`
        self._api = api

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
        return await self._api.answer(method, path, query or {}, body or {}, media_type)
