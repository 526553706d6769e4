"""Arguments that name objects in the cluster, and their shell completion."""

from typing import TYPE_CHECKING, Annotated

import typer

from devbox_secrets.cli.kit.completion import from_cluster
from devbox_secrets.cli.kit.options import AccountOptions

if TYPE_CHECKING:
    from devbox_secrets.kube.client import Client


def complete_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the account's variables that start with the typed text."""
    at = AccountOptions.typed(ctx)

    async def read(client: "Client") -> list[str]:
        from devbox_secrets.cli.resources import account_secrets

        return [secret.spec.name for secret in await account_secrets.list_all(client, at.home())]

    return from_cluster(at.connect(), incomplete, read)


def complete_older_keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the ids of the older sealing keys that start with the typed text."""
    at = AccountOptions.typed(ctx)

    async def read(client: "Client") -> list[str]:
        from devbox_secrets.crypto.envelope import PublicKey
        from devbox_secrets.kube.key_store import KeyStore

        keys = await KeyStore(client, at.operator_namespace).read_public()
        newest = PublicKey.parse(keys["newest"]).id
        return [key_id for key_id in keys if key_id not in {"newest", newest}]

    return from_cluster(at.connect(), incomplete, read)


def complete_service_accounts(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the ServiceAccounts of the account's API keys that start with the typed text."""
    at = AccountOptions.typed(ctx)

    async def read(client: "Client") -> list[str]:
        from devbox_secrets.cli.resources.service_accounts import list_ours

        return [each.name for each in await list_ours(client, at.home())]

    return from_cluster(at.connect(), incomplete, read)


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The variable, such as GITHUB_TOKEN, or the AccountSecret's name.",
        autocompletion=complete_names,
    ),
]
Variable = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The environment variable, such as GITHUB_TOKEN.", autocompletion=complete_names
    ),
]
