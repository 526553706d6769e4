"""The history of account Secrets: an observer, and the values that they must never have contained.

Versions are resourceVersions, which order the changes of all objects.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import httpx

from harness.controlplane import ControlPlane, RequestError
from integration.controller.soak.model import Model, Value, is_ours, values_of
from integration.support.account import SECRET
from integration.support.chart import Json, until

#: How long the operator may still write an account's values to a namespace that left it: until it observes the change.
_STALE_SECONDS = 60.0
_WATCH_SECONDS = 5
_RETRY_SECONDS = 0.1
_PATH = f"/api/v1/secrets?fieldSelector=metadata.name={SECRET}"

Incarnation = tuple[str, int]
"""A namespace's name, and the number of its creation."""


@dataclass(frozen=True)
class Membership:
    """A namespace's time in an account, from one version to another."""

    namespace: Incarnation
    home: Incarnation
    since: int
    until: int | None = None
    left: float = float("inf")
    """When it ended, in seconds of the monotonic clock."""

    def allows(self, namespace: Incarnation, value: Value, version: int, seen: float) -> bool:
        """Return whether the namespace's account Secret may contain a value."""
        lasts = self.until is None or version <= self.until or seen < self.left + _STALE_SECONDS
        is_meant = (self.namespace, self.home) == (namespace, (value.account, value.incarnation))
        return is_meant and self.since <= version and lasts


@dataclass
class History:
    """Which namespaces belonged to which accounts, and the newest value of each AccountSecret in each of them."""

    memberships: list[Membership] = field(default_factory=list)
    created: dict[Incarnation, int] = field(default_factory=dict)
    """The version since which each namespace exists."""
    newest: dict[tuple[Incarnation, Incarnation, str], int] = field(default_factory=dict)

    def note(self, model: Model, version: int) -> None:
        """Record the namespaces as they are since a version."""
        here = {name: (name, each.incarnation) for name, each in model.namespaces.items()}
        self.created = dict.fromkeys(here.values(), version) | self.created
        homes = filter(model.is_home, model.namespaces)
        members = {(here[member], here[home]) for home in homes for member in model.members(home)}
        for number, each in enumerate(self.memberships):
            if each.until is None and (each.namespace, each.home) not in members:
                self.memberships[number] = replace(each, until=version, left=time.monotonic())
        lasting = {(each.namespace, each.home) for each in self.memberships if each.until is None}
        self.memberships += [Membership(*each, since=version) for each in sorted(members - lasting)]

    def violations(self, secret: Json, seen: float) -> Iterator[str]:
        """Record a state of an account Secret; yield the values that it must never have contained."""
        name, version = secret["metadata"]["namespace"], int(secret["metadata"]["resourceVersion"])
        here = max(each for each, since in self.created.items() if each[0] == name and since <= version)
        for variable, value in values_of(secret).items() if is_ours(secret) else ():
            if value is None:
                continue
            if not any(each.allows(here, value, version, seen) for each in self.memberships):
                yield f"{name}: {variable} was {value}, of a home that the namespace didn't belong to"
            key = here, (value.account, value.incarnation), value.name
            if value.number < self.newest.get(key, 0):
                yield f"{name}: {variable} was {value}, older than number {self.newest[key]}, which it had before"
            self.newest[key] = max(value.number, self.newest.get(key, 0))


@dataclass
class Observer:
    """Watches the account Secrets."""

    plane: ControlPlane
    seen: list[tuple[float, Json]] = field(default_factory=list)
    """The states that weren't taken yet, each with the time when it was seen."""
    versions: dict[str, int] = field(default_factory=dict)
    """By namespace, the newest version that was seen."""
    _newest: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @classmethod
    @contextmanager
    def start(cls, plane: ControlPlane) -> Iterator["Observer"]:
        it = cls(plane)
        thread = threading.Thread(target=it._run)
        thread.start()
        try:
            yield it
        finally:
            it._stop.set()
            thread.join()

    def take(self, secrets: Mapping[str, Json]) -> list[tuple[float, Json]]:
        """Wait until these states were seen, and return all states since the last call."""
        wanted = {name: int(each["metadata"]["resourceVersion"]) for name, each in secrets.items()}
        until("all was seen", lambda: all(self.versions.get(name, 0) >= at for name, at in wanted.items()))
        taken, self.seen = self.seen, []
        return taken

    def _run(self) -> None:
        version = ""
        while not self._stop.is_set():
            # If the API server is down or the history was compacted, it starts again with a list.
            with suppress(httpx.HTTPError, RequestError, json.JSONDecodeError):
                version = self._watch(version or self._list())
                continue
            version = ""
            self._stop.wait(_RETRY_SECONDS)

    def _list(self) -> str:
        found = self.plane.request("GET", _PATH)
        version = int(found["metadata"]["resourceVersion"])
        if version < self._newest:  # after a restore of etcd, the history starts again
            self.seen.clear()
            self.versions.clear()
        self._newest = version
        for each in found["items"]:
            self._note(each)
        return str(version)

    def _watch(self, version: str) -> str:
        """Watch for a while; return the version from which to continue, or "" if the history was compacted."""
        options = f"watch=true&allowWatchBookmarks=true&timeoutSeconds={_WATCH_SECONDS}&resourceVersion={version}"
        for line in self.plane.stream(f"{_PATH}&{options}"):
            event = json.loads(line)
            if event["type"] == "ERROR":
                return ""
            version = event["object"]["metadata"]["resourceVersion"]
            self._newest = int(version)
            if event["type"] in {"ADDED", "MODIFIED"}:
                self._note(event["object"])
        return version

    def _note(self, secret: Json) -> None:
        name, version = secret["metadata"]["namespace"], int(secret["metadata"]["resourceVersion"])
        self.seen.append((time.monotonic(), secret))
        self.versions[name] = max(version, self.versions.get(name, 0))
