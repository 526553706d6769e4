"""Reconciles one account at a time: observe, plan, act, report.

Nothing is decided here: `rules.plan` decides what to write, and `rules.report` what to report.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.api.secret_data import read_data
from devbox_secrets.controller import metrics
from devbox_secrets.controller.cache import Cache
from devbox_secrets.controller.opener import Opened, Opener
from devbox_secrets.controller.rules.events import Event
from devbox_secrets.controller.rules.fingerprint import Fingerprint
from devbox_secrets.controller.rules.plan import (
    AccountPlan,
    AccountState,
    Action,
    Entry,
    Member,
    current_values,
    plan_account,
)
from devbox_secrets.controller.rules.report import Outcomes, StatusWrite, report
from devbox_secrets.controller.rules.status import timestamp
from devbox_secrets.controller.writes import Writer
from devbox_secrets.errors import APIError, Conflict, Invalid, NotFound, ServerError, Unreachable

LOG = logging.getLogger(__name__)
T = TypeVar("T")
#: Account Secrets that are written at once, in all accounts and in one: a large account leaves room for others. One of
#: each account isn't counted, so that no account waits for another. Together with the statuses they stay below the
#: client's number of connections, so that no request times out while it waits for one.
_SECRET_WRITES = 32
_SECRET_WRITES_OF_ONE = 24
#: Statuses that are written at once, in all accounts.
_STATUS_WRITES = 8
#: After a new value, how long an account writes its statuses one at a time if many accounts wait: values are more
#: urgent, and each status keeps the API server busy. But no longer than a second in a reconciliation, since the
#: account's next value waits for the last status.
_WAIT_SECONDS = 0.1
_WAIT_SECONDS_MAX = 1.0
#: Statuses of an account until it is decided again how many are written at once.
_STATUSES_ONE_AT_A_TIME = 8
_STATUSES_AT_ONCE = 200
#: After these errors a write may have taken effect.
_MAY_HAVE_WRITTEN = (Unreachable, ServerError)
#: Values opened before the event loop may run something else: each may take a quarter of a millisecond.
_OPENED_AT_ONCE = 20


class Reconciler:
    """Reconciles accounts."""

    def __init__(
        self,
        writer: Writer,
        cache: Cache,
        opener: Opener,
        record: Callable[[AccountSecret, Event], Awaitable[None]],
        *,
        reserved: Sequence[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._writer = writer
        self._cache = cache
        self._opener = opener
        self._record = record
        self._reserved = reserved
        self._clock = clock
        self._secret_writes = asyncio.Semaphore(_SECRET_WRITES)
        self._status_writes = asyncio.Semaphore(_STATUS_WRITES)
        self._statuses_wait_until = float("-inf")
        # By uid: the value devboxes had before a change that the status doesn't report yet, and whether they have had
        # another value since. When the report is retried, the account Secret already holds the new value.
        self._before: dict[str, tuple[Fingerprint | None, bool]] = {}
        # By uid and variable: the last value given to devboxes, even if it isn't known whether the write took effect.
        # And whether it was given by this process; otherwise it's one that stayed, and some namespace may have a newer
        # one.
        self._given: dict[tuple[str, str], tuple[Fingerprint, bool]] = {}
        # By the namespace's uid: the content that its account Secret was last known to have. If the Secret
        # differs from it while the plan is the same, someone else changed the Secret.
        self._held: dict[str, Mapping[str, Fingerprint]] = {}
        # By the namespace's uid: the uids of its account Secret and of the home whose values may be written to it.
        self._located: dict[str, tuple[str, str]] = {}

    async def reconcile(self, account: str, since: float, failures: int = 0) -> None:
        """Write what differs: the account Secrets first, then the AccountSecrets' statuses.

        Args:
            account: the account.
            since: when the change was observed, by the monotonic clock.
            failures: how often in a row it has failed so far.

        Raises:
            APIError: a write failed; all the others were done.
        """
        await self._open(account)
        secrets = {secret.uid: secret for secret in self._cache.account_secrets(account)}
        state = self._observe(account, list(secrets.values()))
        given = self._given  # replaced if another replica leads meanwhile
        plan = plan_account(state, self._reserved)
        values = await self._values(state, plan, secrets)
        outcomes = await self._act(state, plan, values)
        given |= _given(plan, outcomes)
        state = replace(state, home_uid=self._cache.namespace_uid(account))  # it may have been deleted meanwhile
        changed = sum(plan.actions[namespace].writes and not failure for namespace, failure in outcomes.items())
        if changed:
            counts = f"namespaces: {changed}, variables: {len(plan.values)}"
            LOG.info("account %s: changed account Secrets (%s)", account, counts)
            metrics.SYNC_DURATION.observe(time.monotonic() - since)
        now = timestamp(self._clock())
        written = await self._write_statuses(secrets, report(state, plan, outcomes, failures, now))
        _raise_worst([*outcomes.values(), *written])

    def let_statuses_wait(self) -> None:
        """Let statuses wait for a moment: a new value arrived while many accounts wait, and others may follow."""
        self._statuses_wait_until = asyncio.get_running_loop().time() + _WAIT_SECONDS

    def start_over(self) -> None:
        """Forget what this process wrote: another replica has led since, and may have given devboxes other values."""
        self._before, self._given, self._held, self._located = {}, {}, {}, {}

    def forget(self) -> None:
        """Forget AccountSecrets and namespaces that no longer exist."""
        alive = {secret.uid for secret in self._cache.all_account_secrets()}
        self._opener.forget_all_but(alive)
        self._before = {uid: before for uid, before in self._before.items() if uid in alive}
        for key in [key for key in self._given if key[0] not in alive]:
            del self._given[key]  # in place, since a reconciliation may be updating it
        namespaces = {namespace.uid for namespace in self._cache.namespaces()}
        self._held = {uid: held for uid, held in self._held.items() if uid in namespaces}
        self._located = {uid: secret for uid, secret in self._located.items() if uid in namespaces}

    async def _open(self, account: str) -> None:
        """Open all values of an account, including those that arrive meanwhile, so that a plan sees one state."""
        while missing := [each for each in self._cache.account_secrets(account) if not self._opener.opened(each)]:
            for number, secret in enumerate(missing, start=1):
                if await self._opener.open(secret):
                    self._cache.abridge_account_secret(secret)
                if number % _OPENED_AT_ONCE == 0:
                    await asyncio.sleep(0)  # let the probes and the watches run

    def _observe(self, account: str, secrets: Sequence[AccountSecret]) -> AccountState:
        members = self._cache.members(account)
        current = current_values(account, members)
        opened = [opened for secret in secrets if (opened := self._opener.opened(secret))]
        return AccountState(
            account=account,
            home_account=self._cache.home_account(account),
            home_uid=self._cache.namespace_uid(account),
            entries=[self._entry(*each, current) for each in zip(secrets, opened, strict=True)],
            members=members,
        )

    def _entry(self, secret: AccountSecret, opened: Opened, written: Mapping[str, Fingerprint]) -> Entry:
        current, remembered = self._current(secret, written)
        before, changed = self._value_before(secret, current)
        return Entry(
            uid=secret.uid,
            account=secret.namespace,
            name=secret.name,
            variable=secret.spec.name,
            created=secret.created,
            generation=secret.generation,
            key_id=opened.key_id,
            opened=opened.outcome,
            rotate_after=secret.spec.rotate_after,
            status=secret.status,
            current=current,
            remembered=remembered,
            before=before,
            changed=changed,
            deleting=secret.deleting,
        )

    def _current(self, secret: AccountSecret, written: Mapping[str, Fingerprint]) -> tuple[Fingerprint | None, bool]:
        """Return the value that devboxes have: the last one given to them, or else ours in the account Secrets.

        Also return whether this process gave it to them.
        """
        in_secrets = written.get(secret.spec.name)
        given, remembered = self._given.get((secret.uid, secret.spec.name), (None, False))
        if given is not None and (given == in_secrets or self._opener.values.get(given) is not None):
            return given, remembered
        return in_secrets, False

    def _value_before(self, secret: AccountSecret, current: Fingerprint | None) -> tuple[Fingerprint | None, bool]:
        """Return the value devboxes had when the status was last written, and whether they have had another since."""
        if secret.status.is_synced(secret.generation):
            return self._before.get(secret.uid, (None, False))
        before, changed = self._before.get(secret.uid, (current, False))
        self._before[secret.uid] = before, changed or before != current
        return self._before[secret.uid]

    async def _values(
        self, state: AccountState, plan: AccountPlan, secrets: Mapping[str, AccountSecret]
    ) -> Mapping[Fingerprint, SecretBytes]:
        """Return the values to write.

        This includes values that stay although their AccountSecrets can't be opened: soon nobody else may have them.
        """
        writes = any(action in {Action.APPLY, Action.REPLACE} for action in plan.actions.values())
        opened = {entry.uid: entry.opened for entry in state.entries}
        wanted = dict.fromkeys(item for each in (plan.values, *plan.own.values()) for item in each.items())
        values = {}
        for variable, fingerprint in wanted:
            uid = plan.owners[variable]
            opens = opened[uid] == fingerprint
            if not writes and opens:
                continue
            value = self._opener.values.get(fingerprint)
            if value is None:
                value = await self._read_value(state.members, variable, fingerprint)
            if value is None and opens:
                value = await self._opener.value(secrets[uid])
            if value is None or Fingerprint.of(value) != fingerprint:
                self._opener.forget(uid)
                self._given.pop((uid, variable), None)
                raise Conflict(f"account {state.account}: the value of {variable} was changed meanwhile")
            values[fingerprint] = value
        return values

    async def _read_value(
        self, members: Sequence[Member], variable: str, fingerprint: Fingerprint
    ) -> SecretBytes | None:
        """Read a value from an account Secret that is known to hold it; None if none does anymore.

        The Secret's other values are cached: usually many were evicted, and each sealed text would take a request.
        """
        for member in members:
            if member.secret and member.secret.unchanged.get(variable) == fingerprint:
                with suppress(NotFound):
                    body = await self._writer.read_account_secret(member.namespace)
                    data = read_data(body)
                    for name in data.keys() & member.secret.unchanged.keys():
                        self._opener.values.add(data[name])
                    if variable in data and Fingerprint.of(data[variable]) == fingerprint:
                        return data[variable]
        return None

    async def _act(self, state: AccountState, plan: AccountPlan, values: Mapping[Fingerprint, SecretBytes]) -> Outcomes:
        async def act(member: Member) -> None:
            await self._write_secret(state, member, plan, values)

        failures = await _each(act, state.members, self._secret_writes, _SECRET_WRITES_OF_ONE)
        return {member.namespace: failure for member, failure in zip(state.members, failures, strict=True)}

    async def _write_secret(
        self, state: AccountState, member: Member, plan: AccountPlan, values: Mapping[Fingerprint, SecretBytes]
    ) -> None:
        """Carry out the plan for one namespace's account Secret."""
        account, namespace = state.account, member.namespace
        action = plan.actions[namespace]
        want = plan.values_in(namespace)
        if action.writes and self._cache.home_account(namespace) != account:
            # While another namespace's Secret was written, which may have taken long.
            raise Conflict(f"namespace {namespace}: the namespace was deleted or moved to another account")
        uid, version = (member.secret.uid, member.secret.resource_version) if member.secret else ("", "")
        if action is Action.EMPTY and version:
            body = await self._writer.apply_account_secret(namespace, account, {}, uid, version)
            version = body["metadata"]["resourceVersion"]
        if action in {Action.DELETE, Action.EMPTY, Action.REPLACE} and version:
            await self._writer.delete_account_secret(namespace, version)
            _note(namespace, "deleted the account Secret")
            version = ""
        if action in {Action.APPLY, Action.REPLACE}:
            if not version:
                uid, version = await self._create(account, member)
            await self._locate(state, member, uid)
            data = {variable: values[fingerprint] for variable, fingerprint in want.items()}
            await self._apply(account, namespace, data, uid, version)
            if self._held.get(member.uid) == want:
                metrics.DRIFT_REPAIRS.inc()
        if action in {Action.DELETE, Action.EMPTY}:
            self._held.pop(member.uid, None)
            self._located.pop(member.uid, None)  # a finalizer may keep the Secret, and the namespace may come back
        elif action not in {Action.SKIP_FOREIGN, Action.WAIT}:
            self._held[member.uid] = want

    async def _create(self, account: str, member: Member) -> tuple[str, str]:
        """Create an empty account Secret; return its uid and resourceVersion."""
        namespace = member.namespace
        await self._insist_on_namespace(namespace, member.uid, account)
        body, new = await self._writer.create_account_secret(namespace)
        if not new:
            self._learn(account, body)
            raise Conflict(f"namespace {namespace}: the account Secret was created meanwhile")
        return body["metadata"]["uid"], body["metadata"]["resourceVersion"]

    async def _locate(self, state: AccountState, member: Member, uid: str) -> None:
        """Make sure that an account Secret with this uid is still in the namespace that may have the home's values.

        Another team may have recreated either namespace, or labeled one after the home was deleted. Later writes of
        the account to the same Secret name its uid, and it is deleted with its namespace.
        """
        located = uid, state.home_uid
        if self._located.get(member.uid) != located:
            await self._insist_on_namespace(member.namespace, member.uid, state.account)
            if state.home_uid and state.account != member.namespace:
                await self._insist_on_namespace(state.account, state.home_uid, state.home_account)
            self._located[member.uid] = located

    async def _insist_on_namespace(self, name: str, uid: str, account: str) -> None:
        if not await self._writer.has_namespace(name, uid, account):
            raise Conflict(f"namespace {name}: the namespace was deleted, recreated or moved to another account")

    async def _apply(
        self, account: str, namespace: str, values: Mapping[str, SecretBytes], uid: str, version: str
    ) -> None:
        body = await self._writer.apply_account_secret(namespace, account, values, uid, version)
        _note(namespace, "wrote the account Secret")
        strange = sorted(set(body.get("data") or {}) - set(values))
        if strange:
            # Server-side apply doesn't remove keys that another field manager added.
            version = body["metadata"]["resourceVersion"]
            try:
                body = await self._writer.remove_account_secret_keys(namespace, strange, version)
            except APIError as error:
                raise ServerError(str(error)) from error  # whatever it is, the values have been written
            _note(namespace, "removed unknown keys from the account Secret")
        self._learn(account, body)

    def _learn(self, account: str, body: Mapping[str, Any]) -> None:
        """Store our write's response in the cache, unless the namespace has moved to another account meanwhile.

        In that case the watch event enqueues that account, which undoes the write.
        """
        if self._cache.home_account(body["metadata"]["namespace"]) == account:
            self._cache.upsert_secret(body)

    async def _write_statuses(
        self, secrets: Mapping[str, AccountSecret], writes: Sequence[StatusWrite]
    ) -> list[Exception | None]:
        async def write(it: StatusWrite) -> None:
            await self._write_status(secrets[it.uid], it)

        written: list[Exception | None] = []
        loop = asyncio.get_running_loop()
        latest = loop.time() + _WAIT_SECONDS_MAX
        while len(written) < len(writes):
            wait = loop.time() < min(self._statuses_wait_until, latest)
            at_once, count = (1, _STATUSES_ONE_AT_A_TIME) if wait else (_STATUS_WRITES, _STATUSES_AT_ONCE)
            some = writes[len(written) : len(written) + count]
            written += await _each(write, some, self._status_writes, at_once)
        return written

    async def _write_status(self, secret: AccountSecret, write: StatusWrite) -> None:
        version = secret.resource_version
        try:
            written = await self._writer.write_status(secret.namespace, secret.name, write.status, version)
        except NotFound:  # deleted meanwhile; the watch event will follow
            return
        except Invalid:
            if not secret.invalid_spec:
                raise
            # The CRD's rules fail on fields that they can't read, whatever is written. The log and an Event report it.
            for event in write.events:
                await self._record(secret, event)
            return
        metrics.WRITES.labels("status").inc()
        self._cache.put_account_secret(secret.with_status(write.status, written))
        if write.status.ready and write.status.ready.holds:
            self._before.pop(secret.uid, None)
        for event in write.events:
            log = LOG.warning if event.type == "Warning" else LOG.info
            log("AccountSecret %s/%s: %s", secret.namespace, secret.name, event.reason)
            await self._record(secret, event)


