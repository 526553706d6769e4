"""The operator's process: connects its parts, runs the workers and serves the probes."""

import asyncio
import gc
import logging
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import uvloop
from prometheus_client import disable_created_metrics, generate_latest

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.api.names import ACCOUNT_SECRET, ALL_ACCOUNT_SECRETS_PATH, NAMESPACES_PATH, PLURAL, SECRETS_PATH
from devbox_secrets.controller import metrics
from devbox_secrets.controller.cache import Cache, read_account_secret, read_namespace, read_secret, without_text
from devbox_secrets.controller.event_recorder import EventRecorder
from devbox_secrets.controller.key_manager import KeyManager
from devbox_secrets.controller.leader import RENEW_DEADLINE_SECONDS, LeaderElector
from devbox_secrets.controller.opener import Opener
from devbox_secrets.controller.queue import WorkQueue
from devbox_secrets.controller.reconciler import Reconciler
from devbox_secrets.controller.resealer import Resealer
from devbox_secrets.controller.rules.events import KEYS_LOST
from devbox_secrets.controller.rules.status import timestamp
from devbox_secrets.controller.settings import ControllerSettings
from devbox_secrets.controller.watch import PAGE_SIZE, Watches
from devbox_secrets.controller.writes import Writer
from devbox_secrets.errors import APIError, NotFound
from devbox_secrets.kube.client import Body, Client
from devbox_secrets.kube.key_store import KeyStore
from devbox_secrets.serving import health, logs

LOG = logging.getLogger(__name__)
_STUCK_SECONDS = 120
#: Allocations between two collections of the youngest generation; the default is 700 to 2,000.
_GC_THRESHOLD = 10_000
#: Pause between two batches of resealed values, so that users' changes go first.
_RESEAL_PAUSE_SECONDS = 1.0
_RETRY_SECONDS = 0.5
#: Minimum size of kopf's pages: one large object must not slow down a list of ten thousand others.
_FEWEST_WATCHED = 5


def run(settings: ControllerSettings) -> None:
    """Run the operator until it is stopped.

    Raises:
        ConfigError: there is no cluster to connect to.
    """
    # Silence kopf: we log what matters, once.
    logs.configure(settings.log_level, settings.log_format, {"kopf": logging.CRITICAL})
    disable_created_metrics()  # each would add a series to a counter, and nobody uses them
    # Most objects live long or have no cycles; with the default, the collector uses about a tenth of the CPU.
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    with suppress(asyncio.CancelledError):  # stopped during the initial sync
        uvloop.run(_run(settings))


async def _run(settings: ControllerSettings) -> None:
    # As PID 1 of a container, the process ignores SIGTERM unless it handles it.
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with Client.connect() as client:
        controller = Controller(client, settings)
        site = await health.serve(
            settings.port, unready=controller.unready, unhealthy=controller.unhealthy, measure=controller.measure
        )
        tasks: list[asyncio.Task[None]] = []
        try:
            await controller.sync()
            tasks = [asyncio.create_task(job) for job in [controller.watch(), *controller.jobs()]]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await controller.stop_leading()
            await site.cleanup()


@dataclass(frozen=True, slots=True)
class _Kind:
    """How to list a kind and store it in the cache; each change returns the affected accounts."""

    path: str
    read: Callable[[Body], Any]
    """Reduces a listed object to what the cache needs."""
    replace: Callable[[Iterable[Any], int], set[str]]
    """Takes a list and its resourceVersion."""
    upsert: Callable[[Body], set[str]]
    delete: Callable[[Body], set[str]]
    field_selector: str = ""
    known: Callable[[Body], Any | None] = lambda _: None
    """What `read` would return, if the cache has it: it isn't parsed again, and isn't in memory twice."""

    def known_or_read(self, body: Body) -> Any:  # noqa: ANN401 - as `read` gives it
        """Return what a list keeps of an object, from the cache if possible."""
        return self.known(body) or self.read(body)


