"""Plans an account: which AccountSecret owns a variable, which values devboxes get, what to do in each namespace.

A plan has only the fingerprints of values: plans are made often, and a value is needed only to write it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from devbox_secrets.api.models import AccountSecretStatus
from devbox_secrets.api.ownership import precedence
from devbox_secrets.api.validation import RESERVED_NAMES, SECRET_MAX_BYTES, SECRET_NAMES_MAX_BYTES, is_reserved
from devbox_secrets.controller.rules.conditions import (
    NotReady,
    being_deleted,
    name_conflict,
    reserved_name,
    too_large,
    too_many,
    wrong_namespace,
)
from devbox_secrets.controller.rules.fingerprint import Fingerprint


@dataclass(frozen=True, slots=True)
class Entry:
    """An AccountSecret as the rules see it."""

    uid: str
    account: str
    name: str
    variable: str
    """Empty if it can't be read."""
    created: str
    """RFC 3339, UTC, to the second, as Kubernetes writes it: sorts as text."""
    generation: int
    key_id: str | None
    opened: Fingerprint | NotReady
    rotate_after: str | None = None
    """A number of days, hours or minutes, such as 90d."""
    status: AccountSecretStatus = field(default_factory=AccountSecretStatus)
    current: Fingerprint | None = None
    """The value that devboxes have now, if it's known to be ours."""
    remembered: bool = False
    """Whether this process gave them that value. If not, it's from a Secret, and another one may have a newer value."""
    before: Fingerprint | None = None
    """The value that devboxes had when the status was last written."""
    changed: bool = False
    """Whether they have had another value since."""
    deleting: bool = False
    """Whether it was deleted but has a finalizer."""

    @property
    def is_reported(self) -> bool:
        """Whether the status says that devboxes have the value of the current generation."""
        return self.status.is_synced(self.generation)


@dataclass(frozen=True, slots=True)
class Member:
    """A namespace of the account, and its current account Secret."""

    namespace: str
    labeled: bool
    secret: "ExistingSecret | None" = None
    uid: str = ""
    """The namespace's."""


@dataclass(frozen=True, slots=True)
class ExistingSecret:
    """A Secret in a namespace that has the account Secret's name."""

    resource_version: str
    data: Mapping[str, Fingerprint] = field(default_factory=dict)
    owned: bool = True
    """Whether we wrote it."""
    labeled: bool = True
    """Whether it has our label, as every Secret that we write."""
    account: str = ""
    """The account whose values it contains, from its label; empty without a label."""
    unchanged: Mapping[str, Fingerprint] = field(default_factory=dict)
    """The valid values in `data` that we wrote for that account and nobody has changed since."""
    must_recreate: bool = False
    """Whether it must be recreated because someone made it immutable or changed its type."""
    uid: str = ""
    created: str = ""
    """RFC 3339, UTC."""
    deleting: bool = False
    """Whether it was deleted but has finalizers."""
    finalizers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AccountState:
    """The observed state of an account."""

    account: str
    home_account: str
    """The account that the home belongs to: itself, unless a label names another."""
    home_uid: str
    """Empty if the home doesn't exist."""
    entries: Sequence[Entry]
    members: Sequence[Member]


def current_values(account: str, members: Sequence[Member]) -> Mapping[str, Fingerprint]:
    """Return the values in the account's Secrets that we wrote and nobody has changed since; the home's come first.

    Values that a namespace brought along from another account don't count.
    """
    found: dict[str, Fingerprint] = {}
    for member in sorted(members, key=lambda member: member.namespace != account):
        found = {**_written_for(account, member), **found}
    return found


def _written_for(account: str, member: Member) -> Mapping[str, Fingerprint]:
    """Return the values in a namespace's account Secret that we wrote for this account and nobody has changed since."""
    secret = member.secret
    # A Secret of an older version has no account label; only the home's is known to be the account's.
    if secret is None or not secret.owned or (secret.account or member.namespace) != account:
        return {}
    return secret.unchanged


class Action(Enum):
    """What to do in one namespace."""

    NONE = "none"
    APPLY = "apply"
    DELETE = "delete"
    REPLACE = "replace"
    """Delete it and create it again, since it can't be changed."""
    EMPTY = "empty"
    """Remove its values, then delete it, since a finalizer may keep it."""
    WAIT = "wait"
    """It can't be changed and was deleted, but a finalizer keeps it."""
    SKIP_FOREIGN = "skip-foreign"
    """It belongs to someone else."""

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self not in {Action.NONE, Action.WAIT, Action.SKIP_FOREIGN}


@dataclass(frozen=True, slots=True)
class AccountPlan:
    """Which values an account's devboxes should have, which AccountSecrets aren't ready, and what to do."""

    values: Mapping[str, Fingerprint]
    not_ready: Mapping[str, NotReady]
    """By the AccountSecret's uid."""
    actions: Mapping[str, Action]
    """By namespace."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """By variable, the uid of the AccountSecret that it belongs to."""
    uncertain: frozenset[str] = frozenset()
    """The variables for which some namespace may have a newer value than `values`."""
    own: Mapping[str, Mapping[str, Fingerprint]] = field(default_factory=dict)
    """By namespace, its values if they differ from `values`, since it keeps some that it has."""

    def values_in(self, namespace: str) -> Mapping[str, Fingerprint]:
        """Return which values a namespace's devboxes should have."""
        return self.own.get(namespace, self.values)


