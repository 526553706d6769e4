"""Caches the newest state of AccountSecrets, namespaces and account Secrets; gives the accounts of each change.

Three sources fill it: a list at start and now and then, kopf's watches, and
the API server's answers to our own writes. They overtake one another, so of two states of an
object the one with the higher resourceVersion stays (comparable since Kubernetes 1.35, KEP-5504).

Everything here is small, however large the objects are: values are kept as fingerprints, and of a long
sealed text its digest; whoever needs one reads it again.
"""

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pydantic import SecretBytes

from devbox_secrets.api.accounts import account_of
from devbox_secrets.api.models import AccountSecret, Reason
from devbox_secrets.api.names import ACCOUNT_LABEL, FIELD_MANAGER, MANAGED_BY_LABEL, SECRET_TYPE
from devbox_secrets.api.ownership import is_ours, unchanged_fields
from devbox_secrets.api.validation import check_value
from devbox_secrets.controller.rules.fingerprint import Fingerprint, shared
from devbox_secrets.controller.rules.plan import ExistingSecret, Member
from devbox_secrets.controller.rules.status import falls_due
from devbox_secrets.errors import DevboxSecretsError

Body = Mapping[str, Any]
Key = tuple[str, str]
"""Namespace ("" for what has none) and name."""
T = TypeVar("T")
#: Characters of a sealed text that is kept whole; a usual token's has 1,600.
_SEALED_KEPT = 4096
_KEY_PREFIX_LENGTH = len("dbs1.0123456789abcdef.")
_ABRIDGED = "…"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace that isn't being deleted, and the account that it belongs to."""

    name: str
    account: str
    labeled: bool
    uid: str
    created: str
    """RFC 3339, UTC, to the second: sorts as text."""

    def outlived(self, created: str) -> bool:
        """Tell whether what was created then belonged to a former namespace of this name."""
        return created < self.created


class Table(Generic[T]):
    """Objects of one kind, the newest known state of each."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, tuple[int, T]]] = defaultdict(dict)
        # Deletions since the last list, so that a list or an answer from before can't undo them.
        self._gone: dict[Key, int] = {}
        # The last list's version: what it lacked was gone by then.
        self._listed = 0

    def clear(self) -> None:
        """Forget every object, and which versions were seen."""
        self._rows.clear()
        self._gone.clear()
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

    def upsert(self, key: Key, version: int, item: T) -> bool:
        """Take an object's state; tell whether that changed anything."""
        row = self._rows[key[0]].get(key[1])
        if version <= max(row[0] if row else self._listed, self._gone.get(key, 0)):
            return False
        self._rows[key[0]][key[1]] = version, item
        return row is None or row[1] != item

    def delete(self, key: Key, version: int) -> bool:
        """Take an object's deletion; tell whether that changed anything."""
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
        changed = [key for key, (at, item) in listed.items() if self.upsert(key, at, item)]
        missing = [
            (namespace, name)
            for namespace, rows in self._rows.items()
            for name, (at, _) in rows.items()
            if at <= version and (namespace, name) not in listed
        ]
        for key in missing:
            self.delete(key, version)
        self._listed = max(version, self._listed)
        self._gone = {key: at for key, at in self._gone.items() if at > self._listed}
        return changed + missing


