"""What the operator knows of the cluster: objects in, accounts to look at out. No input or output.

Imports api, plan and keyplan. Three sources fill it: a list at start and now and then, kopf's watches, and
the API server's answers to our own writes. They overtake one another, so of two states of an
object the one with the higher resourceVersion stays (comparable since Kubernetes 1.35, KEP-5504).
"""

import base64
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

from pydantic import SecretBytes

from devbox_secrets.api import (
    ACCOUNT_LABEL,
    CREATOR,
    FIELD_MANAGER,
    MANAGED_BY_LABEL,
    SECRET_TYPE,
    AccountSecretSpec,
    AccountSecretStatus,
    holders_of_sealed,
)
from devbox_secrets.keyplan import is_without_copy
from devbox_secrets.plan import Found, Member, account_of

Body = Mapping[str, Any]
Key = tuple[str, str]
"""Namespace ("" for what has none) and name."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AccountSecret:
    """An AccountSecret, as far as anything depends on it."""

    uid: str
    namespace: str
    name: str
    created: str
    generation: int
    resource_version: str
    spec: AccountSecretSpec
    status: AccountSecretStatus
    without_copy: bool
    """Whether its sealed value is nowhere else, such as in Git."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace that isn't being deleted, and the account that it belongs to."""

    name: str
    account: str
    labelled: bool


class Table(Generic[T]):
    """Objects of one kind, the newest known state of each."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, tuple[int, T]]] = defaultdict(dict)
        # Deletions since the last list, so that a list or an answer from before can't undo them.
        self._gone: dict[Key, int] = {}
        # The last list's version: what it lacked was gone by then.
        self._listed = 0

    def get(self, key: Key) -> T | None:
        """Give an object's newest known state, if it exists."""
        row = self._rows.get(key[0], {}).get(key[1])
        return row[1] if row else None

    def within(self, namespace: str) -> list[T]:
        """Give the objects of one namespace."""
        return [item for _, item in self._rows.get(namespace, {}).values()]

    def __iter__(self) -> Iterator[tuple[Key, T]]:
        for namespace, rows in self._rows.items():
            for name, (_, item) in rows.items():
                yield (namespace, name), item

    def put(self, key: Key, version: int, item: T) -> bool:
        """Take an object's state; tell whether it was news."""
        row = self._rows[key[0]].get(key[1])
        if version <= max(row[0] if row else self._listed, self._gone.get(key, 0)):
            return False
        self._rows[key[0]][key[1]] = version, item
        return row is None or row[1] != item

    def drop(self, key: Key, version: int) -> bool:
        """Take an object's deletion; tell whether it was news."""
        row = self._rows.get(key[0], {}).get(key[1])
        if row is not None and row[0] > version:
            return False
        self._gone[key] = max(version, self._gone.get(key, 0))
        if row is None:
            return False
        del self._rows[key[0]][key[1]]
        return True

    def replace(self, listed: Mapping[Key, tuple[int, T]], version: int) -> list[Key]:
        """Take a whole list made at `version`; give what wasn't known as it says."""
        changed = [key for key, (at, item) in listed.items() if self.put(key, at, item)]
        missing = [
            (namespace, name)
            for namespace, rows in self._rows.items()
            for name, (at, _) in rows.items()
            if at <= version and (namespace, name) not in listed
        ]
        for key in missing:
            self.drop(key, version)
        self._listed = max(version, self._listed)
        self._gone = {key: at for key, at in self._gone.items() if at > self._listed}
        return changed + missing