def _given(plan: AccountPlan, outcomes: Outcomes) -> dict[tuple[str, str], tuple[Fingerprint, bool]]:
    """Return the values that devboxes have or may have, as `Reconciler` keeps them."""
    reached = {
        namespace
        for namespace, failure in outcomes.items()
        if failure is None or isinstance(failure, _MAY_HAVE_WRITTEN)
    }
    if all(plan.actions[namespace] in {Action.WAIT, Action.SKIP_FOREIGN} for namespace in reached):
        return {}
    return {(plan.owners[name], name): (value, name not in plan.uncertain) for name, value in plan.values.items()}


def _note(namespace: str, what: str) -> None:
    metrics.WRITES.labels("secret").inc()
    LOG.debug("namespace %s: %s", namespace, what)  # an account may have thousands


async def _each(
    job: Callable[[T], Awaitable[None]], items: Sequence[T], slots: asyncio.Semaphore, at_once: int
) -> list[Exception | None]:
    """Run a job for each item, at most `at_once` at a time; return each item's error, or None.

    One of them needs no slot, so that no account waits for others whose requests take long.
    """
    failures: dict[int, Exception | None] = {}
    todo = iter(enumerate(items))

    async def work(slot: AbstractAsyncContextManager[object]) -> None:
        for number, item in todo:
            failures[number] = None
            try:
                async with slot:
                    await job(item)
            except Exception as error:  # noqa: BLE001 - the caller decides when all are done
                failures[number] = error

    await asyncio.gather(*(work(slots if number else nullcontext()) for number in range(min(at_once, len(items)))))
    return [failures[number] for number in range(len(items))]


def _raise_worst(outcomes: Sequence[Exception | None]) -> None:
    """Raise the first failure; unexpected errors come before the API server's."""
    if failures := [outcome for outcome in outcomes if outcome]:
        raise min(failures, key=lambda failure: isinstance(failure, APIError))