class Cache:
    """AccountSecrets, namespaces and account Secrets; each change gives the accounts concerned."""

    def __init__(self, on_damaged: Callable[[AccountSecret], None] = lambda _: None) -> None:
        """Create an empty cache; `on_damaged` hears of each new state of an AccountSecret that can't be read."""
        self._on_damaged = on_damaged
        self._account_secrets: Table[AccountSecret] = Table()
        self._namespaces: Table[Namespace] = Table()
        self._secrets: Table[ExistingSecret] = Table()
        self._members: dict[str, set[str]] = defaultdict(set)

    def clear(self) -> None:
        """Forget everything, also which versions were seen."""
        for table in (self._account_secrets, self._namespaces, self._secrets):
            table.clear()
        self._members.clear()

    def account_secrets(self, account: str) -> list[AccountSecret]:
        """Give the AccountSecrets of an account's home: none without a home, and none of a former namespace's."""
        home = self._namespaces.get(("", account))
        secrets = self._account_secrets.within(account)
        return [secret for secret in secrets if home and not home.outlived(secret.created)]

    def all_account_secrets(self) -> Iterator[AccountSecret]:
        """Give the AccountSecrets of every account."""
        return (item for _, item in self._account_secrets)

    def ready_reasons(self) -> Counter[tuple[str, str]]:
        """Count the AccountSecrets by namespace and the reason of their Ready condition."""
        return Counter((secret.namespace, _ready_reason(secret)) for secret in self.all_account_secrets())

    def overdue(self) -> int:
        """Count the AccountSecrets that are older than their rotateAfter allows."""
        return sum(secret.status.overdue for secret in self.all_account_secrets())

    def falling_due(self, now: str) -> set[str]:
        """Name the accounts in which a value became too old by `now` (RFC 3339, UTC) and its status doesn't say so."""
        return {
            secret.namespace
            for secret in self.all_account_secrets()
            if falls_due(secret.status, secret.spec.rotate_after, now)
        }

    def members(self, account: str) -> list[Member]:
        """Give the account's namespaces, each with its account Secret."""
        return [
            Member(name, namespace.labeled, self._existing_secret(namespace), namespace.uid)
            for name in sorted(self._members.get(account, ()))
            if (namespace := self._namespaces.get(("", name))) is not None
        ]

    def _existing_secret(self, namespace: Namespace) -> ExistingSecret | None:
        secret = self._secrets.get((namespace.name, ""))
        return None if secret is None or namespace.outlived(secret.created) else secret

    def secrets(self) -> Iterator[tuple[Namespace, ExistingSecret]]:
        """Give every account Secret, with its namespace."""
        for (name, _), _ in self._secrets:
            namespace = self._namespaces.get(("", name))
            if namespace and (secret := self._existing_secret(namespace)):
                yield namespace, secret

    def has_namespace(self, name: str) -> bool:
        """Tell whether a namespace is there and not being deleted."""
        return self._namespaces.get(("", name)) is not None

    def namespaces(self) -> Iterator[Namespace]:
        """Give every namespace that isn't being deleted."""
        return (item for _, item in self._namespaces)

    def labeled(self) -> Iterator[Namespace]:
        """Give the namespaces whose label names their account."""
        return (item for _, item in self._namespaces if item.labeled)

    def home_account(self, account: str) -> str:
        """Name the account that a home's own namespace belongs to: itself, unless labelled."""
        namespace = self._namespaces.get(("", account))
        return namespace.account if namespace else account

    def accounts(self) -> set[str]:
        """Every account for which there may be something to do."""
        homes = {item.namespace for _, item in self._account_secrets}
        holders = {self.home_account(namespace) for (namespace, _), _ in self._secrets}
        return homes | holders | {item.account for item in self.labeled()}

    def upsert_account_secret(self, body: Body) -> set[str]:
        """Take an AccountSecret's state."""
        item = read_account_secret(body)
        key, version = (item.namespace, item.name), int(item.resource_version)
        if not self._account_secrets.upsert(key, version, item):
            return set()
        self._tell_damage(item)
        return {item.namespace}

    def delete_account_secret(self, body: Body) -> set[str]:
        """Take an AccountSecret's deletion, with its last state."""
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        return {namespace} if self._account_secrets.delete((namespace, name), _version(body)) else set()

    def upsert_secret(self, body: Body) -> set[str]:
        """Take an account Secret's state."""
        namespace, item = read_secret(body)
        changed = self._secrets.upsert((namespace, ""), _version(body), item)
        return {self.home_account(namespace)} if changed else set()

    def delete_secret(self, body: Body) -> set[str]:
        """Take an account Secret's deletion, with its last state."""
        namespace = body["metadata"]["namespace"]
        return {self.home_account(namespace)} if self._secrets.delete((namespace, ""), _version(body)) else set()

    def upsert_namespace(self, body: Body) -> set[str]:
        """Take a namespace's state."""
        if "deletionTimestamp" in body["metadata"]:
            return self.delete_namespace(body)  # it takes no new objects, so it's no member any more
        item = _namespace(body)
        before = self._namespaces.get(("", item.name))
        if not self._namespaces.upsert(("", item.name), _version(body), item):
            return set()
        self._index(before, item)
        return _accounts_of(before, item)

    def delete_namespace(self, body: Body) -> set[str]:
        """Take a namespace's deletion, with its last state."""
        item = _namespace(body)
        before = self._namespaces.get(("", item.name))
        if not self._namespaces.delete(("", item.name), _version(body)):
            return set()
        self._index(before, None)
        return _accounts_of(before, item)

    def replace_account_secrets(self, items: Iterable[AccountSecret], version: int) -> set[str]:
        """Take all AccountSecrets, listed at a resourceVersion."""
        listed = {(item.namespace, item.name): (int(item.resource_version), item) for item in items}
        changed = self._account_secrets.replace(listed, version)
        for key in changed:
            if item := self._account_secrets.get(key):
                self._tell_damage(item)
        return {namespace for namespace, _ in changed}

    def replace_secrets(self, items: Iterable[tuple[str, ExistingSecret]], version: int) -> set[str]:
        """Take all account Secrets, each with its namespace, listed at a resourceVersion."""
        listed = {(namespace, ""): (int(item.resource_version), item) for namespace, item in items}
        changed = self._secrets.replace(listed, version)
        return {self.home_account(namespace) for namespace, _ in changed}

    def replace_namespaces(self, bodies: Iterable[Body], version: int) -> set[str]:
        """Take all namespaces, listed at a resourceVersion."""
        before = dict(self._namespaces)
        alive = [body for body in bodies if "deletionTimestamp" not in body["metadata"]]
        listed = {("", item.name): (_version(body), item) for body in alive for item in (_namespace(body),)}
        changed: set[str] = set()
        for key in self._namespaces.replace(listed, version):
            old, new = before.get(key), self._namespaces.get(key)
            self._index(old, new)
            changed |= {key[1]} | _accounts_of(old, new)
        return changed

    def _tell_damage(self, secret: AccountSecret) -> None:
        if secret.damaged:
            self._on_damaged(secret)

    def _index(self, before: Namespace | None, after: Namespace | None) -> None:
        if before is not None:
            self._members[before.account].discard(before.name)
        if after is not None:
            self._members[after.account].add(after.name)


