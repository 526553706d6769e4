"""What each namespace must contain when the operator has processed everything: its rules again, in short. Pure."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from devbox_secrets.api.models import Reason
from devbox_secrets.api.names import ACCOUNT_LABEL, FIELD_MANAGER
from devbox_secrets.api.ownership import precedence
from integration.support.chart import Json

#: Values that users write into an account Secret, and into their own Secret in its place.
EDITED, COPIED = "edited", "copied"


@dataclass(frozen=True)
class Value:
    """A value of an AccountSecret. A later one has a higher number; two concurrent ones differ in the writer."""

    account: str
    incarnation: int
    """The number of the home's creation."""
    name: str
    number: int
    writer: str = "one"

    def __str__(self) -> str:
        return f"{self.account}/{self.incarnation}/{self.name}/{self.number}/{self.writer}"

    @classmethod
    def parse(cls, text: str) -> "Value":
        account, incarnation, name, number, writer = text.split("/")
        return cls(account, int(incarnation), name, int(number), writer)


@dataclass(frozen=True)
class Namespace:
    """A namespace: the number of its creation, and its account label."""

    incarnation: int
    label: str | None = None


@dataclass(frozen=True)
class AccountSecret:
    """An AccountSecret: its variable, its value if it can be decrypted, and the number of its first value."""

    variable: str
    value: Value | None
    first: int


@dataclass(frozen=True)
class Cluster:
    """The objects in the cluster, by namespace."""

    namespaces: Mapping[str, Json]
    account_secrets: Mapping[str, list[Json]]
    secrets: Mapping[str, Json]


@dataclass
class Model:
    """What users have done."""

    namespaces: dict[str, Namespace] = field(default_factory=dict)
    account_secrets: dict[tuple[str, str], AccountSecret] = field(default_factory=dict)
    """By namespace and name."""
    foreign: dict[str, Json] = field(default_factory=dict)
    """By namespace, someone else's Secret that has the account Secret's name."""

    def account_of(self, namespace: str) -> str:
        return self.namespaces[namespace].label or namespace

    def is_home(self, namespace: str) -> bool:
        return namespace in self.namespaces and self.account_of(namespace) == namespace

    def members(self, account: str) -> list[str]:
        return [name for name in self.namespaces if self.account_of(name) == account]

    def variables(self, account: str) -> list[str]:
        return sorted(each.variable for (namespace, _), each in self.account_secrets.items() if namespace == account)

    def remove_namespace(self, name: str) -> None:
        self.namespaces.pop(name, None)
        self.foreign.pop(name, None)
        self.account_secrets = {key: each for key, each in self.account_secrets.items() if key[0] != name}

    def differences(self, cluster: Cluster) -> Iterator[str]:
        """Yield the differences between the cluster and the model."""
        if cluster.namespaces.keys() != self.namespaces.keys():
            yield f"the namespaces are {sorted(cluster.namespaces)}, not {sorted(self.namespaces)}"
            return
        for account in sorted({*map(self.account_of, self.namespaces), *self.namespaces}):
            bodies = cluster.account_secrets.get(account, [])
            found = {body["metadata"]["name"]: body["spec"]["name"] for body in bodies}
            known = {key[1]: each.variable for key, each in self.account_secrets.items() if key[0] == account}
            if found != known:
                yield f"{account}: the AccountSecrets are {found}, not {known}"
                continue
            owners = _owners(bodies) if self.is_home(account) else {}
            secrets = {name: cluster.secrets.get(name) for name in self.members(account)}
            foreign = {name: each for name, each in secrets.items() if each and not is_ours(each)}
            for name, secret in secrets.items():
                if name not in foreign:
                    yield from self._secret_differences(account, name, secret, owners)
                elif name not in self.foreign or _content(foreign[name]) != _content(self.foreign[name]):
                    yield f"{name}: someone else's Secret was changed"
            for body in bodies:
                yield from self._status_differences(body, owners, has_foreign=bool(foreign))

    def _secret_differences(
        self, account: str, name: str, secret: Json | None, owners: Mapping[str, str]
    ) -> Iterator[str]:
        if name in self.foreign:
            yield f"{name}: someone else's Secret is gone"
        has = values_of(secret) if secret else {}
        for variable, owner in owners.items():
            want, have = self.account_secrets[account, owner], has.pop(variable, None)
            # A value that can't be opened leaves the previous value, if there was one.
            kept = want.value is None and (have is None or (have.name == owner and have.number >= want.first))
            if have != want.value and not kept:
                yield f"{name}: {variable} is {have}, not {want.value}"
        if has:
            yield f"{name}: nobody's values: {', '.join(f'{key} is {value}' for key, value in has.items())}"
        values = [self.account_secrets[account, owner].value for owner in owners.values()]
        if self.namespaces[name].label or any(values):
            if secret is None or (secret["metadata"].get("labels") or {}).get(ACCOUNT_LABEL) != account:
                yield f"{name}: no Secret of {account}"
        elif secret and not secret.get("data"):
            yield f"{name}: an empty Secret"

    def _status_differences(self, body: Json, owners: Mapping[str, str], *, has_foreign: bool) -> Iterator[str]:
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        if not self.is_home(namespace):
            reason = Reason.WRONG_NAMESPACE
        elif owners[body["spec"]["name"]] != name:
            reason = Reason.NAME_CONFLICT
        elif self.account_secrets[namespace, name].value is None:
            reason = Reason.CANNOT_OPEN
        else:
            reason = Reason.NOT_OWNED if has_foreign else Reason.SYNCED
        status = body.get("status") or {}
        found = [each["reason"] for each in status.get("conditions", []) if each["type"] == "Ready"]
        if found != [reason] or status["observedGeneration"] != body["metadata"]["generation"]:
            yield f"{namespace}/{name}: Ready has the reasons {found}, not {reason}"


def _owners(bodies: list[Json]) -> dict[str, str]:
    """Return the name of each variable's AccountSecret, which is the oldest one."""

    def age(body: Json) -> tuple[str, str]:
        return precedence(body["metadata"]["creationTimestamp"], body["metadata"]["uid"])

    return {body["spec"]["name"]: body["metadata"]["name"] for body in sorted(bodies, key=age, reverse=True)}


def _content(secret: Json) -> object:
    metadata = secret["metadata"]
    return metadata["uid"], metadata.get("labels"), secret.get("data"), secret["type"]


def is_ours(secret: Json) -> bool:
    """Return whether the operator wrote a Secret."""
    writers = [(each["manager"], each["operation"]) for each in secret["metadata"].get("managedFields", ())]
    return (FIELD_MANAGER, "Apply") in writers


def values_of(secret: Json) -> dict[str, Value | None]:
    """Return a Secret's values by variable; None for a value that a user wrote."""
    texts = {name: base64.b64decode(text).decode() for name, text in (secret.get("data") or {}).items()}
    return {name: None if text in {EDITED, COPIED} else Value.parse(text) for name, text in texts.items()}
