"""Decides which changes are worth an Event; an AccountSecret's Event has the message of its condition.

A first success is none: its status says so, and ten thousand of them would be ten thousand writes.
"""

from dataclasses import dataclass
from typing import Literal

from devbox_secrets.api.accounts import is_home
from devbox_secrets.api.models import AccountSecretStatus, Reason
from devbox_secrets.api.names import ACCOUNT_LABEL, ACCOUNT_SECRET
from devbox_secrets.controller.rules.conditions import held
from devbox_secrets.controller.rules.plan import ExistingSecret


@dataclass(frozen=True, slots=True)
class Event:
    """An Event's content: `reason` is one word, `message` a sentence without any value."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Warning"


KEYS_LOST = Event(
    "SealingKeysLost",
    "AccountSecrets are sealed with keys, but there is no sealing key any more, so no value can be opened; restore the"
    " keys: devbox-secrets keys restore FILE; without a backup, start over with a new key: devbox-secrets keys rotate,"
    " and seal every value again",
)
"""On the Secret of the sealing keys."""


def status_events(before: AccountSecretStatus, after: AccountSecretStatus) -> list[Event]:
    """Give what a new status has to tell that the one before didn't."""
    events = []
    was, now = before.ready, after.ready
    if now is not None and now.reason != (was.reason if was else Reason.SYNCED):
        events.append(Event(now.reason, now.message, "Normal" if now.holds else "Warning"))
    due = after.rotation_due
    if due is not None and after.overdue and not before.overdue:
        events.append(Event("RotationDue", due.message))
    return events


def namespace_event(namespace: str, account: str, home_account: str | None) -> Event | None:
    """Say what is wrong with the account that a namespace's label names, if anything is.

    `home_account` is the account of that account's home, None where there is no such namespace.
    """
    if home_account is None:
        return Event(
            "HomeNotFound",
            f"the label {ACCOUNT_LABEL} names the account {account}, but there is no namespace {account}, so devboxes"
            " here get nothing; correct the label, or create that namespace and the account's secrets in it",
        )
    if not is_home(account, home_account):
        return Event(
            "InvalidHome",
            f"the label {ACCOUNT_LABEL} names the account {account}, but the namespace {account} itself belongs to the"
            f" account {home_account}, so devboxes here get nothing; label {namespace} with {home_account} instead",
        )
    return None


def secret_event(namespace: str, secret: ExistingSecret) -> Event | None:
    """Say what is wrong with a namespace's account Secret, if people have to do something about it."""
    if not secret.owned:
        return Event(
            "NotOwned",
            f"the Secret {ACCOUNT_SECRET} in the namespace {namespace} wasn't written by the operator: it's a copy, or"
            " restored from a backup. It is left as it is, and devboxes here get what it holds. Unless that is what you"
            f" want, delete it: kubectl delete secret {ACCOUNT_SECRET} -n {namespace}",
        )
    if secret.deleting and secret.must_recreate and secret.data:
        return Event(Reason.NOT_WRITTEN, held({namespace: secret.finalizers}).message)
    return None
