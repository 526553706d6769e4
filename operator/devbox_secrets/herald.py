"""Posts Events, and looks for what no change in the cluster announces. Imports cluster.

An Event is for people: one that can't be posted is a line in the log, and holds nothing back.
"""

import logging
from collections.abc import Callable
from datetime import datetime

from devbox_secrets import metrics
from devbox_secrets.api import GROUP, KIND, VERSION
from devbox_secrets.cache import AccountSecret, Cache
from devbox_secrets.cluster import Cluster
from devbox_secrets.errors import ClusterError
from devbox_secrets.news import News, of_namespace
from devbox_secrets.status import falls_due

LOG = logging.getLogger(__name__)


class Herald:
    """Tells people what became different."""

    def __init__(self, cluster: Cluster, cache: Cache, identity: str, clock: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._cache = cache
        self._identity = identity
        self._clock = clock
        # By namespace: what was wrong at the last look, and what was told.
        self._seen: dict[str, News] = {}
        self._told: dict[str, News] = {}

    async def tell(self, secret: AccountSecret, news: News) -> None:
        """Post an Event about an AccountSecret."""
        regarding = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "namespace": secret.namespace,
            "name": secret.name,
            "uid": secret.uid,
            # Of the state that is told of: the same thing said of a later one is another Event.
            "resourceVersion": secret.resource_version,
        }
        await self._post(regarding, news)

    async def tell_of_namespaces(self) -> None:
        """Post an Event about each namespace whose account has no home.

        Of what was so at the last look already: whoever makes both namespaces at once makes one first.
        """
        found = self._lost()
        for namespace, news in found.items():
            if self._seen.get(namespace) == news and self._told.get(namespace) != news:
                # In the namespace itself, where those look who miss something there.
                await self._post(
                    {"apiVersion": "v1", "kind": "Namespace", "namespace": namespace, "name": namespace}, news
                )
                self._told[namespace] = news
        self._seen = found
        self._told = {namespace: news for namespace, news in self._told.items() if namespace in found}
        metrics.LOST_NAMESPACES.set(len(found))

    def fallen_due(self) -> set[str]:
        """The accounts in which a value became too old since its status was written."""
        now = self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            secret.namespace
            for secret in self._cache.all_account_secrets()
            if falls_due(secret.status, secret.spec.rotate_after, now)
        }

    def _lost(self) -> dict[str, News]:
        lost = {}
        for namespace in self._cache.labelled():
            home = namespace.account
            home_account = self._cache.home_account(home) if self._cache.has_namespace(home) else None
            if news := of_namespace(namespace.name, home, home_account):
                lost[namespace.name] = news
        return lost

    async def _post(self, regarding: dict[str, str], news: News) -> None:
        time = self._clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        try:
            await self._cluster.post_event(regarding, news, time, self._identity)
        except ClusterError as error:
            LOG.info("an Event couldn't be posted: %s", error)
        else:
            metrics.WRITES.labels("event").inc()
