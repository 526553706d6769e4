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
def test_a_namespace_belongs_to_the_account_in_its_label_or_to_its_own(
    namespace: str, labels: dict[str, str], account: str
) -> None:
    assert account_of(namespace, labels) == account


@pytest.mark.parametrize(
    ("home_account", "home"),
    [
        pytest.param("team", True, id="its namespace belongs to it"),
        pytest.param("other", False, id="its namespace is labeled for another account"),
        pytest.param(None, False, id="no namespace"),
    ],
)
def test_an_account_has_a_home_if_its_namespace_belongs_to_it(home_account: str | None, home: bool) -> None:
    assert is_home("team", home_account) is home
