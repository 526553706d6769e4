"""Builds the condition of an AccountSecret that isn't Ready: its reason, and a message that says what to do.

Each sentence says what is wrong and what to do next; none can hold a value.
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
    """Why an AccountSecret's current value isn't given to devboxes: the condition Ready is False."""

    reason: Reason
    message: str

    def keeping(self, since: str) -> "NotReady":
        """Say besides that devboxes keep the value from before."""
        return NotReady(self.reason, f"{self.message}. Devboxes keep the value of {since} until then")


def unavailable(error: DevboxSecretsError) -> NotReady:
    """Refuse a value that can't be had; the error's text says why."""
    return NotReady(_REASONS[type(error)], str(error))


def wrong_namespace(namespace: str, account: str) -> NotReady:
    """Refuse what is in a namespace that a label gives to another account."""
    return NotReady(
        Reason.WRONG_NAMESPACE,
        f"the namespace {namespace} belongs to the account {account} by its label {ACCOUNT_LABEL};"
        f" seal the value for that account and create this in {account}",
    )


def being_deleted(name: str) -> NotReady:
    """Refuse what someone deleted, though a finalizer still holds it."""
    return NotReady(
        Reason.DELETING,
        "it was deleted, so devboxes don't get the variable any more; only a finalizer still holds it, and whoever set"
        f" that must remove it: kubectl get accountsecret {name} -o jsonpath='{{.metadata.finalizers}}'",
    )


def reserved_name(variable: str) -> NotReady:
    """Refuse a name by which a value could become code."""
    return NotReady(Reason.RESERVED_NAME, str(validation.reserved_name(variable)))


def name_conflict(variable: str, owner: str) -> NotReady:
    """Refuse a name that an older AccountSecret has."""
    return NotReady(
        Reason.NAME_CONFLICT,
        f"{variable} already belongs to the older AccountSecret {owner};"
        " update that one, or delete it and this one takes over",
    )


def too_large(variable: str, size: int) -> NotReady:
    """Refuse a value with which the account's would have `size` bytes."""
    return NotReady(
        Reason.TOO_LARGE,
        f"with {variable} the account's values would have {size:,} bytes;"
        f" a Secret holds {SECRET_MAX_BYTES:,}. Delete what isn't used, or shorten it",
    )


def too_many(variable: str, count: int) -> NotReady:
    """Refuse a name for which the account's Secret has no room beside its `count` others."""
    return NotReady(
        Reason.TOO_LARGE,
        f"the account has {count:,} variables, and the name of {variable} doesn't fit into its Secret"
        " any more. Delete what isn't used, or choose shorter names",
    )


def not_owned(namespaces: Iterable[str]) -> NotReady:
    """Refuse what can't reach a namespace, where someone else has a Secret of that name."""
    where = _some(sorted(namespaces), ", ")
    return NotReady(
        Reason.NOT_OWNED,
        f"in the namespace {where} the Secret {ACCOUNT_SECRET} wasn't written by the operator, so it's left as it is;"
        " copy what you need from it and delete it, then this one is synced",
    )


def not_written(failures: Mapping[str, str]) -> NotReady:
    """Refuse what the API server doesn't let us write, with its reason by namespace."""
    told = _some([f"{namespace}: {reason}" for namespace, reason in sorted(failures.items())], "; ")
    return NotReady(
        Reason.NOT_WRITTEN,
        f"the Secret {ACCOUNT_SECRET} can't be written ({told}); look for a quota, a policy or a"
        " webhook in that namespace. It's tried again and again",
    )


def held(finalizers: Mapping[str, Sequence[str]]) -> NotReady:
    """Refuse what can't reach a namespace, where a Secret can be neither changed nor removed."""
    told = [f"{namespace} ({', '.join(names)})" for namespace, names in sorted(finalizers.items())]
    return NotReady(
        Reason.NOT_WRITTEN,
        f"the Secret {ACCOUNT_SECRET} was made immutable and is held by a finalizer in the namespace"
        f" {_some(told, '; ')}, so devboxes there still get its former values; whoever set the finalizer must remove"
        " it, then the Secret is written again",
    )


def _some(parts: Sequence[str], between: str) -> str:
    """Join the first few: a condition's message has 32,768 characters, and an account any number of namespaces."""
    more = len(parts) - _NAMED_NAMESPACES
    return between.join(parts[:_NAMED_NAMESPACES]) + (f"{between}and {more} more" if more > 0 else "")
