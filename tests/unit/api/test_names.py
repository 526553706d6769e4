"""Names that other programs depend on, and that therefore must not change."""

import pytest

from devbox_secrets.api import names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ACCOUNT_LABEL", "devbox-secrets.dev/account"),
        ("INJECT_ANNOTATION", "devbox-secrets.dev/inject"),
        ("ENV_ANNOTATION", "devbox-secrets.dev/env"),
        ("MOUNT_ANNOTATION", "devbox-secrets.dev/mount"),
        ("ACCOUNT_SECRET", "devbox-account-secrets"),
        ("ALL_ACCOUNT_SECRETS_PATH", "/apis/devbox-secrets.dev/v1beta1/accountsecrets"),
    ],
)
def test_public_names_do_not_change(name: str, text: str) -> None:
    assert getattr(names, name) == text


def test_field_managers_are_distinct() -> None:
    managers = [
        names.FIELD_MANAGER,
        names.CREATE_FIELD_MANAGER,
        names.GATEWAY_FIELD_MANAGER,
        names.CLI_FIELD_MANAGER,
    ]
    assert len(set(managers)) == len(managers)


@pytest.mark.parametrize(
    ("names_of_objects", "path"),
    [
        ((), "/apis/devbox-secrets.dev/v1beta1/namespaces/team/accountsecrets"),
        (("github-token",), "/apis/devbox-secrets.dev/v1beta1/namespaces/team/accountsecrets/github-token"),
    ],
)
def test_accountsecrets_have_a_path_in_their_account_s_namespace(names_of_objects: tuple[str, ...], path: str) -> None:
    assert names.account_secrets_path("team", *names_of_objects) == path
