"""What is worth an Event: only what became different, or what no status can say. Pure; imports api.

A first success is none: its status says so, and ten thousand of them would be ten thousand writes.
"""

from dataclasses import dataclass

from devbox_secrets.api import ACCOUNT_LABEL, AccountSecretStatus, Reason


@dataclass(frozen=True, slots=True)
class News:
    """An Event's content: `reason` is one word, `message` a sentence without any value."""

    reason: str
    message: str
    warning: bool = True


def of_status(before: AccountSecretStatus, after: AccountSecretStatus) -> list[News]:
    """Give what a new status has to tell that the one before didn't."""
    news = []
    was, now = before.ready, after.ready
    if now is not None and now.reason != (was.reason if was else Reason.SYNCED):
        news.append(News(now.reason, now.message, warning=not now.holds))
    due = after.rotation_due
    if due is not None and after.overdue and not before.overdue:
        news.append(News("RotationDue", due.message))
    return news


def of_namespace(namespace: str, account: str, home_account: str | None) -> News | None:
    """Say what is wrong with the account that a namespace's label names, if anything is.

    `home_account` is the account of that account's home, None where there is no such namespace.
    """
    if home_account is None:
        return News(
            "UnknownHome",
            f"the label {ACCOUNT_LABEL} names the account {account}, but there is no namespace {account}, so devboxes"
            " here get nothing; correct the label, or create that namespace and the account's secrets in it",
        )
    if home_account != account:
        return News(
            "HomeOfAnother",
            f"the label {ACCOUNT_LABEL} names the account {account}, but the namespace {account} itself belongs to the"
            f" account {home_account}, so devboxes here get nothing; label {namespace} with {home_account} instead",
        )
    return None
