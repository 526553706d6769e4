"""From what is known of an account to what the cluster should hold, by way of the plan.

The one place where rules meet effects: it opens, asks plan.py what should be, and has cluster.py
do it. Nothing is decided here.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus

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
from devbox_secrets.plan import (
    Entry,
    Member,
    Refusal,
    Step,
    next_status,
    not_owned,
    not_written,
    plan_account,
    step,
)
from devbox_secrets.sealing import Keyring, key_id_of

LOG = logging.getLogger(__name__)
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
        *,
        reserved: Sequence[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._keyring = keyring
        self._cluster = cluster
        self._cache = cache
        self._reserved = reserved
        self._clock = clock
        # By uid: the sealed text and what it opened to, since opening is the dearest step.
        self._opened: dict[str, tuple[str, SecretBytes]] = {}

    async def reconcile(self, account: str) -> None:
        """Write what differs: the account Secrets first, then the AccountSecrets' statuses.

        Raises:
            ClusterError: something couldn't be written; all the rest was.
        """
        secrets = self._cache.account_secrets(account)
        entries = [self._entry(secret) for secret in secrets]
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
        outcomes = await asyncio.gather(
            *(self._write(member, plan.values) for member in members), return_exceptions=True
        )
        # What time alone mends isn't told: the account comes again soon.
        _raise_first([outcome for outcome in outcomes if not _is_final(outcome)])
        where = [member.namespace for member in members]
        refusal = _unreached(dict(zip(where, outcomes, strict=True)))
        statuses = await asyncio.gather(
            *(
                self._tell(secret, entry, plan.refusals.get(entry.uid, refusal), present)
                for secret, entry in zip(secrets, entries, strict=True)
            ),
            return_exceptions=True,
        )
        _raise_first([*outcomes, *statuses])

    def forget(self) -> None:
        """Drop the opened values of AccountSecrets that are gone."""
        alive = {secret.uid for secret in self._cache.all_account_secrets()}
        self._opened = {uid: opened for uid, opened in self._opened.items() if uid in alive}

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
            status=secret.status,
        )

    def _open(self, secret: AccountSecret) -> tuple[str | None, SecretBytes | Refusal]:
        sealed, key_id = secret.spec.sealed, None
        try:
            key_id = key_id_of(sealed)
            known, value = self._opened.get(secret.uid, (None, None))
            if known != sealed or value is None:
                value = self._keyring().open(sealed, account=secret.namespace, name=secret.spec.name)
                self._opened[secret.uid] = sealed, value
                metrics.OPENS.inc()
        except DevboxSecretsError as error:
            return key_id, Refusal(_REASONS[type(error)], str(error))
        return key_id, value

    async def _write(self, member: Member, values: Mapping[str, SecretBytes]) -> Step:
        """Bring one namespace's account Secret to what it should hold; give what was found."""
        todo = step(values, member)
        version = member.secret.resource_version if member.secret else None
        if todo in (Step.DELETE, Step.REPLACE) and version:
            await self._cluster.delete_account_secret(member.namespace, version)
            self._note(member, "deleted")
            version = None
        if todo in (Step.APPLY, Step.REPLACE):
            await self._apply(member, values, version or await self._create(member))
        return todo

    async def _create(self, member: Member) -> str:
        """Create the account Secret and give the version that it's to be filled at."""
        body, new = await self._cluster.create_account_secret(member.namespace)
        if not new:
            self._cache.take_secret(body)
            raise ClusterError(f"namespace {member.namespace}: a Secret came up", HTTPStatus.CONFLICT)
        version: str = body["metadata"]["resourceVersion"]
        return version

    async def _apply(self, member: Member, values: Mapping[str, SecretBytes], version: str) -> None:
        body = await self._cluster.apply_account_secret(member.namespace, values, version)
        self._note(member, f"written, variables: {len(values)}")
        strange = sorted(set(body.get("data") or {}) - set(values))
        if strange:
            # Apply leaves alone what another manager put there.
            version = body["metadata"]["resourceVersion"]
            body = await self._cluster.remove_account_secret_keys(member.namespace, strange, version)
            self._note(member, f"freed of what isn't the account's, keys: {len(strange)}")
        self._cache.take_secret(body)

    async def _tell(
        self,
        secret: AccountSecret,
        entry: Entry,
        refusal: Refusal | None,
        present: Mapping[str, SecretBytes],
    ) -> None:
        now = self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        status = next_status(entry, refusal, present, now)
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
        if refusal and _ready_reason(secret) != refusal.reason:
            LOG.warning("account %s: %s isn't ready: %s", secret.namespace, secret.name, refusal.reason)

    def _note(self, member: Member, what: str) -> None:
        metrics.WRITES.labels("secret").inc()
        LOG.info("namespace %s: account Secret %s", member.namespace, what)


def _ready_reason(secret: AccountSecret) -> str:
    return next((c.reason for c in secret.status.conditions if c.type == "Ready"), "Pending")


def _unreached(outcomes: Mapping[str, object]) -> Refusal | None:
    """Say which namespaces an account's variables can't reach, if there are any."""
    foreign = [namespace for namespace, outcome in outcomes.items() if outcome is Step.LEAVE]
    if foreign:
        return not_owned(foreign)
    refused = {namespace: str(outcome) for namespace, outcome in outcomes.items() if _is_final(outcome)}
    return not_written(refused) if refused else None


def _is_final(outcome: object) -> bool:
    return isinstance(outcome, ClusterError) and outcome.final


def _raise_first(outcomes: Sequence[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
