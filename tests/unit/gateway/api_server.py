"""An API server in memory, as far as the gateway depends on it: permissions, conflicts, tables, watches."""

import asyncio
import copy
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TypeVar
from uuid import uuid4

from devbox_secrets.api.names import ACCOUNT_LABEL
from devbox_secrets.crypto.envelope import KeyPair, Keyring
from devbox_secrets.errors import APIError, Conflict, Forbidden, Invalid, NotFound, Unauthorized
from devbox_secrets.gateway.backend.upstream import TABLE, Body, Upstream

T = TypeVar("T")

EDIT = frozenset({"get", "list", "watch", "create", "update", "patch", "delete", "get namespaces"})
VIEW = frozenset({"get", "list", "watch", "get namespaces"})
KEYS = Keyring([KeyPair.generate(datetime.now(UTC))])
_ITEM = re.compile("/apis/devbox-secrets.dev/v1beta1/namespaces/([^/]+)/accountsecrets(?:/([^/]+))?")
_NAMESPACE = re.compile("/api/v1/namespaces/([^/]+)")
_PUBLIC_KEYS = "/api/v1/namespaces/devbox-secrets/configmaps/devbox-secrets-public-keys"


class APIServer(Upstream):
    """Replaces the connection to a real one."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.rights: dict[tuple[str, str], frozenset[str]] = {}
        self.namespaces: dict[str, dict[str, str]] = {}
        self.objects: dict[tuple[str, str], Body] = {}
        self.public_keys: dict[str, str] | None = {"newest": str(KEYS.newest.public)}
        self.requests: list[str] = []
        self.before: Callable[[str, str], None] = lambda _, __: None
        """Called before each request is served: it may change something, or raise an error."""
        self._versions = count(1)
        self._times = count()
        self._changed = asyncio.Condition()

    def add_account(self, name: str, rights: frozenset[str] = EDIT, **labels: str) -> str:
        """Create a namespace with a ServiceAccount; return its token."""
        self.namespaces[name] = {key.replace("__", "/"): value for key, value in labels.items()}
        self.users[f"token-of-{name}"] = f"system:serviceaccount:{name}:editor"
        self.rights[f"token-of-{name}", name] = rights
        return f"token-of-{name}"

    def join(self, namespace: str, account: str) -> None:
        """Label a namespace as a member of an account."""
        self.namespaces[namespace] = {ACCOUNT_LABEL: account}

    def put(self, account: str, name: str, variable: str) -> Body:
        """Store an AccountSecret, as kubectl does."""
        return self._store(account, {"metadata": {"name": name}, "spec": {"name": variable, "sealed": "dbs1.x"}})

    def opened(self, account: str, name: str) -> bytes:
        """Open an AccountSecret's value."""
        spec = self.objects[account, name]["spec"]
        return KEYS.open(spec["sealed"], account=account, name=spec["name"]).get_secret_value()

    async def set_status(self, account: str, name: str, status: Body) -> None:
        """Set an AccountSecret's status, as the operator does."""
        async with self._changed:
            self.objects[account, name]["status"] = status
            self._touch(self.objects[account, name])
            self._changed.notify_all()

    async def delete(self, account: str, name: str) -> None:
        """Delete an AccountSecret, as kubectl does."""
        async with self._changed:
            del self.objects[account, name]
            self._changed.notify_all()

    async def request(
        self,
        token: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Body:
        self.requests.append(f"{method} {path}")
        self.before(method, path)
        await asyncio.sleep(0)  # as a request does, so that other tasks run
        if token not in self.users:
            raise Unauthorized(f"{method}: 401")
        if path.endswith("/selfsubjectreviews"):
            return {"status": {"userInfo": {"username": self.users[token]}}}
        if path == _PUBLIC_KEYS:
            return {"data": self._found(self.public_keys)}
        if match := _NAMESPACE.fullmatch(path):
            self._check(token, match[1], "get namespaces")
            return {"metadata": {"name": match[1], "labels": self._found(self.namespaces.get(match[1]))}}
        match = _ITEM.fullmatch(path)
        assert match, path
        account, name = match.groups()
        verb = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch", "DELETE": "delete"}[method]
        self._check(token, account, verb)
        assert (verb == "list") == ((headers or {}).get("Accept") == TABLE), path
        return copy.deepcopy(self._serve(verb, (account, name), query or {}, body or {}))

    async def watch(
        self, token: str, path: str, query: Mapping[str, str], on_event: Callable[[str, Body], T | None]
    ) -> T | None:
        self.requests.append(f"WATCH {path}")
        self.before("WATCH", path)
        match = _ITEM.fullmatch(path)
        assert match, path
        self._check(token, match[1], "watch")
        key, seen = (match[1], query["fieldSelector"].removeprefix("metadata.name=")), ""
        async with self._changed:
            while True:
                found = self.objects.get(key)
                event = "DELETED" if found is None else "MODIFIED"
                it = found or {"metadata": {"uid": seen}}
                if (result := on_event(event, copy.deepcopy(it))) is not None:
                    return result
                seen = it["metadata"]["uid"]
                await self._changed.wait()

    def _serve(self, verb: str, key: tuple[str, str], query: Mapping[str, str], body: Body) -> Body:
        if verb == "create":
            return self._create(key[0], body)
        if verb == "list":
            return self._list(key[0], query)
        found: Body = self._found(self.objects.get(key))
        if verb == "patch":
            return self._patch(found, body)
        if verb == "delete":
            if body["preconditions"]["uid"] != found["metadata"]["uid"]:
                raise Conflict("DELETE: 409")
            return self.objects.pop(key)
        return found

    def _check(self, token: str, namespace: str, right: str) -> None:
        if right not in self.rights.get((token, namespace), frozenset()):
            raise Forbidden(f"{right}: 403")

    @staticmethod
    def _found(it: T | None) -> T:
        if it is None:
            raise NotFound("404")
        return it

    def _create(self, account: str, body: Body) -> Body:
        if self.namespaces[account].get(ACCOUNT_LABEL, account) != account:
            raise Invalid("POST: 422")  # by the chart's policy devbox-secrets-homes
        if (account, body["metadata"]["name"]) in self.objects:
            raise Conflict("POST: 409")
        return self._store(account, body)

    def _store(self, account: str, body: Body) -> Body:
        created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(self._times))
        it = copy.deepcopy(body)
        it["metadata"] |= {
            "uid": str(uuid4()),
            "namespace": account,
            "creationTimestamp": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "generation": 1,
        }
        self.objects[account, it["metadata"]["name"]] = it
        return self._touch(it)

    def _patch(self, found: Body, body: Body) -> Body:
        if body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            raise Conflict("PATCH: 409")
        found["metadata"].setdefault("annotations", {}).update(body["metadata"]["annotations"])
        found["spec"] |= body["spec"]
        found["metadata"]["generation"] += 1
        return self._touch(found)

    def _touch(self, it: Body) -> Body:
        it["metadata"]["resourceVersion"] = str(next(self._versions))
        return it

    def _list(self, account: str, query: Mapping[str, str]) -> Body:
        variable = query["fieldSelector"].removeprefix("spec.name=")
        every = [
            it for (owner, _), it in self.objects.items() if owner == account and variable in {"", it["spec"]["name"]}
        ]
        start, limit = int(query.get("continue") or 0), int(query["limit"])
        rest = str(start + limit) if len(every) > start + limit else ""
        return _table(every[start : start + limit], rest)


def _table(objects: list[Body], rest: str = "") -> Body:
    return {
        "metadata": {"continue": rest},
        "columnDefinitions": [{"name": "Name"}, {"name": "Variable"}, {"name": "Ready"}],
        "rows": [
            {"cells": [it["metadata"]["name"], it["spec"]["name"], _ready(it)], "object": {"metadata": it["metadata"]}}
            for it in objects
        ],
    }


def _ready(it: Body) -> str | None:
    conditions = it.get("status", {}).get("conditions", [])
    return next((each["status"] for each in conditions if each["type"] == "Ready"), None)


def ready(generation: int = 1, *, message: str = "", reason: str = "Synced") -> Body:
    """Return a status that says that devboxes have the value, or, with a message, that they don't."""
    condition = {
        "type": "Ready",
        "status": "False" if message else "True",
        "reason": reason,
        "message": message or "devboxes have it",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": generation,
    }
    return {"observedGeneration": generation, "conditions": [condition]}


def once(error: APIError, method: str) -> Callable[[str, str], None]:
    """Return a function that makes the next request with this method fail."""
    left = [error]

    def before(each: str, _: str) -> None:
        if each == method and left:
            raise left.pop()

    return before
