"""The operator's process: connects the rooms, runs the queue's workers, answers the probes."""

import asyncio
import logging
import secrets
import signal
import socket
import time
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import kopf
from prometheus_client import generate_latest

from devbox_secrets import handlers, metrics, probes
from devbox_secrets.api import Reason
from devbox_secrets.cache import Cache, read_account_secret
from devbox_secrets.cluster import (
    ACCOUNT_SECRETS,
    ACCOUNT_SECRETS_ONLY,
    NAMESPACES,
    SECRETS,
    Cluster,
)
from devbox_secrets.errors import ClusterError
from devbox_secrets.herald import Herald
from devbox_secrets.keys import KeyStore
from devbox_secrets.lease import Lease
from devbox_secrets.reconcile import Reconciler
from devbox_secrets.reseal import Resealer
from devbox_secrets.settings import Settings
from devbox_secrets.workqueue import WorkQueue

LOG = logging.getLogger(__name__)
_STUCK_SECONDS = 120
#: After some values were sealed anew, before the next: what people do goes first.
_RESEAL_PAUSE_SECONDS = 1.0


def run(settings: Settings) -> None:
    """Run the operator until it's told to stop, or can't go on: then the process exits.

    Raises:
        ClusterError: the API server can't be reached or refuses something at the start.
    """
    handlers.log(settings.log_level)
    with suppress(asyncio.CancelledError):  # told to stop while it was still reading
        asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    # Until kopf takes the signal over: as a container's first process nothing else would end it.
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with Cluster.connect() as cluster:
        operator = Operator(cluster, settings)
        site = await probes.serve(
            settings.port, unready=operator.unready, unhealthy=operator.unhealthy, measure=operator.measure
        )
        try:
            await operator.fill()
            # Ours start before kopf: it cancels every task that was created after it.
            tasks = [asyncio.create_task(job) for job in operator.jobs()]
            watches = asyncio.create_task(_watch(operator))
            done, rest = await asyncio.wait([*tasks, watches], return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            for task in done:
                task.result()
        finally:
            await operator.lease.release()
            await site.cleanup()


async def _watch(operator: "Operator") -> None:
    await kopf.operator(
        registry=handlers.registry(operator.cache, operator.mark),
        settings=handlers.settings(),
        clusterwide=True,
        standalone=True,
        identity=operator.identity,  # type: ignore[arg-type]  # kopf keeps the name of this str to itself
    )


class Operator:
    """The cache, the queue and the work on them."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.cache = Cache()
        self.full = False
        self.identity = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self.lease = Lease(cluster, settings.namespace, self.identity)
        self._leading = asyncio.Event()
        self._listed_in_term = -1
        self._cluster = cluster = cluster.fenced(self.lease.held)
        self._settings = settings
        self._queue = WorkQueue()
        self._keys = KeyStore(cluster, settings.namespace, _now, settings.rotate_keys)
        self._herald = Herald(cluster, self.cache, self.identity, _now)
        self._reconciler = Reconciler(
            cluster,
            self.cache,
            lambda: self._keys.keyring,
            self._herald.tell,
            reserved=settings.reserved_names,
            clock=_now,
        )
        self._resealer = Resealer(
            cluster,
            self.cache,
            lambda: self._keys.stored,
            self._reconciler.opened,
            first_delay=settings.lookout_seconds,
        )

    def mark(self, accounts: set[str]) -> None:
        """Put accounts before the workers; who takes the Lease over looks at every account anyway."""
        if self._leading.is_set():
            self._queue.add(accounts)

    async def fill(self) -> None:
        """Read the keys and everything else once; only then is it known what is missing."""
        await self.lease.look()
        await self._keys.refresh(write=False)
        await self._list()
        self.full = True
        LOG.info(
            "ready: %d AccountSecrets, %d sealing keys",
            len(list(self.cache.all_account_secrets())),
            len(self._keys.keyring),
        )

    def jobs(self) -> list[Coroutine[Any, Any, None]]:
        """Give what runs for as long as the process does."""
        workers = [self._work(small=number == 0) for number in range(self._settings.workers + 1)]
        reseal = [self._reseal()] if self._settings.reseal_gateway_values else []
        follow = [self._resync(), self._follow_keys(), self._follow_time(), *reseal]
        return [self.lease.keep(), self._lead(), *workers, *follow]

    async def unready(self) -> str | None:
        """Say what is missing until everything was read and it's known who writes."""
        return None if self.full and self.lease.known else "reading the cluster's state"

    async def unhealthy(self) -> str | None:
        """Say why the process should be restarted, if it should."""
        stuck = self._queue.stuck_seconds() if self._leading.is_set() else 0
        return f"nothing was worked on for {stuck:.0f} s" if stuck > _STUCK_SECONDS else None

    def measure(self) -> bytes:
        """Give the metrics as Prometheus reads them."""
        counts = self._reconciler.reasons()
        for reason in [*Reason, "Pending"]:
            metrics.ACCOUNT_SECRETS.labels(reason).set(counts[reason])
        metrics.LEADER.set(self.lease.held())
        metrics.QUEUE_DEPTH.set(len(self._queue))
        metrics.ROTATION_DUE.set(self._reconciler.due())
        metrics.SEALING_KEYS.set(len(self._keys.keyring))
        if self._keys.keyring:
            age = _now() - self._keys.keyring.newest.created
            metrics.NEWEST_KEY_AGE_SECONDS.set(age.total_seconds())
        return generate_latest(metrics.REGISTRY)

    async def _lead(self) -> None:
        """Let the workers work while the Lease is ours, from a list that was made in its term."""
        while True:
            term = await self.lease.gained()
            try:
                await self._keys.refresh(write=True)
                if self._listed_in_term != term:
                    await self._list()
            except ClusterError as error:
                LOG.warning("not ready to write yet: %s", error)
                await asyncio.sleep(1)
                continue
            self._leading.set()
            self.mark(self.cache.accounts())
            await self.lease.over(term)
            self._leading.clear()
            LOG.info("this replica doesn't write any more")

    async def _work(self, *, small: bool) -> None:
        while True:
            await self._leading.wait()
            account, waited = await self._queue.get(small=small)
            metrics.QUEUE_SECONDS.observe(waited)
            since = time.monotonic() - waited
            try:
                with metrics.RECONCILE_SECONDS.time():
                    await self._reconciler.reconcile(account, since, self._queue.failures(account))
            except Exception as error:  # noqa: BLE001 - one account's trouble stays its own
                metrics.FAILURES.inc()
                delay = self._queue.failed(account)
                if isinstance(error, ClusterError):
                    LOG.info("account %s: again in %.1f s: %s", account, delay, error)
                else:
                    # The type alone: a text or a traceback might carry what was being worked on.
                    LOG.error("account %s: again in %.1f s: %s", account, delay, type(error).__name__)
            else:
                self._queue.done(account)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            try:
                self.mark(await self._list())
            except ClusterError as error:
                LOG.warning("listing failed, next in %.0f s: %s", self._settings.resync_seconds, error)
            self._reconciler.forget()
            self._resealer.forget()

    async def _follow_keys(self) -> None:
        while True:
            await asyncio.sleep(self._settings.keys_seconds)
            try:
                if await self._keys.refresh(write=self.lease.held()):
                    self.mark(self._reconciler.waiting_for_keys())
            except ClusterError as error:
                LOG.warning("the sealing keys can't be read: %s", error)

    async def _follow_time(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lookout_seconds)
            if self._leading.is_set():
                self.mark(self._herald.fallen_due())
                await self._herald.tell_of_namespaces()

    async def _reseal(self) -> None:
        while True:
            await self._leading.wait()
            changed: set[str] = set()
            try:
                changed = await self._resealer.round()
            except Exception as error:  # noqa: BLE001 - all else goes on without it
                LOG.error("values can't be sealed anew now: %s", type(error).__name__)
            self.mark(changed)
            await asyncio.sleep(_RESEAL_PAUSE_SECONDS if changed else self._settings.lookout_seconds)

    async def _list(self) -> set[str]:
        term = self.lease.term
        namespaces = await self._cluster.list_all(NAMESPACES, dict)
        changed = self.cache.replace_namespaces(*namespaces)
        secrets = await self._cluster.list_all(SECRETS, dict, ACCOUNT_SECRETS_ONLY)
        changed |= self.cache.replace_secrets(*secrets)
        account_secrets = await self._cluster.list_all(ACCOUNT_SECRETS, read_account_secret)
        self._listed_in_term = term
        return changed | self.cache.replace_account_secrets(*account_secrets)


def _now() -> datetime:
    return datetime.now(UTC)
