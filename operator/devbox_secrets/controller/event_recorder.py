"""Records Events on AccountSecrets, on the sealing keys, and on namespaces without a home or a writable account Secret.

Events are best effort: if one can't be created, that is logged and nothing else is affected.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.api.names import GROUP, KEYS_SECRET, KIND, VERSION
from devbox_secrets.controller import metrics
from devbox_secrets.controller.cache import Cache, Namespace
from devbox_secrets.controller.rules.events import Event, namespace_event, secret_event
from devbox_secrets.controller.writes import Writer
from devbox_secrets.errors import APIError

LOG = logging.getLogger(__name__)


class EventRecorder:
    """Records Events."""

    def __init__(self, writer: Writer, cache: Cache, identity: str, clock: Callable[[], datetime]) -> None:
        self._writer = writer
        self._cache = cache
        self._identity = identity
        self._clock = clock
        # The problems found by the last scan, and those already recorded.
        self._seen: set[tuple[Namespace, Event]] = set()
        self._recorded: set[tuple[Namespace, Event]] = set()

    async def record(self, secret: AccountSecret, event: Event) -> None:
        """Record an Event on an AccountSecret."""
        regarding = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "namespace": secret.namespace,
            "name": secret.name,
            "uid": secret.uid,
            # Identifies the state: the same message about a later state is another Event.
            "resourceVersion": secret.resource_version,
        }
        await self._create(regarding, event)

    async def record_on_keys(self, namespace: str, event: Event) -> None:
        """Record an Event on the Secret of the sealing keys, which may not exist."""
        await self._create({"apiVersion": "v1", "kind": "Secret", "namespace": namespace, "name": KEYS_SECRET}, event)

    async def record_namespaces(self) -> None:
        """Record an Event on each namespace whose account has no home, or whose account Secret we can't write.

        Only for problems that the last scan found as well: someone who creates both namespaces creates one first.
        """
        without_home = list(self._without_home())
        found = {*without_home, *self._stuck_secrets()}
        for namespace, event in sorted((found & self._seen) - self._recorded, key=lambda each: each[0].name):
            # In the namespace itself, where users look when something is missing.
            name = namespace.name
            await self._create({"apiVersion": "v1", "kind": "Namespace", "namespace": name, "name": name}, event)
            self._recorded.add((namespace, event))
        self._seen = found
        self._recorded &= found
        metrics.NAMESPACES_WITHOUT_HOME.set(len(without_home))

    def _without_home(self) -> Iterator[tuple[Namespace, Event]]:
        for namespace in self._cache.labeled():
            home = namespace.account
            home_account = self._cache.home_account(home) if self._cache.namespace_uid(home) else None
            if event := namespace_event(namespace.name, home, home_account):
                yield namespace, event

    def _stuck_secrets(self) -> Iterator[tuple[Namespace, Event]]:
        for namespace, secret in self._cache.secrets():
            if event := secret_event(namespace.name, secret):
                yield namespace, event

    async def _create(self, regarding: dict[str, str], event: Event) -> None:
        time = self._clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        try:
            await self._writer.create_event(regarding, event, time, self._identity)
        except APIError as error:
            LOG.info("cannot create an Event: %s", error)
        else:
            metrics.WRITES.labels("event").inc()