class Cache:
    """AccountSecrets, namespaces and account Secrets; each change gives the accounts concerned."""

    def __init__(self) -> None:
        self._account_secrets: Table[AccountSecret] = Table()
        self._namespaces: Table[Namespace] = Table()
        self._secrets: Table[Found] = Table()
        self._members: dict[str, set[str]] = defaultdict(set)

    def account_secrets(self, account: str) -> list[AccountSecret]:
        """Give the AccountSecrets of an account's home."""
        return self._account_secrets.within(account)

    def all_account_secrets(self) -> Iterator[AccountSecret]:
        """Give the AccountSecrets of every account."""
        return (item for _, item in self._account_secrets)

    def members(self, account: str) -> list[Member]:
        """Give the account's namespaces, each with its account Secret."""
        return [
            Member(name, namespace.labelled, self._secrets.get((name, "")))
            for name in sorted(self._members.get(account, ()))
            if (namespace := self._namespaces.get(("", name))) is not None
        ]

    def has_namespace(self, name: str) -> bool:
        """Tell whether a namespace is there and not being deleted."""
        return self._namespaces.get(("", name)) is not None

    def labelled(self) -> Iterator[Namespace]:
        """Give the namespaces whose label names their account."""
        return (item for _, item in self._namespaces if item.labelled)

    def home_account(self, account: str) -> str:
        """Name the account that a home's own namespace belongs to: itself, unless labelled."""
        namespace = self._namespaces.get(("", account))
        return namespace.account if namespace else account

    def accounts(self) -> set[str]:
        """Every account for which there may be something to do."""
        homes = {item.namespace for _, item in self._account_secrets}
        holders = {self.home_account(namespace) for (namespace, _), _ in self._secrets}
        return homes | holders | {item.account for item in self.labelled()}

    def take_account_secret(self, body: Body, *, gone: bool = False) -> set[str]:
        """Take an AccountSecret, as it is or as it was when it went."""
        item = read_account_secret(body)
        key, version = (item.namespace, item.name), int(item.resource_version)
        table = self._account_secrets
        news = table.drop(key, version) if gone else table.put(key, version, item)
        return {item.namespace} if news else set()

    def take_secret(self, body: Body, *, gone: bool = False) -> set[str]:
        """Take an account Secret, as it is or as it was when it went."""
        namespace, version = body["metadata"]["namespace"], _version(body)
        key = (namespace, "")
        news = self._secrets.drop(key, version) if gone else self._secrets.put(key, version, _found(body))
        return {self.home_account(namespace)} if news else set()

    def take_namespace(self, body: Body, *, gone: bool = False) -> set[str]:
        """Take a namespace, as it is or as it was when it went."""
        item = _namespace(body)
        key, version = ("", item.name), _version(body)
        before = self._namespaces.get(key)
        # One that is being deleted takes no new objects, so it's no member any more.
        gone = gone or "deletionTimestamp" in body["metadata"]
        table = self._namespaces
        if not (table.drop(key, version) if gone else table.put(key, version, item)):
            return set()
        self._index(before, None if gone else item)
        return {item.name, item.account} | ({before.account} if before else set())

    def replace_account_secrets(self, items: Iterable[AccountSecret], version: int) -> set[str]:
        """Take all AccountSecrets, listed at a resourceVersion."""
        listed = {(item.namespace, item.name): (int(item.resource_version), item) for item in items}
        return {namespace for namespace, _ in self._account_secrets.replace(listed, version)}

    def replace_secrets(self, bodies: Iterable[Body], version: int) -> set[str]:
        """Take all account Secrets, listed at a resourceVersion."""
        listed = {(body["metadata"]["namespace"], ""): (_version(body), _found(body)) for body in bodies}
        changed = self._secrets.replace(listed, version)
        return {self.home_account(namespace) for namespace, _ in changed}

    def replace_namespaces(self, bodies: Iterable[Body], version: int) -> set[str]:
        """Take all namespaces, listed at a resourceVersion."""
        before = dict(self._namespaces)
        alive = [body for body in bodies if "deletionTimestamp" not in body["metadata"]]
        listed = {("", item.name): (_version(body), item) for body in alive for item in (_namespace(body),)}
        dirty: set[str] = set()
        for key in self._namespaces.replace(listed, version):
            old, new = before.get(key), self._namespaces.get(key)
            self._index(old, new)
            dirty |= {key[1]} | {item.account for item in (old, new) if item}
        return dirty

    def _index(self, before: Namespace | None, after: Namespace | None) -> None:
        if before is not None:
            self._members[before.account].discard(before.name)
        if after is not None:
            self._members[after.account].add(after.name)


def _version(body: Body) -> int:
    return int(body["metadata"]["resourceVersion"])


def read_account_secret(body: Body) -> AccountSecret:
    """Take from an AccountSecret what anything depends on: a third of it."""
    metadata = body["metadata"]
    return AccountSecret(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        created=metadata["creationTimestamp"],
        generation=metadata["generation"],
        resource_version=metadata["resourceVersion"],
        spec=AccountSecretSpec.model_validate(body["spec"]),
        status=_only_one(AccountSecretStatus.model_validate(body.get("status") or {})),
        without_copy=is_without_copy({entry.get("manager") for entry in holders_of_sealed(metadata)}),
    )


@lru_cache(maxsize=1024)
def _only_one(status: AccountSecretStatus) -> AccountSecretStatus:
    """Give the same object for equal statuses: most are, and each would take 2 KB."""
    return status


def _namespace(body: Body) -> Namespace:
    name, labels = body["metadata"]["name"], body["metadata"].get("labels") or {}
    account = account_of(name, labels)
    return Namespace(name, account, labelled=ACCOUNT_LABEL in labels)


def _found(body: Body) -> Found:
    metadata = body["metadata"]
    labelled = (metadata.get("labels") or {}).get(MANAGED_BY_LABEL) == FIELD_MANAGER
    data = body.get("data") or {}
    return Found(
        resource_version=metadata["resourceVersion"],
        data={name: SecretBytes(base64.b64decode(value)) for name, value in data.items()},
        owned=labelled or _is_ours(metadata.get("managedFields") or []),
        labelled=labelled,
        frozen=bool(body.get("immutable")) or body.get("type", SECRET_TYPE) != SECRET_TYPE,
    )


def _is_ours(managed_fields: list[Body]) -> bool:
    """Tell by who wrote a Secret whether it's ours: we applied it, or we created it and nobody else was there."""
    writers = {(entry.get("manager"), entry.get("operation")) for entry in managed_fields}
    return (FIELD_MANAGER, "Apply") in writers or writers == {(CREATOR, "Apply")}
