"""Caches the newest AccountSecrets, namespaces and account Secrets; each change returns the accounts that it affects.

Three sources fill the cache: lists (at the start and periodically), kopf's watches, and the API server's
responses to our own writes. They can overtake one another, so of two states of an object the one with
the higher resourceVersion wins (comparable since Kubernetes 1.35, KEP-5504).

Everything here is small, however large the objects are: a value is kept as a fingerprint, and a sealed text
that is long or was opened as a digest. Code that needs the full text reads it again.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Generic, TypeVar

from pydantic import SecretBytes

from devbox_secrets.api.accounts import account_of
from devbox_secrets.api.models import AccountSecret, AccountSecretSpec, Reason
from devbox_secrets.api.names import ACCOUNT_LABEL, FIELD_MANAGER, MANAGED_BY_LABEL, SECRET_TYPE
from devbox_secrets.api.ownership import is_ours, unchanged_fields
from devbox_secrets.api.secret_data import read_data
from devbox_secrets.api.validation import check_value
from devbox_secrets.controller.rules.fingerprint import Fingerprint, digest, shared
from devbox_secrets.controller.rules.plan import ExistingSecret, Member
from devbox_secrets.controller.rules.status import falls_due
from devbox_secrets.errors import DevboxSecretsError

Body = Mapping[str, Any]
Key = tuple[str, str]
"""Namespace ("" for cluster-scoped objects) and name."""
T = TypeVar("T")
#: Longest sealed text that is kept whole until it is opened, in characters; a typical token's has 1,600.
_SEALED_KEPT = 4096
_KEY_PREFIX_LENGTH = len("dbs1.0123456789abcdef.")
_ABRIDGED = "…"
_DIGEST_SIZE = 32
_ABRIDGED_LENGTH = _KEY_PREFIX_LENGTH + len(_ABRIDGED) + 2 * _DIGEST_SIZE
#: One set for all specs: parsing creates one for each, which takes 200 bytes.
_SPEC_FIELDS = {"name", "sealed", "rotate_after"}


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace that isn't being deleted, and the account it belongs to."""

    name: str
    account: str
    labeled: bool
    uid: str
    created: str
    """RFC 3339, UTC, to the second: sorts as text."""

    def outlived(self, created: str) -> bool:
        """Return whether an object created at that time belonged to a former namespace of this name."""
        return created < self.created


