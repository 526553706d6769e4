"""Decides which changes get an Event; an AccountSecret's Event has the message of its condition.

The first success gets none: the status shows it, and ten thousand AccountSecrets would need ten thousand writes.
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
    """An Event's content: `reason` is one word, and `message` never contains a value."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Warning"


KEYS_LOST = Event(
    "SealingKeysLost",
    "all sealing keys are lost, so no AccountSecret can be decrypted; restore them from a backup: devbox-secrets keys"
    " restore FILE. Without a backup, create a new key (devbox-secrets keys rotate) and seal every value again",
)
"""Recorded on the Secret of the sealing keys."""


def status_events(before: AccountSecretStatus, after: AccountSecretStatus) -> list[Event]:
    """Return the Events for what is new in a status."""
    events = []
    was, now = before.ready, after.ready
    if now is not None and now.reason != (was.reason if was else Reason.SYNCED):
        events.append(Event(now.reason, now.message, "Normal" if now.holds else "Warning"))
    due = after.rotation_due
    if due is not None and after.overdue and not before.overdue:
        events.append(Event("RotationDue", due.message))
    return events


def namespace_event(namespace: str, account: str, home_account: str | None) -> Event | None:
    """Return an Event if something is wrong with the account that a namespace's label names.

    `home_account` is the account that the home belongs to, or None if there is no such namespace.
    """
    if home_account is None:
        return Event(
            "HomeNotFound",
            f"the label {ACCOUNT_LABEL} names the account {account}, but the namespace {account} doesn't exist, so"
            " devboxes here get no secrets; correct the label, or create the namespace with the account's secrets",
        )
    if not is_home(account, home_account):
        return Event(
            "InvalidHome",
            f"the label {ACCOUNT_LABEL} names the account {account}, but the namespace {account} belongs to the account"
            f" {home_account}, so devboxes here get no secrets; set the label of {namespace} to {home_account} instead",
        )
    return None


def secret_event(namespace: str, secret: ExistingSecret) -> Event | None:
    """Return an Event if someone has to act on a namespace's account Secret."""
    if not secret.owned:
        return Event(
            "NotOwned",
            f"the Secret {ACCOUNT_SECRET} in the namespace {namespace} wasn't written by the operator (it is a copy, or"
            " restored from a backup) and is left unchanged; devboxes here get its values. If you don't want that,"
            f" delete it: kubectl delete secret {ACCOUNT_SECRET} -n {namespace}",
        )
    if secret.deleting and secret.must_recreate and secret.data:
        return Event(Reason.NOT_WRITTEN, held({namespace: secret.finalizers}).message)
    return None
