"""The options that say where: which cluster, account and installation. Imports api; the cluster when called."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from devbox_secrets.api import OPERATOR_NAMESPACE, check_account
from devbox_secrets.errors import InvalidKey

if TYPE_CHECKING:
    from devbox_secrets.cluster import Cluster
    from devbox_secrets.sealing import SealingKey

T = TypeVar("T")

ForceConflicts = Annotated[
    bool, typer.Option("--force-conflicts", help="Take over what other field managers own, as kubectl apply does.")
]
PublicKey = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", exists=True, dir_okay=False,
        help="Seal with the public key in this file, without asking the cluster.",
    ),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which cluster, and which installation. Its fields are options of each command with a parameter of this type."""

    kubeconfig: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="The kubeconfig to use."),
    ] = None
    context: Annotated[str | None, typer.Option(help="The kubeconfig's context to use.")] = None
    operator_namespace: Annotated[str, typer.Option(help="Where devbox-secrets is installed.")] = OPERATOR_NAMESPACE

    def ask(self, work: Callable[["Cluster"], Awaitable[T]]) -> T:
        """Do some work with a connection to the cluster, with the caller's own rights.

        Raises:
            ClusterError: there is no cluster to connect to, or the work meets one.
        """
        import asyncio
        import gc

        # A short life, and what comes from the API server has no cycles: to look for some took 40 % of the time.
        gc.disable()
        from devbox_secrets.cluster import Cluster

        async def connected() -> T:
            async with Cluster.connect(self.kubeconfig, self.context) as cluster:
                return await work(cluster)

        return asyncio.run(connected())

    def sealing_key(self, public_key: Path | None = None) -> "SealingKey":
        """Read the public key to seal with: the one in a file, else the cluster's newest.

        Raises:
            ClusterError: the public keys can't be read.
            InvalidKey: there is none yet, or the file holds none.
        """
        from devbox_secrets.sealing import SealingKey

        namespace = self.operator_namespace
        if public_key is not None:
            try:
                return SealingKey.parse(public_key.read_text())
            except (InvalidKey, UnicodeDecodeError) as error:
                raise InvalidKey(
                    f"{public_key}: {error}; get it with: kubectl get configmap devbox-secrets-public-keys"
                    f" -n {namespace} -o jsonpath='{{.data.newest}}'"
                ) from None
        keys = self.ask(lambda cluster: cluster.read_public_keys(namespace))
        if "newest" not in keys:
            raise self.no_key_yet()
        return SealingKey.parse(keys["newest"])

    def no_key_yet(self) -> InvalidKey:
        """Say that the operator has made no sealing key yet."""
        return InvalidKey(
            f"there is no sealing key in the namespace {self.operator_namespace} yet; the operator makes it when"
            f" it starts: kubectl get pods -n {self.operator_namespace}"
        )


@dataclass(frozen=True)
class Target(Place):
    """A place, and the account there."""

    account: Annotated[
        str | None,
        typer.Option(
            "--account", "--namespace", "-n",
            help="The account: the namespace that owns the secret; without it, the present"
            " context's namespace.",
        ),
    ] = None  # fmt: skip

    def home(self) -> str:
        """Give the account's namespace: the one asked for, else the one that kubectl would use.

        Raises:
            InvalidAccount: no namespace can have that name.
            ClusterError: there is no kubeconfig to read it from.
        """
        account = self.account
        if account is None:
            from devbox_secrets.connection import present_namespace

            account = present_namespace(self.kubeconfig, self.context)
        check_account(account)
        return account
