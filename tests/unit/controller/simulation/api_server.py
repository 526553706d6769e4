"""An API server in memory with watches, and with namespaces that are deleted with their objects."""

from collections.abc import Callable, Mapping
from http import HTTPStatus

from devbox_secrets.api.accounts import account_of
from devbox_secrets.api.names import (
    ACCOUNT_SECRET,
    LEASE,
    NAMESPACES_PATH,
    PLURAL,
    PUBLIC_KEYS_CONFIGMAP,
    account_secrets_path,
)
from devbox_secrets.controller.rules.status import timestamp
from devbox_secrets.errors import Forbidden, NotFound
from devbox_secrets.kube.client import Body, Response
from unit.controller.objects import at
from unit.controller.simulation.world import World
from unit.kube.fake_api import FakeApi, labels_of

OPERATOR = "operator"
Write = Callable[[str, Body | None, Body | None], None]
"""Takes an account Secret's namespace, and its state before and after a write by the operator."""


class ApiServer(FakeApi):
    """Namespaces, account Secrets, AccountSecrets, the Lease and the sealing keys."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.is_down = False
        self.watchers: list[Callable[[str, str, Body], None]] = []
        """Each takes a kind, a type of event and an object."""
        self.on_write: Write = lambda *_: None
        self.put_namespace(OPERATOR, {})
        self.put(f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR}/leases/{LEASE}", {"metadata": {"name": LEASE}})
        name = PUBLIC_KEYS_CONFIGMAP
        self.put(f"{NAMESPACES_PATH}/{OPERATOR}/configmaps/{name}", {"metadata": {"name": name}})

    def timestamp(self) -> str:
        return timestamp(self._world.time())

    def put(self, path: str, body: Mapping[str, object]) -> Body:
        event = "MODIFIED" if path in self.objects else "ADDED"
        written = super().put(path, body)
        self._notify(path, event, written)
        return written

    def delete(self, path: str) -> None:
        last = self.objects[path]
        super().delete(path)
        self._notify(path, "DELETED", at(self._version, last))

    def handle(self, method: str, path: str, query: Mapping[str, str], body: Body, media_type: str) -> Response:
        self.requests.clear()
        if method == "GET":
            return super().handle(method, path, query, body, media_type)
        _, _, rest = path.partition("/namespaces/")
        namespace = rest.partition("/")[0]
        home = self.objects.get(f"{NAMESPACES_PATH}/{namespace}")
        if home is None:
            raise NotFound("404")
        if method == "POST":
            return Response(HTTPStatus.CREATED, {})  # an Event, which nobody reads
        found = self.objects.get(path)
        if found is None and "deletionTimestamp" in home["metadata"] and not path.endswith("/status"):
            raise Forbidden("403")
        response = super().handle(method, path, query, body, media_type)
        if path.endswith(f"/{ACCOUNT_SECRET}"):
            self.on_write(namespace, found, self.objects.get(path))
        return response

    def namespaces(self) -> dict[str, Body]:
        """Return the namespaces by name."""
        return {body["metadata"]["name"]: body for path, body in self.objects.items() if _kind(path) == "namespaces"}

    def accounts(self) -> dict[str, str]:
        """Return the account of each namespace that isn't being deleted."""
        return {
            name: account_of(name, labels_of(body))
            for name, body in self.namespaces().items()
            if "deletionTimestamp" not in body["metadata"]
        }

    def account_secrets(self, namespace: str) -> list[Body]:
        """Return a namespace's AccountSecrets."""
        prefix = f"{account_secrets_path(namespace)}/"
        return [body for path, body in self.objects.items() if path.startswith(prefix)]

    def account_secret(self, namespace: str) -> Body | None:
        """Return a namespace's account Secret."""
        return self.objects.get(secret_path(namespace))

    def put_namespace(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a namespace, or change its labels."""
        path = f"{NAMESPACES_PATH}/{name}"
        former = self.objects.get(path, {}).get("metadata", {"name": name})
        self.put(path, {"metadata": {**former, "labels": labels}})

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace: it accepts no new objects, and seconds later it's gone with its objects."""
        path = f"{NAMESPACES_PATH}/{name}"
        body = self.objects[path]
        self.put(path, {**body, "metadata": {**body["metadata"], "deletionTimestamp": self.timestamp()}})
        # Not within the same second: creation times distinguish new objects from former ones.
        self._world.later(self._world.random.uniform(1, 4), lambda: self._end(name))

    def _end(self, name: str) -> None:
        for path in [path for path in self.objects if f"/namespaces/{name}/" in path]:
            self.delete(path)
        self.delete(f"{NAMESPACES_PATH}/{name}")

    def _notify(self, path: str, event: str, body: Body) -> None:
        kind = _kind(path)
        if kind in {"namespaces", PLURAL} or path.endswith(f"/{ACCOUNT_SECRET}"):
            for watcher in self.watchers:
                watcher(kind, event, body)


def secret_path(namespace: str) -> str:
    """Return the path of a namespace's account Secret."""
    return f"{NAMESPACES_PATH}/{namespace}/secrets/{ACCOUNT_SECRET}"


def _kind(path: str) -> str:
    return path.rsplit("/", 2)[-2]
