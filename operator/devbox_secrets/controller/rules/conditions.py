"""Builds the Ready condition of an AccountSecret that isn't ready: the reason and the message.

Each message says what is wrong and what to do about it; none can contain a value.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from devbox_secrets.api import validation
from devbox_secrets.api.models import Reason
from devbox_secrets.api.names import ACCOUNT_LABEL, ACCOUNT_SECRET
from devbox_secrets.api.validation import SECRET_MAX_BYTES
from devbox_secrets.errors import (
    CannotOpen,
    DevboxSecretsError,
    InvalidValue,
    NotSealed,
    UnknownKey,
    ValueTooLarge,
)

_NAMED_NAMESPACES = 10
_REASONS: Mapping[type[DevboxSecretsError], Reason] = {
    NotSealed: Reason.CANNOT_OPEN,
    CannotOpen: Reason.CANNOT_OPEN,
    UnknownKey: Reason.UNKNOWN_KEY,
    InvalidValue: Reason.INVALID_VALUE,
    ValueTooLarge: Reason.TOO_LARGE,
}


@dataclass(frozen=True, slots=True)
class NotReady:
    """Why devboxes don't get an AccountSecret's current value: the condition Ready is False."""

    reason: Reason
    message: str

    def keeping(self, since: str) -> "NotReady":
        """Add that devboxes keep the previous value."""
        return NotReady(self.reason, f"{self.message}. Until then, devboxes keep the value of {since}")


def unavailable(error: DevboxSecretsError) -> NotReady:
    """The value isn't available; the error's text says why."""
    return NotReady(_REASONS[type(error)], str(error))


def wrong_namespace(namespace: str, account: str) -> NotReady:
    """The AccountSecret is in a namespace that belongs to another account."""
    return NotReady(
        Reason.WRONG_NAMESPACE,
        f"the namespace {namespace} belongs to the account {account} (label {ACCOUNT_LABEL}); seal the value for the"
        f" account {account} and create the AccountSecret in the namespace {account}",
    )


def being_deleted(name: str) -> NotReady:
    """The AccountSecret was deleted, but has a finalizer."""
    return NotReady(
        Reason.DELETING,
        "the AccountSecret was deleted, so devboxes no longer get the variable, but a finalizer keeps the object;"
        f" the finalizer's owner must remove it: kubectl get accountsecret {name}"
        " -o jsonpath='{.metadata.finalizers}'",
    )


def reserved_name(variable: str) -> NotReady:
    """The name is reserved, since its value could become code."""
    return NotReady(Reason.RESERVED_NAME, str(validation.reserved_name(variable)))


def name_conflict(variable: str, owner: str) -> NotReady:
    """An older AccountSecret has the same variable name."""
    return NotReady(
        Reason.NAME_CONFLICT,
        f"the older AccountSecret {owner} already defines {variable}; update that one, or delete it to use this one",
    )


def too_large(variable: str, size: int) -> NotReady:
    """With this value, the account's values would take `size` bytes."""
    return NotReady(
        Reason.TOO_LARGE,
        f"with {variable}, the account's values would take {size:,} bytes, but a Secret can hold only"
        f" {SECRET_MAX_BYTES:,}; delete AccountSecrets that aren't used, or shorten their values",
    )


def too_many(variable: str, count: int) -> NotReady:
    """The account's Secret has `count` variables and no room for another name."""
    return NotReady(
        Reason.TOO_LARGE,
        f"the account has {count:,} variables, and its Secret has no room for the name {variable};"
        " delete AccountSecrets that aren't used, or choose shorter names",
    )


def not_owned(namespaces: Iterable[str]) -> NotReady:
    """A namespace has a Secret of that name that someone else wrote."""
    where = _some(sorted(namespaces), ", ")
    return NotReady(
        Reason.NOT_OWNED,
        f"the Secret {ACCOUNT_SECRET} in the namespace {where} wasn't written by the operator and is left unchanged;"
        " copy what you need from that Secret and delete it",
    )


def not_written(failures: Mapping[str, str]) -> NotReady:
    """The API server rejects a write; `failures` has its reasons by namespace."""
    told = _some([f"{namespace}: {reason}" for namespace, reason in sorted(failures.items())], "; ")
    return NotReady(
        Reason.NOT_WRITTEN,
        f"cannot write the Secret {ACCOUNT_SECRET} ({told}); check the namespace for a quota, a policy or a webhook."
        " The operator keeps retrying",
    )


def held(finalizers: Mapping[str, Sequence[str]]) -> NotReady:
    """A namespace has a Secret that can be neither changed nor deleted."""
    told = [f"{namespace} ({', '.join(names)})" for namespace, names in sorted(finalizers.items())]
    return NotReady(
        Reason.NOT_WRITTEN,
        f"the Secret {ACCOUNT_SECRET} is immutable, and a finalizer prevents its deletion in the namespace"
        f" {_some(told, '; ')}, so devboxes there still get its old values; the finalizer's owner must remove it, then"
        " the operator recreates the Secret",
    )


def _some(parts: Sequence[str], between: str) -> str:
    """Join the first few: a condition's message is limited to 32,768 characters, an account's namespaces are not."""
    more = len(parts) - _NAMED_NAMESPACES
    return between.join(parts[:_NAMED_NAMESPACES]) + (f"{between}and {more} more" if more > 0 else "")
