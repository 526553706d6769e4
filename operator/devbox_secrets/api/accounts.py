"""Which account a namespace belongs to, and whether an account has a home."""

from collections.abc import Mapping

from devbox_secrets.api.names import ACCOUNT_LABEL


def account_of(namespace: str, labels: Mapping[str, str]) -> str:
    """Return a namespace's account: the one that its label names, or itself."""
    return labels.get(ACCOUNT_LABEL) or namespace


def is_home(account: str, home_account: str | None) -> bool:
    """Return whether an account has a home.

    Args:
        account: the account, which is a namespace's name.
        home_account: the account that this namespace belongs to, or None if there is no such namespace.
    """
    return account == home_account