def _ready_reason(secret: AccountSecret) -> str:
    if secret.invalid_spec:
        return Reason.INVALID_SPEC
    return ready.reason if (ready := secret.status.ready) else Reason.PENDING


def _version(body: Body) -> int:
    return int(body["metadata"]["resourceVersion"])


def _accounts_of(*namespaces: Namespace | None) -> set[str]:
    """Name the accounts that a namespace's change concerns: of its own name, and those it belongs or belonged to."""
    return {account for each in namespaces if each for account in (each.name, each.account)}


def _namespace(body: Body) -> Namespace:
    metadata = body["metadata"]
    name, labels = metadata["name"], metadata.get("labels") or {}
    return Namespace(
        name=name,
        account=account_of(name, labels),
        labeled=ACCOUNT_LABEL in labels,
        uid=metadata["uid"],
        created=metadata["creationTimestamp"],
    )


def read_namespace(body: Body) -> Body:
    """Leave out of a namespace what nothing depends on: its annotations may be large."""
    kept = ("name", "uid", "labels", "creationTimestamp", "deletionTimestamp", "resourceVersion")
    return {"metadata": {name: value for name, value in body["metadata"].items() if name in kept}}


def read_account_secret(body: Body) -> AccountSecret:
    """Read an AccountSecret; its description is left out, and a long sealed text is abridged."""
    item = AccountSecret.parse(body)
    sealed = abridge(item.spec.sealed)
    if sealed == item.spec.sealed and item.spec.description is None:
        return item
    return replace(item, spec=item.spec.model_copy(update={"sealed": sealed, "description": None}))


def abridge(sealed: str) -> str:
    """Give a sealed text, or what stands for one that is long: its key's id and a digest."""
    if len(sealed) <= _SEALED_KEPT:
        return sealed
    return f"{sealed[:_KEY_PREFIX_LENGTH]}{_ABRIDGED}{hashlib.sha256(sealed.encode()).hexdigest()}"


def is_abridged(sealed: str) -> bool:
    """Tell whether a text stands for a longer one."""
    return _ABRIDGED in sealed and abridge(sealed) == sealed


def read_secret(body: Body) -> tuple[str, ExistingSecret]:
    """Read an account Secret: its namespace, and what it is without its values."""
    metadata = body["metadata"]
    labels = metadata.get("labels") or {}
    values = {name: SecretBytes(base64.b64decode(value)) for name, value in (body.get("data") or {}).items()}
    data = shared((name, Fingerprint.of(value)) for name, value in values.items())
    owned = is_ours(metadata)
    ours = unchanged_fields(metadata, "data") if owned else frozenset()
    kept = [name for name in values if name in ours and _is_valid(name, values[name])]
    label_is_ours = ACCOUNT_LABEL in unchanged_fields(metadata, "metadata", "labels")
    return metadata["namespace"], ExistingSecret(
        resource_version=metadata["resourceVersion"],
        data=data,
        owned=owned,
        labeled=labels.get(MANAGED_BY_LABEL) == FIELD_MANAGER,
        account=labels.get(ACCOUNT_LABEL, ""),
        unchanged=shared((name, data[name]) for name in kept) if label_is_ours or ACCOUNT_LABEL not in labels else {},
        must_recreate=bool(body.get("immutable")) or body.get("type", SECRET_TYPE) != SECRET_TYPE,
        uid=metadata["uid"],
        created=metadata["creationTimestamp"],
        deleting="deletionTimestamp" in metadata,
        finalizers=tuple(metadata.get("finalizers") or ()),
    )


def _is_valid(name: str, value: SecretBytes) -> bool:
    try:
        check_value(name, value)
    except DevboxSecretsError:
        return False
    return True
