"""The options that several commands have: which cluster, which account, which installation, which key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from devbox_secrets.api.names import NAMESPACES_PATH, OPERATOR_NAMESPACE
from devbox_secrets.api.validation import check_account
from devbox_secrets.cli.kit.completion import complete_contexts, from_cluster
from devbox_secrets.errors import InvalidAccount, InvalidKey

if TYPE_CHECKING:
    from devbox_secrets.crypto.envelope import PublicKey
    from devbox_secrets.kube.client import Client
    from devbox_secrets.kube.config import ClientConfig

ForceConflicts = Annotated[
    bool, typer.Option("--force-conflicts", help="Take over also what a tool such as Argo CD or Helm manages.")
]
PublicKeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", exists=True, dir_okay=False, envvar="DEVBOX_SECRETS_PUBLIC_KEY",
        help="Seal with the public key in this file, without asking the cluster.",
    ),
]  # fmt: skip
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; show what would change.")]


def _checked_namespace(namespace: str) -> str:
    try:
        check_account(namespace)
    except InvalidAccount:
        raise typer.BadParameter(
            f"{namespace!r} can't be a namespace: use up to 63 lowercase letters, digits and -"
        ) from None
    return namespace


def complete_namespaces(ctx: typer.Context, incomplete: str) -> list[str]:
    """Give the namespaces that begin so."""

    async def read(client: "Client") -> list[str]:
        pages = client.pages(NAMESPACES_PATH, {}, metadata_only=True)
        return [each["metadata"]["name"] async for page in pages for each in page["items"]]

    return from_cluster(AccountOptions.typed(ctx).connect(), incomplete, read)


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Which cluster, and which installation. Each field is an option of the commands that take these options."""

    kubeconfig: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="The kubeconfig to use."),
    ] = None
    context: Annotated[
        str | None, typer.Option(help="The kubeconfig's context to use.", autocompletion=complete_contexts)
    ] = None
    as_user: Annotated[str | None, typer.Option("--as", metavar="USER", help="Act as this user.")] = None
    as_group: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Act as a member of this group, together with --as. Repeatable."),
    ] = None
    as_uid: Annotated[str | None, typer.Option(metavar="UID", help="Act with this UID, together with --as.")] = None
    operator_namespace: Annotated[
        str,
        typer.Option(
            metavar="NAMESPACE", envvar="DEVBOX_SECRETS_OPERATOR_NAMESPACE", help="Where devbox-secrets is installed.",
            callback=_checked_namespace, autocompletion=complete_namespaces,
        ),
    ] = OPERATOR_NAMESPACE  # fmt: skip

    @asynccontextmanager
    async def connect(self) -> "AsyncIterator[Client]":
        """Connect to the cluster with the caller's own rights. A command does so once.

        Raises:
            ConfigError: there is no configuration to connect with.
        """
        from devbox_secrets.kube.client import Client

        async with Client.connect(self._config) as client:
            yield client

    @cached_property
    def _config(self) -> "ClientConfig":
        from devbox_secrets.kube.config import ClientConfig

        groups = tuple(self.as_group or ())
        return ClientConfig(self.kubeconfig, self.context, self.as_user, groups, self.as_uid)


@dataclass(frozen=True)
class AccountOptions(ClusterOptions):
    """Which cluster, and which account there."""

    account: Annotated[
        str | None,
        typer.Option(
            "--account", "--namespace", "-n",
            help="The account, a namespace; without it, the current context's.",
            autocompletion=complete_namespaces,
        ),
    ] = None  # fmt: skip

    @classmethod
    def typed(cls, ctx: typer.Context) -> Self:
        """Give the options that were typed already, while the shell completes a word."""
        given = {each.name: ctx.params.get(each.name) for each in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value})

    def home(self) -> str:
        """Give the account's namespace: the one asked for, else the one that kubectl would use.

        Raises:
            InvalidAccount: no namespace can have that name.
            ConfigError: there is no kubeconfig to read it from.
        """
        account = self._config.namespace() if self.account is None else self.account
        check_account(account)
        return account


def read_public_key(file: Path, operator_namespace: str) -> "PublicKey":
    """Read the public key in a file.

    Raises:
        InvalidKey: the file holds none; the message says how to get one from the operator's namespace.
        InvalidText: the file isn't UTF-8 text.
    """
    from devbox_secrets.cli.kit.text_input import read_text
    from devbox_secrets.crypto.envelope import PublicKey

    try:
        return PublicKey.parse(read_text(file))
    except InvalidKey as error:
        raise InvalidKey(
            f"{file}: {error}; get it with: kubectl get configmap devbox-secrets-public-keys"
            f" -n {operator_namespace} -o jsonpath='{{.data.newest}}'"
        ) from None
