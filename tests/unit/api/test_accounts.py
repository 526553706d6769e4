"""Which account a namespace belongs to, and which account has a home."""

import pytest

from devbox_secrets.api.accounts import account_of, is_home
from devbox_secrets.api.names import ACCOUNT_LABEL


@pytest.mark.parametrize(
    ("namespace", "labels", "account"),
    [
        ("box", {}, "box"),
        ("box", {"other": "x"}, "box"),
        ("box", {ACCOUNT_LABEL: "team"}, "team"),
        ("team", {ACCOUNT_LABEL: "team"}, "team"),
        ("box", {ACCOUNT_LABEL: ""}, "box"),
    ],
)
def test_a_namespace_belongs_to_the_account_of_its_label_or_to_itself(
    namespace: str, labels: dict[str, str], account: str
) -> None:
    assert account_of(namespace, labels) == account


@pytest.mark.parametrize(
    ("home_account", "home"),
    [
        pytest.param("team", True, id="its namespace is its own"),
        pytest.param("other", False, id="a label gives its namespace to another account"),
        pytest.param(None, False, id="it has no namespace"),
    ],
)
def test_an_account_has_a_home_where_its_namespace_is_its_own(home_account: str | None, home: bool) -> None:
    assert is_home("team", home_account) is home
