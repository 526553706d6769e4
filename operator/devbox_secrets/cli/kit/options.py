"""Options that several commands share: the cluster, the account, the installation, and the public key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer
from typer.models import OptionInfo

from devbox_secrets.api.names import NAMESPACES_PATH, OPERATOR_NAMESPACE
from devbox_secrets.api.validation import check_account
from devbox_secrets.cli.kit.completion import complete_contexts, from_cluster
from devbox_secrets.errors import InvalidAccount, InvalidKey, NotFound

if TYPE_CHECKING:
    from devbox_secrets.crypto.envelope import PublicKey
    from devbox_secrets.kube.client import Client
    from devbox_secrets.kube.config import ClientConfig

ForceConflicts = Annotated[
    bool,
    typer.Option("--force-conflicts", help="Overwrite fields that another tool, such as Argo CD or Helm, manages."),
]
PublicKeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", exists=True, dir_okay=False, envvar="DEVBOX_SECRETS_PUBLIC_KEY",
        help="Seal with the public key in this file instead of the cluster's.",
    ),
]  # fmt: skip
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, without changing anything.")]


def _checked_namespace(namespace: str) -> str:
    try:
        check_account(namespace)
    except InvalidAccount:
        raise typer.BadParameter(
            f"{namespace!r} isn't a valid namespace name: use up to 63 lowercase letters, digits and -"
        ) from None
    return namespace


def complete_namespaces(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the namespaces that start with the typed text."""

    async def read(client: "Client") -> list[str]:
        pages = client.pages(NAMESPACES_PATH, {}, metadata_only=True)
        return [each["metadata"]["name"] async for page in pages for each in page["items"]]

    return from_cluster(AccountOptions.typed(ctx).connect(), incomplete, read)


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """The cluster and the installation. Each field becomes an option of the command."""

    kubeconfig: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Path to the kubeconfig."),
    ] = None
    context: Annotated[str | None, typer.Option(help="Kubeconfig context.", autocompletion=complete_contexts)] = None
    as_user: Annotated[str | None, typer.Option("--as", metavar="USER", help="User to impersonate.")] = None
    as_group: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Group to impersonate; requires --as. Can be repeated."),
    ] = None
    as_uid: Annotated[str | None, typer.Option(metavar="UID", help="UID to impersonate; requires --as.")] = None
    operator_namespace: Annotated[
        str,
        typer.Option(
            metavar="NAMESPACE", envvar="DEVBOX_SECRETS_OPERATOR_NAMESPACE", help="The operator's namespace.",
            callback=_checked_namespace, autocompletion=complete_namespaces,
        ),
    ] = OPERATOR_NAMESPACE  # fmt: skip

    @asynccontextmanager
    async def connect(self) -> "AsyncIterator[Client]":
        """Connect to the cluster with the caller's own permissions. A command connects once.

        Raises:
            ConfigError: there is no usable kubeconfig.
        """
        from devbox_secrets.kube.client import Client

        async with Client.connect(self._config) as client:
            yield client

    @cached_property
    def _config(self) -> "ClientConfig":
        from devbox_secrets.kube.config import ClientConfig

        groups = tuple(self.as_group or ())
        return ClientConfig(self.kubeconfig, self.context, self.as_user, groups, self.as_uid)


def _account(default: str) -> OptionInfo:
    """Return the option for an account, with what it defaults to."""
    text = f"The account, which is a namespace; defaults to {default}."
    option: OptionInfo = typer.Option("--account", "--namespace", "-n", help=text, autocompletion=complete_namespaces)
    return option


@dataclass(frozen=True)
class AccountOptions(ClusterOptions):
    """The cluster, the installation and the account."""

    account: Annotated[str | None, _account("the current context's namespace")] = None

    @classmethod
    def typed(cls, ctx: typer.Context) -> Self:
        """Return the options that precede the word to complete."""
        given = {each.name: ctx.params.get(each.name) for each in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value})

    def home(self) -> str:
        """Return the account's namespace: the option's, or the one that kubectl would use.

        Raises:
            InvalidAccount: it isn't a valid namespace name.
            ConfigError: there is no usable kubeconfig.
        """
        account = self._config.namespace() if self.account is None else self.account
        check_account(account)
        return account


@dataclass(frozen=True)
class ScopeOptions(AccountOptions):
    """The cluster and the installation, and the account of a command that otherwise covers all accounts."""

    account: Annotated[str | None, _account("the whole cluster")] = None


def no_namespace(account: str) -> NotFound:
    """Return the error for an account whose namespace doesn't exist."""
    return NotFound(f"the namespace {account} doesn't exist; create it, or pass another account with -n")


def not_installed(namespace: str, error: NotFound) -> NotFound:
    """Return the error for an operator's namespace without the operator's objects."""
    if not error.details:  # an API server names the object
        return NotFound(f"{error}; check server in the kubeconfig")
    return NotFound(
        f"devbox-secrets isn't installed in the namespace {namespace}; install it, or pass --operator-namespace if it"
        " is in another one"
    )


def read_public_key(file: Path, operator_namespace: str) -> "PublicKey":
    """Read the public key in a file.

    Raises:
        InvalidKey: the file doesn't contain one; the message says how to get it from the operator's namespace.
        InvalidText: the file isn't UTF-8 text.
    """
    from devbox_secrets.cli.kit.text_input import read_text
    from devbox_secrets.crypto.envelope import PublicKey

    try:
        return PublicKey.parse(read_text(file))
    except InvalidKey as error:
        raise InvalidKey(
            f"{file}: {error}; get the key with: kubectl get configmap devbox-secrets-public-keys"
            f" -n {operator_namespace} -o jsonpath='{{.data.newest}}'"
        ) from None
