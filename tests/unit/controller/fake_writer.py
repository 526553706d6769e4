"""A Writer for objects in memory: it records calls, requires current resourceVersions, and fails on request."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecretStatus
from devbox_secrets.api.names import CREATE_FIELD_MANAGER
from devbox_secrets.controller.rules.events import Event
from devbox_secrets.controller.writes import Writer
from devbox_secrets.errors import APIError, Conflict, NotFound
from unit.controller.objects import CREATED, Body, applied, at, secret


@dataclass(frozen=True)
class RecordedEvent:
    """An Event as it was created."""

    regarding: Mapping[str, str]
    event: Event
    time: str
    reporter: str


class FakeWriter(Writer):
    """Account Secrets, AccountSecrets and Events.

    A call is recorded as its action and its object: `apply box`, `status team/a`.
    """

    def __init__(self) -> None:
        self.versions = count(1)
        self.calls: list[str] = []
        self.secrets: dict[str, Body] = {}
        """By namespace."""
        self.account_secrets: dict[tuple[str, str], Body] = {}
        """By namespace and name."""
        self.namespaces: dict[str, tuple[str, str]] = {}
        """The UID and the account of each namespace, by name."""
        self.events: list[RecordedEvent] = []
        self.before: dict[str, Callable[[], object]] = {}
        """Functions that run just before a call, by call."""
        self._failures: dict[str, list[APIError]] = {}
        self._always: dict[str, APIError] = {}

    def fail_once(self, call: str, error: APIError) -> None:
        """Fail the next such call."""
        self._failures.setdefault(call, []).append(error)

    def fail_always(self, call: str, error: APIError) -> None:
        """Fail each such call."""
        self._always[call] = error

    def recover(self) -> None:
        """Stop failing."""
        self._always.clear()

    def values(self, namespace: str) -> dict[str, str]:
        """Return the values of a namespace's account Secret."""
        return {name: base64.b64decode(raw).decode() for name, raw in self.secrets[namespace]["data"].items()}

    def put_secret(self, body: Body) -> Body:
        """Store an account Secret that someone wrote."""
        self.secrets[body["metadata"]["namespace"]] = written = at(next(self.versions), body)
        return written

    def put_account_secret(self, body: Body) -> Body:
        """Store an AccountSecret that someone wrote."""
        metadata = body["metadata"]
        self.account_secrets[metadata["namespace"], metadata["name"]] = written = at(next(self.versions), body)
        return written

    def status(self, name: str, namespace: str = "team") -> AccountSecretStatus:
        """Return an AccountSecret's status."""
        return AccountSecretStatus.model_validate(self.account_secrets[namespace, name].get("status") or {})

    async def has_namespace(self, name: str, uid: str, account: str) -> bool:
        return self.namespaces.get(name) == (uid, account)

    async def create_account_secret(self, namespace: str) -> tuple[Body, bool]:
        self._call(f"create {namespace}")
        if namespace in self.secrets:
            return self.secrets[namespace], False
        body = secret(namespace, {})
        del body["metadata"]["labels"]
        body["metadata"]["managedFields"] = [applied([], manager=CREATE_FIELD_MANAGER)]
        return self.put_secret(body), True

    async def read_account_secret(self, namespace: str) -> Body:
        self._call(f"read {namespace}")
        return self._at_version(self.secrets.get(namespace), None)

    async def read_sealed(self, namespace: str, name: str) -> str | None:
        self._call(f"read {namespace}/{name}")
        found = self.account_secrets.get((namespace, name))
        return found["spec"]["sealed"] if found else None

    async def apply_account_secret(
        self, namespace: str, account: str, values: Mapping[str, SecretBytes], uid: str, resource_version: str
    ) -> Body:
        self._call(f"apply {namespace}")
        if namespace not in self.secrets:
            raise Conflict("409 Conflict")
        found = self._at_version(self.secrets[namespace], resource_version)
        assert found["metadata"]["uid"] == uid
        body = secret(namespace, {name: value.get_secret_value().decode() for name, value in values.items()}, account)
        # Keys that start with an underscore are another field manager's, so applying keeps them.
        body["data"] |= {name: value for name, value in found["data"].items() if name.startswith("_")}
        kept = {
            name: found["metadata"][name] for name in ("finalizers", "deletionTimestamp") if name in found["metadata"]
        }
        return self.put_secret({**body, "metadata": body["metadata"] | kept})

    async def remove_account_secret_keys(self, namespace: str, names: list[str], resource_version: str) -> Body:
        self._call(f"remove {namespace} {' '.join(names)}")
        found = self._at_version(self.secrets.get(namespace), resource_version)
        return self.put_secret(
            {**found, "data": {name: value for name, value in found["data"].items() if name not in names}}
        )

    async def delete_account_secret(self, namespace: str, resource_version: str) -> None:
        self._call(f"delete {namespace}")
        self._at_version(self.secrets.get(namespace), resource_version)
        if self.secrets[namespace]["metadata"].get("finalizers"):
            metadata = {**self.secrets[namespace]["metadata"], "deletionTimestamp": CREATED}
            self.put_secret({**self.secrets[namespace], "metadata": metadata})
        else:
            del self.secrets[namespace]

    async def write_status(self, namespace: str, name: str, status: AccountSecretStatus, resource_version: str) -> str:
        self._call(f"status {namespace}/{name}")
        found = self._at_version(self.account_secrets.get((namespace, name)), resource_version)
        body = self.put_account_secret({**found, "status": status.model_dump(by_alias=True, mode="json")})
        version: str = body["metadata"]["resourceVersion"]
        return version

    async def write_sealed(self, namespace: str, name: str, sealed: str, resource_version: str) -> Body:
        self._call(f"sealed {namespace}/{name}")
        found = self._at_version(self.account_secrets.get((namespace, name)), resource_version)
        return self.put_account_secret({**found, "spec": {**found["spec"], "sealed": sealed}})

    async def create_event(self, regarding: Mapping[str, str], event: Event, time: str, reporter: str) -> None:
        self._call(f"event {regarding['namespace']}/{regarding['name']}")
        self.events.append(RecordedEvent(regarding, event, time, reporter))

    def _call(self, call: str) -> None:
        self.calls.append(call)
        if happens := self.before.pop(call, None):
            happens()
        if failures := self._failures.get(call):
            raise failures.pop(0)
        if call in self._always:
            raise self._always[call]

    def _at_version(self, found: Body | None, version: str | None) -> Body:
        if found is None:
            raise NotFound("404 NotFound")
        if version not in {None, found["metadata"]["resourceVersion"]}:
            raise Conflict("409 Conflict")
        return found