class Table(Generic[T]):
    """The newest known state of each object of one kind."""

    def __init__(self, changed: Callable[[T | None, T | None], None] = lambda _, __: None) -> None:
        """Create an empty table; `changed` is called with an object's former and new state, or None."""
        self._changed = changed
        self._rows: dict[str, dict[str, tuple[int, T]]] = defaultdict(dict)
        # Deletions since the last list, so that an older list or response can't undo them.
        self._gone: dict[Key, int] = {}
        # The last list's version: an object missing from it was deleted by then.
        self._listed = 0

    def clear(self) -> None:
        """Forget every object, and the versions seen so far."""
        for _, item in self:
            self._changed(item, None)
        self._rows.clear()
        self._gone.clear()
        self._listed = 0

    def get(self, key: Key) -> T | None:
        """Return an object's newest known state, or None if it doesn't exist."""
        row = self._rows.get(key[0], {}).get(key[1])
        return row[1] if row else None

    def at(self, key: Key, version: int) -> T | None:
        """Return an object's state if exactly this version is known."""
        row = self._rows.get(key[0], {}).get(key[1])
        return row[1] if row and row[0] == version else None

    def within(self, namespace: str) -> list[T]:
        """Return the objects in one namespace."""
        return [item for _, item in self._rows.get(namespace, {}).values()]

    def __iter__(self) -> Iterator[tuple[Key, T]]:
        for namespace, rows in self._rows.items():
            for name, (_, item) in rows.items():
                yield (namespace, name), item

    def is_newer(self, key: Key, version: int) -> bool:
        """Return whether this version of an object is newer than the known one."""
        row = self._rows.get(key[0], {}).get(key[1])
        return version > max(row[0] if row else self._listed, self._gone.get(key, 0))

    def upsert(self, key: Key, version: int, item: T) -> bool:
        """Store an object's state; return whether that changed anything."""
        if not self.is_newer(key, version):
            return False
        former = self.get(key)
        self._rows[key[0]][key[1]] = version, item
        self._changed(former, item)
        return former is None or former != item

    def exchange(self, key: Key, item: T, by: T) -> None:
        """Store an object's state in another form, unless there is a newer one."""
        row = self._rows.get(key[0], {}).get(key[1])
        if row and row[1] is item:
            self._rows[key[0]][key[1]] = row[0], by

    def delete(self, key: Key, version: int) -> bool:
        """Record an object's deletion; return whether that changed anything."""
        row = self._rows.get(key[0], {}).get(key[1])
        if row is not None and row[0] > version:
            return False
        self._gone[key] = max(version, self._gone.get(key, version))
        if row is None:
            return False
        del self._rows[key[0]][key[1]]
        self._changed(row[1], None)
        return True

    def replace(self, listed: Mapping[Key, tuple[int, T]], version: int) -> list[Key]:
        """Replace all objects with a list made at `version`; return the keys of those that changed."""
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
    """AccountSecrets, namespaces and account Secrets; each change returns the affected accounts."""

    def __init__(self, on_damaged: Callable[[AccountSecret], None] = lambda _: None) -> None:
        """Create an empty cache; `on_damaged` is called for each new state of an AccountSecret with invalid fields."""
        self._on_damaged = on_damaged
        self._account_secrets: Table[AccountSecret] = Table(self._count)
        self._namespaces: Table[Namespace] = Table()
        self._secrets: Table[ExistingSecret] = Table()
        self._members: dict[str, set[str]] = defaultdict(set)
        # Counted with each change, since metrics are read often.
        self._ready_reasons: Counter[tuple[str, str]] = Counter()
        self._overdue = 0

    def clear(self) -> None:
        """Forget everything, including the versions seen so far."""
        for table in (self._account_secrets, self._namespaces, self._secrets):
            table.clear()
        self._members.clear()

    def account_secrets(self, account: str) -> list[AccountSecret]:
        """Return the AccountSecrets in an account's home; none without a home, and none from a former namespace."""
        home = self._namespaces.get(("", account))
        secrets = self._account_secrets.within(account)
        return [secret for secret in secrets if home and not home.outlived(secret.created)]

    def all_account_secrets(self) -> Iterator[AccountSecret]:
        """Return the AccountSecrets of every account."""
        return (item for _, item in self._account_secrets)

    def ready_reasons(self) -> Counter[tuple[str, str]]:
        """Count the AccountSecrets by namespace and reason of their Ready condition."""
        return self._ready_reasons.copy()

    def overdue(self) -> int:
        """Count the AccountSecrets whose value is older than rotateAfter allows."""
        return self._overdue

    def falling_due(self, now: str) -> set[str]:
        """Return the accounts with a value that is due by `now` (RFC 3339, UTC) while its status doesn't say so yet."""
        return {
            secret.namespace
            for secret in self.all_account_secrets()
            if falls_due(secret.status, secret.spec.rotate_after, now)
        }

    def members(self, account: str) -> list[Member]:
        """Return the account's namespaces, each with its account Secret."""
        return [
            Member(name, namespace.labeled, self._existing_secret(namespace), namespace.uid)
            for name in sorted(self._members.get(account, ()))
            if (namespace := self._namespaces.get(("", name))) is not None
        ]

    def _existing_secret(self, namespace: Namespace) -> ExistingSecret | None:
        secret = self._secrets.get((namespace.name, ""))
        return None if secret is None or namespace.outlived(secret.created) else secret

    def secrets(self) -> Iterator[tuple[Namespace, ExistingSecret]]:
        """Return every account Secret with its namespace."""
        for (name, _), _ in self._secrets:
            namespace = self._namespaces.get(("", name))
            if namespace and (secret := self._existing_secret(namespace)):
                yield namespace, secret

    def namespace_uid(self, name: str) -> str:
        """Return a namespace's uid; empty if it doesn't exist or is being deleted."""
        namespace = self._namespaces.get(("", name))
        return namespace.uid if namespace else ""

    def namespaces(self) -> Iterator[Namespace]:
        """Return every namespace that isn't being deleted."""
        return (item for _, item in self._namespaces)

    def labeled(self) -> Iterator[Namespace]:
        """Return the namespaces with an account label."""
        return (item for _, item in self._namespaces if item.labeled)

    def home_account(self, account: str) -> str:
        """Return the account that a home's namespace belongs to: itself, unless it is labeled."""
        namespace = self._namespaces.get(("", account))
        return namespace.account if namespace else account

    def accounts(self) -> set[str]:
        """Return every account that may need work."""
        homes = {item.namespace for _, item in self._account_secrets}
        holders = {self.home_account(namespace) for (namespace, _), _ in self._secrets}
        return homes | holders | {item.account for item in self.labeled()}

    def has_new_spec(self, body: Body) -> bool:
        """Return whether an AccountSecret is new or its spec has changed."""
        known = self._account_secrets.get(_key(body))
        return known is None or known.generation < body["metadata"]["generation"]

    def has_account_secret(self, body: Body) -> bool:
        """Return whether any version of an AccountSecret is cached."""
        return self._account_secrets.get(_key(body)) is not None

    def known_account_secret(self, body: Body) -> AccountSecret | None:
        """Return the cached AccountSecret if it has the version of this body."""
        return self._account_secrets.at(_key(body), _version(body))

    def known_secret(self, body: Body) -> tuple[str, ExistingSecret] | None:
        """Return the cached account Secret and its namespace if it has the version of this body."""
        namespace: str = body["metadata"]["namespace"]
        known = self._secrets.at((namespace, ""), _version(body))
        return (namespace, known) if known else None

    def upsert_account_secret(self, body: Body) -> set[str]:
        """Store an AccountSecret's state."""
        key, version = _key(body), _version(body)
        # The response and the watch both report each of the operator's writes; it is parsed once.
        if not self._account_secrets.is_newer(key, version):
            return set()
        item, known = read_account_secret(body), self._account_secrets.get(key)
        if known and known.spec.sealed in (item.spec.sealed, abridge(item.spec.sealed)):
            item = replace(item, spec=_spec(item.spec, known.spec.sealed))  # the text isn't in memory again
        self._account_secrets.upsert(key, version, item)
        self._tell_damage(item)
        return {item.namespace}

    def put_account_secret(self, item: AccountSecret) -> None:
        """Store an AccountSecret's state that is the result of our own write."""
        self._account_secrets.upsert((item.namespace, item.name), int(item.resource_version), item)

    def abridge_account_secret(self, item: AccountSecret) -> None:
        """Keep only a digest of an AccountSecret's sealed text, which has been opened."""
        self._account_secrets.exchange((item.namespace, item.name), item, without_text(item))

    def delete_account_secret(self, body: Body) -> set[str]:
        """Record an AccountSecret's deletion; `body` is its last state."""
        key = _key(body)
        return {key[0]} if self._account_secrets.delete(key, _version(body)) else set()

    def upsert_secret(self, body: Body) -> set[str]:
        """Store an account Secret's state."""
        version = _version(body)
        if not self._secrets.is_newer((body["metadata"]["namespace"], ""), version):
            return set()
        namespace, item = read_secret(body)
        self._secrets.upsert((namespace, ""), version, item)
        return {self.home_account(namespace)}

    def delete_secret(self, body: Body) -> set[str]:
        """Record an account Secret's deletion; `body` is its last state."""
        namespace = body["metadata"]["namespace"]
        return {self.home_account(namespace)} if self._secrets.delete((namespace, ""), _version(body)) else set()

    def upsert_namespace(self, body: Body) -> set[str]:
        """Store a namespace's state."""
        if "deletionTimestamp" in body["metadata"]:
            return self.delete_namespace(body)  # it accepts no new objects, so it's no longer a member
        item = _namespace(body)
        before = self._namespaces.get(("", item.name))
        if not self._namespaces.upsert(("", item.name), _version(body), item):
            return set()
        self._index(before, item)
        return _accounts_of(before, item)

    def delete_namespace(self, body: Body) -> set[str]:
        """Record a namespace's deletion; `body` is its last state."""
        item = _namespace(body)
        before = self._namespaces.get(("", item.name))
        if not self._namespaces.delete(("", item.name), _version(body)):
            return set()
        self._index(before, None)
        return _accounts_of(before, item)

    def replace_account_secrets(self, items: Iterable[AccountSecret], version: int) -> set[str]:
        """Replace all AccountSecrets with a list made at a resourceVersion."""
        listed = {(item.namespace, item.name): (int(item.resource_version), item) for item in items}
        changed = self._account_secrets.replace(listed, version)
        for key in changed:
            if item := self._account_secrets.get(key):
                self._tell_damage(item)
        return {namespace for namespace, _ in changed}

    def replace_secrets(self, items: Iterable[tuple[str, ExistingSecret]], version: int) -> set[str]:
        """Replace all account Secrets with a list made at a resourceVersion; each item has its namespace."""
        listed = {(namespace, ""): (int(item.resource_version), item) for namespace, item in items}
        changed = self._secrets.replace(listed, version)
        return {self.home_account(namespace) for namespace, _ in changed}

    def replace_namespaces(self, bodies: Iterable[Body], version: int) -> set[str]:
        """Replace all namespaces with a list made at a resourceVersion."""
        before = dict(self._namespaces)
        alive = [body for body in bodies if "deletionTimestamp" not in body["metadata"]]
        listed = {("", item.name): (_version(body), item) for body in alive for item in (_namespace(body),)}
        changed: set[str] = set()
        for key in self._namespaces.replace(listed, version):
            old, new = before.get(key), self._namespaces.get(key)
            self._index(old, new)
            changed |= {key[1]} | _accounts_of(old, new)
        return changed

    def _count(self, former: AccountSecret | None, new: AccountSecret | None) -> None:
        for secret, change in ((former, -1), (new, 1)):
            if secret is not None:
                key = secret.namespace, _ready_reason(secret)
                self._ready_reasons[key] += change
                if not self._ready_reasons[key]:
                    del self._ready_reasons[key]  # its namespace may be gone for good
                self._overdue += change * secret.status.overdue

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


