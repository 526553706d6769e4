"""The invariants: for each write of an account Secret, and for the state after the last change.

A value is the text `account/uid/number`: the account and UID of its AccountSecret, and the value's number.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field

from devbox_secrets.api.accounts import account_of
from devbox_secrets.api.models import Reason
from devbox_secrets.api.names import ACCOUNT_LABEL, NAMESPACES_PATH
from devbox_secrets.api.ownership import precedence
from devbox_secrets.kube.client import Body
from unit.controller.simulation.api_server import ApiServer
from unit.controller.simulation.world import World
from unit.kube.fake_api import labels_of

#: For how long the operator may treat a namespace as a member after it stopped being one, until it's notified.
_STALE_SECONDS = 60.0
_FOREIGN = "foreign"
#: The value that someone else writes into an account Secret.
EDITED = "edited/by someone/0"


@dataclass(frozen=True, slots=True)
class Value:
    """A value of an AccountSecret."""

    account: str
    uid: str
    number: int

    def __str__(self) -> str:
        return f"{self.account}/{self.uid}/{self.number}"

    @classmethod
    def parse(cls, text: str) -> "Value":
        account, uid, number = text.split("/")
        return cls(account, uid, int(number))


@dataclass
class Model:
    """A second, short implementation of the rules."""

    world: World
    api: ApiServer
    sealed: dict[str, Value] = field(default_factory=dict)
    """The value of each sealed text; other texts don't open."""
    homes: dict[str, str] = field(default_factory=dict)
    """The UID of the namespace in which an AccountSecret was created, by its UID."""
    _members: set[tuple[str, str]] = field(default_factory=set)
    """The UID and the account of each namespace."""
    _since: dict[tuple[str, str], float] = field(default_factory=dict)
    """When each became a member, not counting short absences."""
    _until: dict[tuple[str, str], float] = field(default_factory=dict)
    """When each stopped being a member."""
    _ended: dict[str, float] = field(default_factory=dict)
    """When a namespace was gone, by UID."""
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    """The newest value that was written, by the UIDs of namespace and AccountSecret."""

    def note_namespace(self, kind: str, event: str, body: Body) -> None:
        """Record which namespaces are members of which accounts, even while they are being deleted."""
        if kind != "namespaces":
            return
        if event == "DELETED":
            self._ended[body["metadata"]["uid"]] = self.world.now
        members = {
            (namespace["metadata"]["uid"], account_of(name, labels_of(namespace)))
            for name, namespace in self.api.namespaces().items()
        }
        joined = {each for each in members - self._members if not self._left_just_now(each)}
        self._since |= dict.fromkeys(joined, self.world.now)
        self._until |= dict.fromkeys(self._members - members, self.world.now)
        self._members = members

    def check_write(self, namespace: str, before: Body | None, after: Body | None) -> None:
        """Check the operator's write of an account Secret."""
        if before and after and data_of(after) == data_of(before):
            return
        if is_foreign(before):
            self._fail(f"{namespace}: someone else's Secret was changed")
        uid = self.api.objects[f"{NAMESPACES_PATH}/{namespace}"]["metadata"]["uid"]
        for variable, value in values_of(after).items():
            if str(value) == EDITED:
                continue  # the operator removes it next
            if not self._may_have((uid, value.account), self.homes[value.uid]):
                self._fail(f"{namespace}: {variable} has {value}, of a home that the namespace doesn't belong to")
            if value.number < self._numbers.get((uid, value.uid), 0):
                self._fail(f"{namespace}: {variable} has {value}, which is older than its previous value")
            self._numbers[uid, value.uid] = value.number

    def _may_have(self, member: tuple[str, str], home: str) -> bool:
        """Return whether a namespace is or was just now a member, and became one before this home was gone."""
        is_member = member in self._members or self._left_just_now(member)
        return is_member and self._since[member] <= self._ended.get(home, self.world.now)

    def _left_just_now(self, member: tuple[str, str]) -> bool:
        return self._until.get(member, float("-inf")) > self.world.now - _STALE_SECONDS

    def _fail(self, what: str) -> None:
        self.world.violations.append(f"at {self.world.now:.3f} s: {what}")

    def differences(self) -> Iterator[str]:
        """Yield the differences from the state that the operator must reach once it's notified of everything."""
        accounts = self.api.accounts()
        for account in accounts:
            owners = self._owners(account) if accounts[account] == account else {}
            wanted = {name: self._value(body) for name, body in owners.items()}
            members = [name for name in accounts if accounts[name] == account]
            foreign = [name for name in members if is_foreign(self.api.account_secret(name))]
            for name in members:
                if name not in foreign:
                    yield from self._secret_differences(account, name, wanted, owners)
            for body in self.api.account_secrets(account):
                yield from self._status_differences(body, accounts[account], owners, bool(foreign))

    def _owners(self, account: str) -> dict[str, Body]:
        """Return the oldest AccountSecret of each variable."""
        oldest_first = sorted(
            self.api.account_secrets(account),
            key=lambda body: precedence(body["metadata"]["creationTimestamp"], body["metadata"]["uid"]),
        )
        return {body["spec"]["name"]: body for body in reversed(oldest_first)}

    def _value(self, body: Body) -> Value | None:
        return self.sealed.get(body["spec"]["sealed"])

    def _secret_differences(
        self, account: str, namespace: str, wanted: dict[str, Value | None], owners: dict[str, Body]
    ) -> Iterator[str]:
        secret = self.api.account_secret(namespace)
        found = values_of(secret)
        for variable, value in wanted.items():
            have = found.pop(variable, None)
            # If a value doesn't open, the AccountSecret's previous value stays, if there was one.
            kept = value is None and (have is None or have.uid == owners[variable]["metadata"]["uid"])
            if have != value and not kept:
                yield f"{namespace}: {variable} is {have}, not {value}"
        if found:
            yield f"{namespace}: {found} isn't a value of {account}"
        labeled = ACCOUNT_LABEL in labels_of(self.api.namespaces()[namespace])
        if any(wanted.values()) or labeled:
            if secret is None or labels_of(secret).get(ACCOUNT_LABEL) != account:
                yield f"{namespace}: no Secret of {account}"
            elif set(data_of(secret)) - set(wanted):
                yield f"{namespace}: unexpected keys"
        elif secret and not data_of(secret):
            yield f"{namespace}: an empty Secret"

    def _status_differences(
        self, body: Body, home_account: str, owners: dict[str, Body], foreign: bool
    ) -> Iterator[str]:
        metadata, status = body["metadata"], body.get("status") or {}
        if home_account != metadata["namespace"]:
            reason = Reason.WRONG_NAMESPACE
        elif owners[body["spec"]["name"]] is not body:
            reason = Reason.NAME_CONFLICT
        elif self._value(body) is None:
            reason = Reason.CANNOT_OPEN
        else:
            reason = Reason.NOT_OWNED if foreign else Reason.SYNCED
        found = [each["reason"] for each in status.get("conditions", []) if each["type"] == "Ready"]
        if found != [reason] or status["observedGeneration"] != metadata["generation"]:
            yield f"{metadata['namespace']}/{metadata['name']}: {found}, not {reason}"


def values_of(secret: Body | None) -> dict[str, Value]:
    """Return an account Secret's values, without those of someone else."""
    data = {} if secret is None or is_foreign(secret) else data_of(secret)
    return {name: Value.parse(base64.b64decode(raw).decode()) for name, raw in data.items() if name[0] != "_"}


def data_of(secret: Body) -> dict[str, str]:
    """Return an account Secret's data."""
    return secret.get("data") or {}


def is_foreign(secret: Body | None) -> bool:
    """Return whether a Secret is someone else's."""
    return secret is not None and _FOREIGN in secret


def foreign(body: Body) -> Body:
    """Mark a Secret as someone else's."""
    return {**body, _FOREIGN: True}
