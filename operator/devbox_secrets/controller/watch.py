"""kopf's watches: their events go into the cache and enqueue accounts.

Events are read through `on.event` alone: handlers of other kinds keep a copy of the whole object
in its annotations. A handler returns nothing, since what it returns is written into the status.
"""

from collections.abc import Callable
from typing import Any

import kopf

from devbox_secrets.api.names import ACCOUNT_SECRET, GROUP, PLURAL, VERSION
from devbox_secrets.controller.cache import Body, Cache

Change = Callable[[Body], set[str]]
"""Takes an object into the cache; gives the accounts that the change concerns."""


def registry(cache: Cache, enqueue: Callable[[set[str]], None], relisted: Callable[[], None]) -> kopf.OperatorRegistry:
    """Give kopf's registry: events of the three kinds fill `cache` and `enqueue` accounts.

    `relisted` is called when kopf lists a kind, at start and whenever a watch can't go on: what was deleted in
    between kopf doesn't tell.
    """
    handlers = kopf.OperatorRegistry()

    def follow(upsert: Change, delete: Change, *resource: str) -> None:
        # Not a plain function: kopf would call that in a thread of its own.
        @kopf.on.event(*resource, id=resource[-1], registry=handlers)
        async def handle(event: Any, **_: Any) -> None:
            if event["type"] is None:
                relisted()
            change = delete if event["type"] == "DELETED" else upsert
            enqueue(change(event["object"]))

    follow(cache.upsert_account_secret, cache.delete_account_secret, GROUP, VERSION, PLURAL)
    follow(cache.upsert_namespace, cache.delete_namespace, "v1", "namespaces")
    follow(cache.upsert_secret, cache.delete_secret, "v1", "secrets")

    @kopf.on.login(id="login", registry=handlers)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    return handlers


class _NoDiffs(kopf.DiffBaseStorage):
    """Nothing to compare an object with: handlers of events don't ask, and a copy of each is dear."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""


def settings() -> kopf.OperatorSettings:
    """Give kopf's settings: the one Secret name is all that we may watch, and nothing is posted."""
    result = kopf.OperatorSettings()
    # The key is a tuple: as text, "v1/secrets" would match nothing and ask for every Secret.
    result.watching.field_selectors["v1", "secrets"] = f"metadata.name={ACCOUNT_SECRET}"
    # For hours: by default the process ends after a minute without an API server, and Kubernetes lets
    # one that ended several times wait for up to five minutes once the API server is back. And often: until
    # a watch is back, no deletion is heard of.
    result.networking.error_backoffs = (1,) * 36_000
    result.scanning.disabled = True
    result.posting.enabled = False
    # By default a list of everything is in memory at once, and so is a task for each of its objects.
    result.watching.chunk_size = 500
    result.queueing.idle_timeout = 0.1
    result.persistence.diffbase_storage = _NoDiffs()
    return result
