"""Names that other programs depend on: whoever changes one breaks them."""

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
def test_what_people_and_their_manifests_name_stays(name: str, text: str) -> None:
    assert getattr(names, name) == text


def test_every_field_manager_is_another_one() -> None:
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
def test_account_secrets_are_at_their_account_s_path(names_of_objects: tuple[str, ...], path: str) -> None:
    assert names.account_secrets_path("team", *names_of_objects) == path
