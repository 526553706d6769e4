"""Why a value isn't given to devboxes, in the words of the condition that its owner reads. Imports api alone.

Each sentence says what is wrong and what to do next; none can hold a value.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from devbox_secrets.api import ACCOUNT_LABEL, ACCOUNT_SECRET, SECRET_MAX_BYTES, Reason

_NAMED_NAMESPACES = 10


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an AccountSecret's present value isn't given to devboxes."""

    reason: Reason
    message: str

    def keeping(self, since: str) -> "Refusal":
        """Say besides that devboxes keep the value from before."""
        return Refusal(self.reason, f"{self.message}. Devboxes keep the value of {since} until then")


def not_a_home(namespace: str, account: str) -> Refusal:
    """Refuse what is in a namespace that a label gives to another account."""
    return Refusal(
        Reason.NOT_A_HOME,
        f"the namespace {namespace} belongs to the account {account} by its label {ACCOUNT_LABEL};"
        f" seal the value for that account and create this in {account}",
    )


def reserved_name(variable: str) -> Refusal:
    """Refuse a name by which a value could become code."""
    return Refusal(
        Reason.RESERVED_NAME,
        f"{variable} is reserved, since it could run code in every devbox or break it;"
        " choose another name, and map it inside the devbox if a program needs this one",
    )


def name_conflict(variable: str, owner: str) -> Refusal:
    """Refuse a name that an older AccountSecret has."""
    return Refusal(
        Reason.NAME_CONFLICT,
        f"{variable} already belongs to the older AccountSecret {owner};"
        " update that one, or delete it and this one takes over",
    )


def too_large(variable: str, size: int) -> Refusal:
    """Refuse a value with which the account's would have `size` bytes."""
    return Refusal(
        Reason.TOO_LARGE,
        f"with {variable} the account's values would have {size:,} bytes;"
        f" a Secret holds {SECRET_MAX_BYTES:,}. Delete what isn't used, or shorten it",
    )


def too_many(variable: str, count: int) -> Refusal:
    """Refuse a name for which the account's Secret has no room beside its `count` others."""
    return Refusal(
        Reason.TOO_LARGE,
        f"the account has {count:,} variables, and the name of {variable} doesn't fit into its Secret"
        " any more. Delete what isn't used, or choose shorter names",
    )


def not_owned(namespaces: Iterable[str]) -> Refusal:
    """Refuse what can't reach a namespace, where someone else has a Secret of that name."""
    where = _some(sorted(namespaces), ", ")
    return Refusal(
        Reason.NOT_OWNED,
        f"in the namespace {where} the Secret {ACCOUNT_SECRET} isn't ours, so it's left as it is;"
        " copy what you need from it and delete it, then this one is synced",
    )


def not_written(failures: Mapping[str, str]) -> Refusal:
    """Refuse what the API server doesn't let us write, with its reason by namespace."""
    told = _some([f"{namespace}: {reason}" for namespace, reason in sorted(failures.items())], "; ")
    return Refusal(
        Reason.NOT_WRITTEN,
        f"the Secret {ACCOUNT_SECRET} can't be written ({told}); look for a quota, a policy or a"
        " webhook in that namespace. It's tried again and again",
    )


def _some(parts: Sequence[str], between: str) -> str:
    """Join the first few: a condition's message has 32,768 characters, and an account any number of namespaces."""
    more = len(parts) - _NAMED_NAMESPACES
    return between.join(parts[:_NAMED_NAMESPACES]) + (f"{between}and {more} more" if more > 0 else "")