class Controller:
    """The cache, the queue and the workers."""

    def __init__(self, client: Client, settings: ControllerSettings) -> None:
        self.cache = Cache(_log_damage)
        self.has_synced = False
        identity = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self.elector = LeaderElector(Writer(client), settings.namespace, identity, reconnected=self._reconnected)
        self._watches = Watches(self._take, self._knows, self.list_again, identity)
        # What currently fails, and why.
        self._problems: dict[str, str] = {}
        cache = self.cache
        self._kinds = {
            "namespaces": _Kind(
                NAMESPACES_PATH,
                read_namespace,
                cache.replace_namespaces,
                cache.upsert_namespace,
                cache.delete_namespace,
            ),
            "secrets": _Kind(
                SECRETS_PATH,
                read_secret,
                cache.replace_secrets,
                cache.upsert_secret,
                cache.delete_secret,
                f"metadata.name={ACCOUNT_SECRET}",
                known=cache.known_secret,
            ),
            PLURAL: _Kind(
                ALL_ACCOUNT_SECRETS_PATH,
                self._read_account_secret,
                cache.replace_account_secrets,
                cache.upsert_account_secret,
                cache.delete_account_secret,
                known=cache.known_account_secret,
            ),
        }
        self._listing = asyncio.Lock()
        self._listed_versions: dict[str, int] = {}
        self._is_older = False
        self._unserved: set[str] = set()
        self._stale = {kind: asyncio.Event() for kind in self._kinds}
        self._synced_in_term = -1
        self._transitions = 0
        self._client = client
        self._settings = settings
        self._queue = WorkQueue()
        fenced = client.fenced(self.elector.is_leader)
        writer = Writer(fenced)
        self._recorder = EventRecorder(writer, self.cache, identity, _now)
        self._keys = KeyManager(
            KeyStore(fenced, settings.namespace),
            _now,
            settings.rotate_keys,
            sealed=self._sealed,
            record=partial(self._recorder.record_on_keys, settings.namespace),
        )
        self._opener = Opener(lambda: self._keys.keyring, writer.read_sealed)
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
        """Enqueue accounts if this replica leads; a new leader reconciles every account anyway."""
        if self.elector.leading.is_set():
            self._queue.add(accounts)

    def list_again(self, *kinds: str) -> None:
        """List kinds again soon, since a deletion may have been missed; all kinds if none is given."""
        for kind in kinds or self._stale:
            self._stale[kind].set()

    def _reconnected(self, is_older: bool) -> None:
        """List everything again; if the API server's state is older than before, clear the cache."""
        self._is_older |= is_older
        self.list_again()

    async def sync(self) -> None:
        """Read the keys and list everything once; before that, nobody knows what is missing."""
        await self.elector.acquire_or_renew()
        await self._insist("cannot read the sealing keys", partial(self._keys.refresh, write=False))
        await self._recover()
        self.has_synced = True
        LOG.info(
            "ready: %d AccountSecrets, %d sealing keys",
            len(list(self.cache.all_account_secrets())),
            len(self._keys.keyring),
        )

    def jobs(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs until the process stops, besides `watch`."""
        workers = [self._work(small=number == 0) for number in range(self._settings.workers + 1)]
        reseal = [self._reseal()] if self._settings.reseal_gateway_values else []
        lists = [self._list_when_stale(kind) for kind in self._kinds]
        periodic = [self._resync(), self._refresh_keys(), self._rescan(), *reseal]
        return [self.elector.run(), self.elector.lead(self._start_leading), *workers, *lists, *periodic]

    async def watch(self) -> None:
        """Run the watches."""
        await self._watches.run(self._recover)

    async def unready(self) -> str | None:
        """Return why this replica isn't ready, or None."""
        reading = None if self.has_synced else "reading the cluster's state"
        lost = KEYS_LOST.message if self._keys.missing else None
        problems = [reading, lost, *self._problems.values(), self.elector.problem, self._watches.problem()]
        return "; ".join(problem for problem in problems if problem) or None

    async def unhealthy(self) -> str | None:
        """Return why the process should be restarted, or None."""
        stuck = self._queue.stuck_seconds() if self.elector.leading.is_set() else 0
        return f"the queue has been stuck for {stuck:.0f}s" if stuck > _STUCK_SECONDS else None

    def measure(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        metrics.set_account_secrets(self.cache.ready_reasons())
        metrics.LEADER.set(self.elector.is_leader())
        # A former leader keeps its queue, but works on it only if it leads again.
        metrics.WORKQUEUE_DEPTH.set(len(self._queue) if self.elector.leading.is_set() else 0)
        metrics.ROTATION_DUE.set(self.cache.overdue())
        metrics.SEALING_KEYS.set(len(self._keys.keyring))
        metrics.SEALING_KEYS_LOST.set(self._keys.missing)
        if self._keys.keyring:
            metrics.NEWEST_SEALING_KEY.set(self._keys.keyring.newest.created.timestamp())
        return generate_latest(metrics.REGISTRY)

    async def stop_leading(self) -> None:
        """Write back keys that only this process has, and release the Lease."""
        try:
            if self.elector.is_leader():
                async with asyncio.timeout(RENEW_DEADLINE_SECONDS):
                    await self._keys.write_back()
        except (APIError, TimeoutError) as error:
            LOG.error("cannot write back the sealing keys: %s", str(error) or "no response")
        await self.elector.release()

    async def _start_leading(self) -> None:
        """Enqueue every account, from a list made in this term."""
        if self._transitions != self.elector.transitions:
            self._reconciler.start_over()
            self._transitions = self.elector.transitions
        await self._keys.refresh(write=True)
        if self._synced_in_term != self.elector.term:
            await self._list(self._kinds)
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
            except Exception as error:  # noqa: BLE001 - one account's failure doesn't affect others
                metrics.RECONCILE_ERRORS.inc()
                delay = self._queue.failed(account)
                level = logging.INFO if isinstance(error, APIError) else logging.ERROR
                LOG.log(level, "account %s: retrying in %.1fs: %s", account, delay, _reason(error))
            else:
                self._queue.done(account)

    def _read_account_secret(self, body: Body) -> AccountSecret:
        """Read an AccountSecret of a list, and open it if it's new: a list's sealed texts are most of its memory."""
        item = read_account_secret(body)
        if self.cache.has_account_secret(body):
            return item  # if the list fails, the cached state stays, and its result is needed
        try:
            return without_text(item) if self._opener.open_listed(item) else item
        except Exception:  # noqa: BLE001 - the account's reconciliation reports it, and others are listed
            return item

    def _take(self, kind: str, event: str, body: Body) -> None:
        """Handle a watch event."""
        take = self._kinds[kind].delete if event == "DELETED" else self._kinds[kind].upsert
        try:
            is_crowded = len(self._queue) > self._settings.workers
            if is_crowded and kind == PLURAL and event != "DELETED" and self.cache.has_new_spec(body):
                self._reconciler.let_statuses_wait()
            changed = take(body)
        except Exception as error:  # noqa: BLE001 - asyncio would log it with the object
            LOG.error("cannot read a watch event for %s: %s", kind, type(error).__name__)
        else:
            self.enqueue(changed)

    def _knows(self, kind: str, body: Body) -> bool:
        """Return whether the cache has this version of an object; the watches' thread calls this."""
        try:
            return self._kinds[kind].known(body) is not None
        except Exception:  # noqa: BLE001 - `_take` reports it
            return False

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            self.list_again()
            self._reconciler.forget()
            self._resealer.forget()

    async def _list_when_stale(self, kind: str) -> None:
        while True:
            await self._stale[kind].wait()
            self._stale[kind].clear()
            await self._insist(f"cannot list {kind}", partial(self._list_or_note, kind))

    async def _list_or_note(self, kind: str) -> None:
        """List a kind; once it is served again, restart kopf, which discovers kinds only when it starts."""
        try:
            await self._list([kind])
        except NotFound:
            self._unserved.add(kind)
            raise
        if kind in self._unserved:
            self._unserved.discard(kind)
            self._watches.restart()

    async def _recover(self) -> None:
        """List everything, retrying until it succeeds."""
        await self._insist("cannot list the cluster's objects", partial(self._list, self._kinds))

    async def _insist(self, problem: str, attempt: Callable[[], Awaitable[object]]) -> None:
        """Retry until it succeeds; log each reason once, and report it at the readiness probe."""
        while True:
            try:
                await attempt()
            except Exception as error:  # noqa: BLE001 - no single object stops the job
                if self._problems.get(problem) != (told := f"{problem}: {_reason(error)}"):
                    LOG.warning("%s; retrying", told)
                self._problems[problem] = told
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self._problems.pop(problem, None)
                return

    async def _refresh_keys(self) -> None:
        while True:
            await asyncio.sleep(self._settings.keys_refresh_seconds)
            try:
                if await self._keys.refresh(write=self.elector.is_leader()):
                    # All of them: a status with UnknownKey may be on its way to the API server.
                    self.enqueue(self.cache.accounts())
            except Exception as error:  # noqa: BLE001 - no single object stops the job
                LOG.warning("cannot read or write the sealing keys: %s", _reason(error))

    async def _rescan(self) -> None:
        while True:
            await asyncio.sleep(self._settings.rescan_seconds)
            if not self.elector.leading.is_set():
                continue
            try:
                self.enqueue(self.cache.falling_due(timestamp(_now())))
                await self._recorder.record_namespaces()
            except Exception as error:  # noqa: BLE001 - no single object stops the job
                LOG.error("rescan failed; retrying in %.0fs: %s", self._settings.rescan_seconds, _reason(error))

    async def _reseal(self) -> None:
        while True:
            await self.elector.leading.wait()
            changed: set[str] = set()
            try:
                changed = await self._resealer.reseal_batch()
            except Exception as error:  # noqa: BLE001 - everything else works without it
                LOG.error("cannot reseal values: %s", type(error).__name__)
            self.enqueue(changed)
            await asyncio.sleep(_RESEAL_PAUSE_SECONDS if changed else self._settings.rescan_seconds)

    async def _list(self, kinds: Collection[str]) -> None:
        async with self._listing:  # so that an older list never replaces a newer one
            term = self.elector.term
            lists = await self._read(kinds)
            # kopf lists the same objects, in pages of one size.
            self._watches.settings.watching.chunk_size = max(self._client.fewest_objects, _FEWEST_WATCHED)
            self._is_older |= any(version < self._listed_versions.get(kind, 0) for kind, (_, version) in lists.items())
            if self._is_older:
                LOG.warning("the API server's state is older than before (was etcd restored?); starting over")
                lists = await self._read(self._kinds, from_cache=False)
                self._is_older = False
                self.cache.clear()
                self._watches.restart()
            for kind, (items, version) in lists.items():
                self._listed_versions[kind] = version
                self.enqueue(self._kinds[kind].replace(items, version))
            if lists.keys() == self._kinds.keys():
                self._synced_in_term = term

    async def _read(self, kinds: Collection[str], *, from_cache: bool = True) -> dict[str, tuple[list[Any], int]]:
        # In the table's order: namespaces first, since they decide which account a Secret belongs to.
        return {
            kind: await self._client.list_all(
                each.path, each.known_or_read if from_cache else each.read, each.field_selector, PAGE_SIZE
            )
            for kind, each in self._kinds.items()
            if kind in kinds
        }

    def _sealed(self) -> Iterable[str] | None:
        """Return every sealed value in the cluster, or None before the first sync."""
        return (secret.spec.sealed for secret in self.cache.all_account_secrets()) if self.has_synced else None


def _reason(error: Exception) -> str:
    """Return why something failed; for an unexpected error only its type, since its text might contain a value."""
    return str(error) if isinstance(error, APIError) else type(error).__name__


def _log_damage(secret: AccountSecret) -> None:
    """Log which fields of an AccountSecret can't be read, never their contents."""
    LOG.warning("AccountSecret %s/%s: invalid fields: %s", secret.namespace, secret.name, ", ".join(secret.damaged))


def _now() -> datetime:
    return datetime.now(UTC)
