"""The operator's process: connects its parts, runs the workers, answers the probes."""

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
from prometheus_client import disable_created_metrics, generate_latest

from devbox_secrets.api.models import Reason
from devbox_secrets.api.names import ACCOUNT_SECRET, ALL_ACCOUNT_SECRETS_PATH, NAMESPACES_PATH, SECRETS_PATH
from devbox_secrets.controller import metrics, watch
from devbox_secrets.controller.cache import Cache, read_account_secret, read_namespace, read_secret
from devbox_secrets.controller.event_recorder import EventRecorder
from devbox_secrets.controller.key_manager import KeyManager
from devbox_secrets.controller.leader import LeaderElector
from devbox_secrets.controller.opener import Opener
from devbox_secrets.controller.queue import WorkQueue
from devbox_secrets.controller.reconciler import Reconciler
from devbox_secrets.controller.resealer import Resealer
from devbox_secrets.controller.rules.status import timestamp
from devbox_secrets.controller.settings import ControllerSettings
from devbox_secrets.controller.writes import Writer
from devbox_secrets.errors import APIError
from devbox_secrets.kube.client import Client
from devbox_secrets.kube.key_store import KeyStore
from devbox_secrets.serving import health, logs

LOG = logging.getLogger(__name__)
_STUCK_SECONDS = 120
#: Between two batches of resealed values: what people do goes first.
_RESEAL_PAUSE_SECONDS = 1.0
_RELIST_RETRY_SECONDS = 0.5
_RELIST_QUIET_SECONDS = 0.5
#: Objects in a page of kopf's, at the least: one large object mustn't make a list of ten thousand others slow.
_FEWEST_WATCHED = 5


def run(settings: ControllerSettings) -> None:
    """Run the operator until it's told to stop, or can't go on: then the process exits.

    Raises:
        APIError: the API server can't be reached or refuses something at the start.
    """
    logs.configure(settings.log_level, {"kopf.objects": logging.WARNING})  # at INFO a line for each event
    disable_created_metrics()  # a second series for each counter, which nobody asks for
    with suppress(asyncio.CancelledError):  # told to stop while it was still reading
        asyncio.run(_run(settings))


