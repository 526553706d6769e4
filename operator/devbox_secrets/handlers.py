"""kopf's part: three watches whose events go into the cache and mark accounts. Nothing else.

Events are read through `on.event` alone: handlers of other kinds keep a copy of the whole object
in its annotations. A handler returns nothing, since what it returns is written into the status.
"""

import logging
from collections.abc import Callable
from typing import Any

import kopf

from devbox_secrets import logs
from devbox_secrets.api import ACCOUNT_SECRET, GROUP, PLURAL, VERSION
from devbox_secrets.cache import Cache

Take = Callable[..., set[str]]


def registry(cache: Cache, mark: Callable[[set[str]], None]) -> kopf.OperatorRegistry:
    """Give kopf's registry: events of the three kinds fill `cache` and `mark` accounts."""
    handlers = kopf.OperatorRegistry()

    def follow(take: Take, *resource: str) -> None:
        # Not a plain function: kopf would call that in a thread of its own.
        @kopf.on.event(*resource, id=resource[-1], registry=handlers)
        async def took(event: Any, **_: Any) -> None:
            mark(take(event["object"], gone=event["type"] == "DELETED"))

    follow(cache.take_account_secret, GROUP, VERSION, PLURAL)
    follow(cache.take_namespace, "v1", "namespaces")
    follow(cache.take_secret, "v1", "secrets")

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
    # one that ended several times wait for up to five minutes once the API server is back.
    result.networking.error_backoffs = (1, 1, 2, 3, 5, 8, *[10] * 1000)
    result.scanning.disabled = True
    result.posting.enabled = False
    # By default a list of everything is in memory at once, and so is a task for each of its objects.
    result.watching.chunk_size = 500
    result.queueing.idle_timeout = 0.1
    result.persistence.diffbase_storage = _NoDiffs()
    return result


def log(level: str) -> None:
    """Log to standard error, and keep kopf and what it stands on from logging objects, whatever our own level is.

    At DEBUG kopf logs whole bodies; at INFO a line for each event.
    """
    logs.log(level, ("kopf", "aiohttp", "asyncio", "kubernetes", "urllib3"))
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