def plan_account(state: AccountState, reserved: Sequence[str] = RESERVED_NAMES) -> AccountPlan:
    """Decide which values an account's devboxes get, and what to write.

    If a value isn't available (its key is lost, it can't be opened, it is too large), the last synced value
    stays, so that devboxes can still start while someone fixes it. If a replica stopped before it had written a value
    everywhere, namespaces differ, and each keeps the value that it has: nobody knows which one is newer.
    """
    owners, not_ready = _owners(state, reserved)
    kept = {
        variable: owner.current
        for variable, owner in owners.items()
        if owner.status.changed_at is not None and owner.current is not None
    }
    values, missing = _fill(owners, kept)
    uncertain = frozenset(
        name for name in values if values[name] != owners[name].opened and not owners[name].remembered
    )
    own = {
        member.namespace: {**values, **found}
        for member in state.members
        if (found := _own_values(values, uncertain, state.account, member))
    }
    actions = {
        member.namespace: _action(own.get(member.namespace, values), state.account, member) for member in state.members
    }
    uids = {variable: owner.uid for variable, owner in owners.items()}
    return AccountPlan(values, not_ready | missing, actions, uids, uncertain, own)


def _own_values(
    values: Mapping[str, Fingerprint], uncertain: Collection[str], account: str, member: Member
) -> Mapping[str, Fingerprint]:
    """Return the values that a namespace keeps because they may be newer than the account's."""
    found = _written_for(account, member)
    return {name: found[name] for name in uncertain if name in found and found[name] != values[name]}


def _owners(state: AccountState, reserved: Sequence[str]) -> tuple[dict[str, Entry], dict[str, NotReady]]:
    """Decide which AccountSecret owns each variable: the oldest one. The others aren't ready."""
    owners: dict[str, Entry] = {}
    not_ready: dict[str, NotReady] = {}
    for entry in sorted(state.entries, key=lambda entry: precedence(entry.created, entry.uid)):
        if entry.deleting:
            # Its variable is free: its successor may already exist.
            not_ready[entry.uid] = being_deleted(entry.name)
        elif not entry.variable and isinstance(entry.opened, NotReady):
            not_ready[entry.uid] = entry.opened  # its variable can't be read
        elif entry.account != state.home_account:
            not_ready[entry.uid] = wrong_namespace(entry.account, state.home_account)
        elif is_reserved(entry.variable, reserved):
            not_ready[entry.uid] = reserved_name(entry.variable)
        elif entry.variable in owners:
            not_ready[entry.uid] = name_conflict(entry.variable, owners[entry.variable].name)
        else:
            owners[entry.variable] = entry
    return owners, not_ready


def _action(want: Mapping[str, Fingerprint], account: str, member: Member) -> Action:
    """Decide what to do with a member namespace's account Secret.

    A labeled namespace keeps an empty one: its devboxes require the Secret, so that none starts before
    its secrets are available.
    """
    found = member.secret
    wanted = bool(want) or member.labeled
    if found is None:
        return Action.APPLY if wanted else Action.NONE
    if not found.owned:
        return Action.SKIP_FOREIGN
    if not wanted and not found.deleting:
        return Action.EMPTY if found.finalizers and found.data and not found.must_recreate else Action.DELETE
    # One that is being deleted is kept up to date while a finalizer keeps it, since devboxes still read it.
    if found.data == want and (not wanted or (found.labeled and found.account == account)):
        return Action.NONE
    if not found.must_recreate:
        return Action.APPLY
    return Action.WAIT if found.deleting else Action.REPLACE


def _fill(
    owners: Mapping[str, Entry], kept: Mapping[str, Fingerprint]
) -> tuple[dict[str, Fingerprint], dict[str, NotReady]]:
    """Replace each kept value with the owner's new one, as long as they fit into a Secret."""

    def shrinks(owner: Entry) -> bool:
        return not isinstance(owner.opened, NotReady) and owner.opened.size < _size(kept.get(owner.variable))

    values, not_ready = dict(kept), {}
    size, names = sum(map(_size, values.values())), sum(map(_name_bytes, values))
    # Values that shrink come first, to make room for the others, and so that the next plan is the same.
    for owner in sorted(owners.values(), key=shrinks, reverse=True):
        variable = owner.variable
        if isinstance(owner.opened, NotReady):
            not_ready[owner.uid] = _keeping(owner.opened, owner, values)
            continue
        grown = size - _size(values.get(variable)) + owner.opened.size
        named = names + (0 if variable in values else _name_bytes(variable))
        if grown > SECRET_MAX_BYTES:
            not_ready[owner.uid] = _keeping(too_large(variable, grown), owner, values)
        elif named > SECRET_NAMES_MAX_BYTES:
            not_ready[owner.uid] = too_many(variable, len(values))
        else:
            values[variable] = owner.opened
            size, names = grown, named
    return values, not_ready


def _keeping(condition: NotReady, owner: Entry, values: Mapping[str, Fingerprint]) -> NotReady:
    since = owner.status.changed_at
    return condition.keeping(since) if since and owner.variable in values else condition


def _size(value: Fingerprint | None) -> int:
    return value.size if value else 0


def _name_bytes(variable: str) -> int:
    """Return the bytes that a name takes in the stored Secret: as a key and in managedFields, with overhead."""
    return 2 * len(variable) + 16