async def _run(settings: ControllerSettings) -> None:
    # Until kopf takes the signal over: as a container's first process nothing else would end it.
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with Client.connect() as client:
        controller = Controller(client, settings)
        site = await health.serve(
            settings.port, unready=controller.unready, unhealthy=controller.unhealthy, measure=controller.measure
        )
        try:
            await controller.sync()
            # Ours start before kopf: it cancels every task that was created after it.
            tasks = [asyncio.create_task(job) for job in controller.jobs()]
            watches = asyncio.create_task(_watch(controller))
            done, rest = await asyncio.wait([*tasks, watches], return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            for task in done:
                task.result()
        finally:
            await controller.elector.release()
            await site.cleanup()


async def _watch(controller: "Controller") -> None:
    await kopf.operator(
        registry=watch.registry(controller.cache, controller.enqueue, controller.relisted),
        settings=controller.watch_settings,
        clusterwide=True,
        standalone=True,
        identity=controller.identity,  # type: ignore[arg-type]  # kopf keeps the name of this str to itself
    )


class Controller:
    """The cache, the queue and the work on them."""

    def __init__(self, client: Client, settings: ControllerSettings) -> None:
        self.cache = Cache()
        self.has_synced = False
        self.identity = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self.elector = LeaderElector(Writer(client), settings.namespace, self.identity, reconnected=self.relisted)
        self.watch_settings = watch.settings()
        self._synced_in_term = -1
        self._relisted = asyncio.Event()
        self._client = client
        self._settings = settings
        self._queue = WorkQueue()
        fenced = client.fenced(self.elector.is_leader)
        writer = Writer(fenced)
        self._keys = KeyManager(KeyStore(fenced, settings.namespace), _now, settings.rotate_keys)
        self._opener = Opener(lambda: self._keys.keyring, writer.read_sealed)
        self._recorder = EventRecorder(writer, self.cache, self.identity, _now)
        self._reconciler = Reconciler(
            writer, self.cache, self._opener, self._recorder.record, reserved=settings.reserved_names, clock=_now
        )
        self._resealer = Resealer(
            writer,
            self.cache,
            lambda: self._keys.stored,
            self._opener.value,
            first_delay=settings.rescan_seconds,
        )

    def enqueue(self, accounts: set[str]) -> None:
        """Put accounts before the workers; who becomes the leader reconciles every account anyway."""
        if self.elector.leading.is_set():
            self._queue.add(accounts)

    def relisted(self) -> None:
        """Have everything listed soon, since a deletion may have been missed."""
        self._relisted.set()

    async def sync(self) -> None:
        """Read the keys and everything else once; only then is it known what is missing."""
        await self.elector.acquire_or_renew()
        await self._keys.refresh(write=False)
        await self._list()
        self.has_synced = True
        LOG.info(
            "ready: %d AccountSecrets, %d sealing keys",
            len(list(self.cache.all_account_secrets())),
            len(self._keys.keyring),
        )

    def jobs(self) -> list[Coroutine[Any, Any, None]]:
        """Give what runs for as long as the process does."""
        workers = [self._work(small=number == 0) for number in range(self._settings.workers + 1)]
        reseal = [self._reseal()] if self._settings.reseal_gateway_values else []
        periodic = [self._resync(), self._follow_relists(), self._refresh_keys(), self._rescan(), *reseal]
        return [self.elector.run(), self.elector.lead(self._start_leading), *workers, *periodic]

    async def unready(self) -> str | None:
        """Say what is missing until everything was read and it's known who leads."""
        return None if self.has_synced and self.elector.observed else "reading the cluster's state"

    async def unhealthy(self) -> str | None:
        """Say why the process should be restarted, if it should."""
        stuck = self._queue.stuck_seconds() if self.elector.leading.is_set() else 0
        return f"nothing was worked on for {stuck:.0f} s" if stuck > _STUCK_SECONDS else None

    def measure(self) -> bytes:
        """Give the metrics as Prometheus reads them."""
        counts = self.cache.ready_reasons()
        for reason in [*Reason, "Pending"]:
            metrics.ACCOUNT_SECRETS.labels(reason).set(counts[reason])
        metrics.LEADER.set(self.elector.is_leader())
        metrics.WORKQUEUE_DEPTH.set(len(self._queue))
        metrics.ROTATION_DUE.set(self.cache.overdue())
        metrics.SEALING_KEYS.set(len(self._keys.keyring))
        if self._keys.keyring:
            metrics.NEWEST_SEALING_KEY.set(self._keys.keyring.newest.created.timestamp())
        return generate_latest(metrics.REGISTRY)

    async def _start_leading(self) -> None:
        """Enqueue every account, from a list that was made in this term."""
        await self._keys.refresh(write=True)
        if self._synced_in_term != self.elector.term:
            await self._list()
        self._queue.add(self.cache.accounts())

    async def _work(self, *, small: bool) -> None:
        while True:
            await self.elector.leading.wait()
            account, waited = await self._queue.get(small=small)
            metrics.WORKQUEUE_QUEUE_DURATION.observe(waited)
            since = time.monotonic() - waited
            try:
                with metrics.RECONCILE_DURATION.time():
                    await self._reconciler.reconcile(account, since, self._queue.failures(account))
            except Exception as error:  # noqa: BLE001 - one account's trouble stays its own
                metrics.RECONCILE_ERRORS.inc()
                delay = self._queue.failed(account)
                if isinstance(error, APIError):
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
                self.enqueue(await self._list())
            except APIError as error:
                LOG.warning("listing failed, next in %.0f s: %s", self._settings.resync_seconds, error)
            self._reconciler.forget()
            self._resealer.forget()

    async def _follow_relists(self) -> None:
        """List everything whenever kopf lists: at once, and again when kopf, which may take long, is through."""
        while True:
            await self._relisted.wait()
            self._relisted.clear()
            await self._relist()
            again = False
            await asyncio.sleep(_RELIST_QUIET_SECONDS)
            while self._relisted.is_set():
                self._relisted.clear()
                again = True
                await asyncio.sleep(_RELIST_QUIET_SECONDS)
            if again:
                await self._relist()

    async def _relist(self) -> None:
        """List everything, as soon as that is possible."""
        told = False
        while True:
            try:
                self.enqueue(await self._list())
            except APIError as error:
                if not told:
                    LOG.warning("listing failed, trying again until it succeeds: %s", error)
                told = True
                await asyncio.sleep(_RELIST_RETRY_SECONDS)
            else:
                return

    async def _refresh_keys(self) -> None:
        while True:
            await asyncio.sleep(self._settings.keys_refresh_seconds)
            try:
                if await self._keys.refresh(write=self.elector.is_leader()):
                    self.enqueue(self.cache.accounts_with(Reason.UNKNOWN_KEY))
            except APIError as error:
                LOG.warning("the sealing keys can't be read: %s", error)

    async def _rescan(self) -> None:
        while True:
            await asyncio.sleep(self._settings.rescan_seconds)
            if self.elector.leading.is_set():
                self.enqueue(self.cache.falling_due(timestamp(_now())))
                await self._recorder.record_namespaces()

    async def _reseal(self) -> None:
        while True:
            await self.elector.leading.wait()
            changed: set[str] = set()
            try:
                changed = await self._resealer.reseal_batch()
            except Exception as error:  # noqa: BLE001 - all else goes on without it
                LOG.error("values can't be resealed now: %s", type(error).__name__)
            self.enqueue(changed)
            await asyncio.sleep(_RESEAL_PAUSE_SECONDS if changed else self._settings.rescan_seconds)

    async def _list(self) -> set[str]:
        term = self.elector.term
        namespaces = await self._client.list_all(NAMESPACES_PATH, read_namespace)
        changed = self.cache.replace_namespaces(*namespaces)
        secrets = await self._client.list_all(SECRETS_PATH, read_secret, f"metadata.name={ACCOUNT_SECRET}")
        changed |= self.cache.replace_secrets(*secrets)
        account_secrets = await self._client.list_all(ALL_ACCOUNT_SECRETS_PATH, read_account_secret)
        # kopf lists the same, in pages of one size.
        self.watch_settings.watching.chunk_size = max(self._client.fewest_objects, _FEWEST_WATCHED)
        self._synced_in_term = term
        return changed | self.cache.replace_account_secrets(*account_secrets)


def _now() -> datetime:
    return datetime.now(UTC)
