"""From what is known of an account to what the cluster should hold, by way of the plan.

The one place where rules meet effects: it opens, asks plan.py what should be, and has cluster.py
do it. Nothing is decided here.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import SecretBytes

from devbox_secrets import metrics
from devbox_secrets.api import Reason
from devbox_secrets.cache import AccountSecret, Cache
from devbox_secrets.cluster import Cluster
from devbox_secrets.errors import (
    CannotOpen,
    ClusterError,
    DevboxSecretsError,
    InvalidValue,
    NotSealed,
    UnknownKey,
    ValueTooLarge,
)
from devbox_secrets.news import News, of_status
from devbox_secrets.plan import Entry, Member, Step, plan_account, step
from devbox_secrets.refusals import Refusal, not_owned, not_written
from devbox_secrets.sealing import Keyring, key_id_of
from devbox_secrets.status import is_told, next_status

LOG = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")
#: An account's requests at a time: however many it has, other accounts find a connection free, and
#: none spends its time-out on waiting for one.
_AT_ONCE = 4
#: An account's entries made without looking up: each may take a quarter of a millisecond to open.
_ENTRIES_AT_ONCE = 20
#: Failures in a row, six seconds of them, after which they are told: one namespace that can't be
#: written must not leave an account without statuses.
_PATIENCE = 5
_REASONS: Mapping[type[DevboxSecretsError], Reason] = {
    NotSealed: Reason.CANNOT_OPEN,
    CannotOpen: Reason.CANNOT_OPEN,
    UnknownKey: Reason.UNKNOWN_KEY,
    InvalidValue: Reason.INVALID_VALUE,
    ValueTooLarge: Reason.TOO_LARGE,
}


class Reconciler:
    """Brings one account at a time to what its AccountSecrets say."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        keyring: Callable[[], Keyring],
        tell: Callable[[AccountSecret, News], Awaitable[None]],
        *,
        reserved: Sequence[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._keyring = keyring
        self._tell_people = tell
        self._cluster = cluster
        self._cache = cache
        self._reserved = reserved
        self._clock = clock
        # By uid: the sealed text and what it opened to, since opening is the dearest step.
        self._opened: dict[str, tuple[str, SecretBytes]] = {}
        # By uid: what devboxes had before the change that the status doesn't tell of yet. A second
        # try at telling finds the new value in the account Secret already.
        self._before: dict[str, SecretBytes | None] = {}
        # By namespace: what its account Secret was seen to hold, or was made to. What differs from
        # it while the same is wanted was changed by someone else.
        self._held: dict[str, Mapping[str, SecretBytes]] = {}

    async def reconcile(self, account: str, since: float, failures: int = 0) -> None:
        """Write what differs: the account Secrets first, then the AccountSecrets' statuses.

        `since` is when the change was heard of, by the monotonic clock. `failures` is how often it
        failed since it last went well: a trouble that time alone mends isn't told at once.

        Raises:
            ClusterError: something couldn't be written; all the rest was.
        """
        secrets = self._cache.account_secrets(account)
        entries = await self._entries(secrets)
        members = self._cache.members(account)
        present = next(
            (
                member.secret.data
                for member in members
                if member.namespace == account and member.secret and member.secret.owned
            ),
            {},
        )
        plan = plan_account(
            entries,
            present,
            home_account=self._cache.home_account(account),
            reserved=self._reserved,
        )
        self._remember(entries, present)
        outcomes = await _each(lambda member: self._write(account, member, plan.values), members)
        if any(isinstance(outcome, Step) and outcome.writes for outcome in outcomes):
            metrics.SYNC_SECONDS.observe(time.monotonic() - since)
        _raise_first([outcome for outcome in outcomes if not _is_told(outcome, failures)])
        if not self._cache.has_namespace(account):
            # Not heard of yet, or being deleted: nothing was written there that could be told.
            _raise_first(outcomes)
            return
        where = [member.namespace for member in members]
        refusal = _unreached(dict(zip(where, outcomes, strict=True)))
        statuses = await _each(
            lambda pair: self._tell(*pair, plan.refusals.get(pair[1].uid, refusal)),
            list(zip(secrets, entries, strict=True)),
        )
        _raise_first([*outcomes, *statuses])

    def opened(self, secret: AccountSecret) -> SecretBytes | None:
        """Give an AccountSecret's value if it was opened already, as it is sealed now."""
        sealed, value = self._opened.get(secret.uid, (None, None))
        return value if sealed == secret.spec.sealed else None

    def forget(self) -> None:
        """Drop the values of AccountSecrets that are gone."""
        alive = {secret.uid for secret in self._cache.all_account_secrets()}
        self._opened = {uid: opened for uid, opened in self._opened.items() if uid in alive}
        self._before = {uid: before for uid, before in self._before.items() if uid in alive}
        self._held = {name: held for name, held in self._held.items() if self._cache.has_namespace(name)}

    def waiting_for_keys(self) -> set[str]:
        """The accounts in which a value waits for a key that isn't here."""
        return {
            secret.namespace
            for secret in self._cache.all_account_secrets()
            if _ready_reason(secret) == Reason.UNKNOWN_KEY
        }

    def reasons(self) -> Counter[str]:
        """How many AccountSecrets there are by the reason of their Ready condition."""
        return Counter(map(_ready_reason, self._cache.all_account_secrets()))

    def due(self) -> int:
        """How many AccountSecrets are older than their rotateAfter allows."""
        return sum(secret.status.overdue for secret in self._cache.all_account_secrets())

    def _remember(self, entries: Sequence[Entry], present: Mapping[str, SecretBytes]) -> None:
        for entry in entries:
            if not is_told(entry):
                self._before.setdefault(entry.uid, present.get(entry.variable))

    async def _entries(self, secrets: Sequence[AccountSecret]) -> list[Entry]:
        entries = []
        for secret in secrets:
            entries.append(self._entry(secret))
            if len(entries) % _ENTRIES_AT_ONCE == 0:
                await asyncio.sleep(0)  # the probes and the watches have their turn
        return entries

    def _entry(self, secret: AccountSecret) -> Entry:
        key_id, opened = self._open(secret)
        return Entry(
            uid=secret.uid,
            account=secret.namespace,
            name=secret.name,
            variable=secret.spec.name,
            created=secret.created,
            generation=secret.generation,
            key_id=key_id,
            opened=opened,
            rotate_after=secret.spec.rotate_after,
            status=secret.status,
        )

    def _open(self, secret: AccountSecret) -> tuple[str | None, SecretBytes | Refusal]:
        sealed, key_id = secret.spec.sealed, None
        try:
            key_id = key_id_of(sealed)
            value = self.opened(secret)
            if value is None:
                value = self._keyring().open(sealed, account=secret.namespace, name=secret.spec.name)
                self._opened[secret.uid] = sealed, value
                metrics.OPENS.inc()
        except DevboxSecretsError as error:
            return key_id, Refusal(_REASONS[type(error)], str(error))
        return key_id, value

    async def _write(self, account: str, member: Member, values: Mapping[str, SecretBytes]) -> Step:
        """Bring one namespace's account Secret to what it should hold; give what was found."""
        todo = step(values, member)
        version = member.secret.resource_version if member.secret else None
        if todo in (Step.DELETE, Step.REPLACE) and version:
            await self._cluster.delete_account_secret(member.namespace, version)
            self._note(member, "deleted")
            version = None
        if todo in (Step.APPLY, Step.REPLACE):
            await self._apply(account, member, values, version or await self._create(account, member))
            if self._held.get(member.namespace) == values:
                metrics.DRIFT_REPAIRS.inc()
        if todo is Step.DELETE:
            self._held.pop(member.namespace, None)
        elif todo is not Step.LEAVE:
            self._held[member.namespace] = values
        return todo

    async def _create(self, account: str, member: Member) -> str:
        """Create the account Secret and give the version that it's to be filled at."""
        body, new = await self._cluster.create_account_secret(member.namespace)
        if not new:
            self._learn(account, body)
            raise ClusterError(f"namespace {member.namespace}: a Secret came up", HTTPStatus.CONFLICT)
        version: str = body["metadata"]["resourceVersion"]
        return version

    async def _apply(self, account: str, member: Member, values: Mapping[str, SecretBytes], version: str) -> None:
        body = await self._cluster.apply_account_secret(member.namespace, values, version)
        self._note(member, f"written, variables: {len(values)}")
        strange = sorted(set(body.get("data") or {}) - set(values))
        if strange:
            # Apply leaves alone what another manager put there.
            version = body["metadata"]["resourceVersion"]
            body = await self._cluster.remove_account_secret_keys(member.namespace, strange, version)
            self._note(member, f"freed of what isn't the account's, keys: {len(strange)}")
        self._learn(account, body)

    def _learn(self, account: str, body: Mapping[str, Any]) -> None:
        """Take our write's answer, unless the namespace went to another account meanwhile.

        Then its event is left to mark that account, which has to undo what was written.
        """
        if self._cache.home_account(body["metadata"]["namespace"]) == account:
            self._cache.take_secret(body)

    async def _tell(self, secret: AccountSecret, entry: Entry, refusal: Refusal | None) -> None:
        now = self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        status = next_status(entry, refusal, self._before.get(entry.uid), now)
        if status == secret.status:
            return
        try:
            body = await self._cluster.write_status(secret.namespace, secret.name, status, secret.resource_version)
        except ClusterError as error:
            if error.status != HTTPStatus.NOT_FOUND:  # deleted meanwhile: its event is on the way
                raise
            return
        metrics.WRITES.labels("status").inc()
        self._cache.take_account_secret(body)
        if not refusal:
            self._before.pop(entry.uid, None)
        for news in of_status(secret.status, status):
            log = LOG.warning if news.warning else LOG.info
            log("account %s: %s: %s", secret.namespace, secret.name, news.reason)
            await self._tell_people(secret, news)

    def _note(self, member: Member, what: str) -> None:
        metrics.WRITES.labels("secret").inc()
        LOG.info("namespace %s: account Secret %s", member.namespace, what)


def _ready_reason(secret: AccountSecret) -> str:
    return ready.reason if (ready := secret.status.ready) else "Pending"


def _unreached(outcomes: Mapping[str, object]) -> Refusal | None:
    """Say which namespaces an account's variables can't reach, if there are any."""
    foreign = [namespace for namespace, outcome in outcomes.items() if outcome is Step.LEAVE]
    if foreign:
        return not_owned(foreign)
    refused = {namespace: str(outcome) for namespace, outcome in outcomes.items() if isinstance(outcome, ClusterError)}
    return not_written(refused) if refused else None


def _is_told(outcome: object, failures: int) -> bool:
    """Tell whether people should hear of a write that failed, rather than that it's tried once more.

    A refusal comes of itself where a namespace is being deleted and its event isn't here yet.
    """
    return isinstance(outcome, ClusterError) and failures >= (1 if outcome.final else _PATIENCE)


async def _each(job: Callable[[T], Awaitable[R]], items: Sequence[T]) -> list[R | Exception]:
    """Do a job for each item, a few at a time; give what came of each: its result, or its error."""
    results: dict[int, R | Exception] = {}
    todo = iter(enumerate(items))

    async def work() -> None:
        for number, item in todo:
            try:
                results[number] = await job(item)
            except Exception as error:  # noqa: BLE001 - the caller's to judge, when all are done
                results[number] = error

    await asyncio.gather(*(work() for _ in range(min(_AT_ONCE, len(items)))))
    return [results[number] for number in range(len(items))]


def _raise_first(outcomes: Sequence[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