def _key(body: Body) -> Key:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _version(body: Body) -> int:
    return int(body["metadata"]["resourceVersion"])


def _accounts_of(*namespaces: Namespace | None) -> set[str]:
    """Return the accounts that a namespace's change affects: its own name, and those it belongs or belonged to."""
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
    """Drop the fields of a namespace that aren't used; its annotations may be large."""
    kept = ("name", "uid", "labels", "creationTimestamp", "deletionTimestamp", "resourceVersion")
    return {"metadata": {name: value for name, value in body["metadata"].items() if name in kept}}


def read_account_secret(body: Body) -> AccountSecret:
    """Parse an AccountSecret without its description, and with a long sealed text abridged."""
    item = AccountSecret.parse(body)
    sealed = item.spec.sealed
    spec = _spec(item.spec, sealed if len(sealed) <= _SEALED_KEPT else abridge(sealed))
    namespace, name, created = map(shared_text, (item.namespace, item.name, item.created))
    return replace(item, namespace=namespace, name=name, created=created, spec=spec)


@lru_cache(maxsize=1024)
def shared_text(text: str) -> str:
    """Return the same object for equal texts: many accounts use the same names."""
    return text


def without_text(item: AccountSecret) -> AccountSecret:
    """Return an AccountSecret with its sealed text abridged; it isn't needed anymore once it was opened."""
    return replace(item, spec=_spec(item.spec, abridge(item.spec.sealed)))


def _spec(spec: AccountSecretSpec, sealed: str) -> AccountSecretSpec:
    return AccountSecretSpec.model_construct(
        _SPEC_FIELDS, name=shared_text(spec.name), sealed=sealed, rotate_after=spec.rotate_after
    )


def abridge(sealed: str) -> str:
    """Abridge a sealed text to its key id and a digest; a text that isn't longer stays as it is."""
    if len(sealed) <= _ABRIDGED_LENGTH:
        return sealed
    # Only this process can compute the digest, so nobody can write a text that equals another one's abridged form.
    return f"{sealed[:_KEY_PREFIX_LENGTH]}{_ABRIDGED}{digest(sealed.encode(), _DIGEST_SIZE).hex()}"


def is_abridged(sealed: str) -> bool:
    """Return whether a text was abridged."""
    return _ABRIDGED in sealed and abridge(sealed) == sealed


def read_secret(body: Body) -> tuple[str, ExistingSecret]:
    """Parse an account Secret: its namespace, and its state with fingerprints instead of values."""
    metadata = body["metadata"]
    labels = metadata.get("labels") or {}
    values = read_data(body)
    data = shared((shared_text(name), Fingerprint.of(value)) for name, value in values.items())
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
