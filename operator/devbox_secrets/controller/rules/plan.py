"""Plans an account: which AccountSecret owns a variable, which values devboxes get, what to do in each namespace.

Values are known by their fingerprints alone: a plan is made often, and a value is needed only where it's written.
"""

from collections.abc import Mapping, Sequence
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
    """Empty where it can't be read."""
    created: str
    """RFC 3339, UTC, to the second, as Kubernetes writes it: sorts as text."""
    generation: int
    key_id: str | None
    opened: Fingerprint | NotReady
    rotate_after: str | None = None
    """A number of days, hours or minutes, such as 90d."""
    status: AccountSecretStatus = field(default_factory=AccountSecretStatus)
    current: Fingerprint | None = None
    """The value that devboxes have now, as far as it's known to be ours."""
    before: Fingerprint | None = None
    """The value that devboxes had when the status was written last."""
    changed: bool = False
    """Whether they had another value since."""
    deleting: bool = False
    """Whether it was deleted and only a finalizer still holds it."""

    @property
    def is_reported(self) -> bool:
        """Whether the status says of the current generation that devboxes have its value."""
        return self.status.is_synced(self.generation)


@dataclass(frozen=True, slots=True)
class Member:
    """A namespace of the account, and its account Secret as it is now."""

    namespace: str
    labeled: bool
    secret: "ExistingSecret | None" = None
    uid: str = ""
    """The namespace's."""


@dataclass(frozen=True, slots=True)
class ExistingSecret:
    """A Secret of the account Secret's name, found in a namespace."""

    resource_version: str
    data: Mapping[str, Fingerprint] = field(default_factory=dict)
    owned: bool = True
    """Whether we wrote it."""
    labeled: bool = True
    """Whether it bears our label, as what we write does."""
    account: str = ""
    """The account whose values it holds by its label; empty where there is none."""
    unchanged: Mapping[str, Fingerprint] = field(default_factory=dict)
    """Of `data`, the valid values that we wrote for that account, and that nobody changed since."""
    must_recreate: bool = False
    """Whether it can't become ours by a write: someone made it immutable, or gave it another type."""
    uid: str = ""
    created: str = ""
    """RFC 3339, UTC."""
    deleting: bool = False
    """Whether it was deleted and only its finalizers still hold it."""
    finalizers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AccountState:
    """An account as it was observed."""

    account: str
    home_account: str
    """The account of the home's own namespace: itself, unless a label gives it to another."""
    home_exists: bool
    entries: Sequence[Entry]
    members: Sequence[Member]


def current_values(account: str, members: Sequence[Member]) -> Mapping[str, Fingerprint]:
    """Give what the account's Secrets hold that we wrote for it and nobody changed since; the home's come first.

    What a namespace brought along from another account is none of it.
    """
    found: dict[str, Fingerprint] = {}
    for member in sorted(members, key=lambda member: member.namespace != account):
        secret = member.secret
        # Of an older version's, without the account's label, the home's own can be told.
        if secret and secret.owned and (secret.account or member.namespace) == account:
            found = {**secret.unchanged, **found}
    return found


class Action(Enum):
    """What to do in one namespace."""

    NONE = "none"
    APPLY = "apply"
    DELETE = "delete"
    REPLACE = "replace"
    """Delete it and write it again: it can't be changed."""
    EMPTY = "empty"
    """Take its values away first, then delete it: a finalizer may hold it."""
    WAIT = "wait"
    """It can't be changed, and was deleted; a finalizer still holds it."""
    SKIP_FOREIGN = "skip-foreign"
    """It belongs to someone else."""

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self not in {Action.NONE, Action.WAIT, Action.SKIP_FOREIGN}


@dataclass(frozen=True, slots=True)
class AccountPlan:
    """What an account's devboxes should have, why something is missing there, and what to do about it."""

    values: Mapping[str, Fingerprint]
    not_ready: Mapping[str, NotReady]
    """By the AccountSecret's uid."""
    actions: Mapping[str, Action]
    """By namespace."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """By variable, the uid of the AccountSecret that it belongs to."""


def plan_account(state: AccountState, reserved: Sequence[str] = RESERVED_NAMES) -> AccountPlan:
    """Decide what an account's devboxes have, and what to write for that.

    A value that can't be had (its key is gone, it doesn't open, it became too large) leaves the one
    that was synced before in its place: devboxes go on starting while a person mends it.
    """
    owners, not_ready = _owners(state, reserved)
    kept = {
        variable: owner.current
        for variable, owner in owners.items()
        if owner.status.changed_at is not None and owner.current is not None
    }
    values, missing = _fill(owners, kept)
    actions = {member.namespace: _action(values, state.account, member) for member in state.members}
    uids = {variable: owner.uid for variable, owner in owners.items()}
    return AccountPlan(values, not_ready | missing, actions, uids)


def _owners(state: AccountState, reserved: Sequence[str]) -> tuple[dict[str, Entry], dict[str, NotReady]]:
    """Decide which AccountSecret each variable belongs to: of two, to the older one. The others aren't ready."""
    owners: dict[str, Entry] = {}
    not_ready: dict[str, NotReady] = {}
    for entry in sorted(state.entries, key=lambda entry: precedence(entry.created, entry.uid)):
        if entry.deleting:
            # Its name is free: whoever deleted it may have created its successor already.
            not_ready[entry.uid] = being_deleted(entry.name)
        elif not entry.variable and isinstance(entry.opened, NotReady):
            not_ready[entry.uid] = entry.opened  # it can't be read, and so isn't any variable's
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

    A labeled namespace keeps an empty one: its devboxes refer to it as required, so that none
    starts before its secrets are there.
    """
    found = member.secret
    wanted = bool(want) or member.labeled
    if found is None:
        return Action.APPLY if wanted else Action.NONE
    if not found.owned:
        return Action.SKIP_FOREIGN
    if not wanted and not found.deleting:
        return Action.EMPTY if found.finalizers and found.data and not found.must_recreate else Action.DELETE
    # One that is being deleted is kept right for as long as a finalizer holds it: devboxes still read it.
    if found.data == want and (not wanted or (found.labeled and found.account == account)):
        return Action.NONE
    if not found.must_recreate:
        return Action.APPLY
    return Action.WAIT if found.deleting else Action.REPLACE


def _fill(
    owners: Mapping[str, Entry], kept: Mapping[str, Fingerprint]
) -> tuple[dict[str, Fingerprint], dict[str, NotReady]]:
    """Put each owner's value in the place of the kept one, as far as a Secret holds them."""

    def grows(owner: Entry) -> bool:
        return not isinstance(owner.opened, NotReady) and owner.opened.size > _size(kept.get(owner.variable))

    values, not_ready = dict(kept), {}
    size, names = sum(map(_size, values.values())), sum(map(_name_bytes, values))
    # What shrinks comes first: its room is there for the others, and the next plan is the same.
    for owner in sorted(owners.values(), key=grows):
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
    """Weigh a name in the stored Secret: once as a key, once in managedFields, and what is around both."""
    return 2 * len(variable) + 16
