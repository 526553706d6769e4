"""`seal`: reads a value, and prints or applies the manifest with the sealed value."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devbox_secrets.cli.kit.app import Commands, run
from devbox_secrets.cli.kit.options import AccountOptions, ForceConflicts, PublicKeyFile, read_public_key
from devbox_secrets.cli.kit.output import as_manifest
from devbox_secrets.cli.kit.reserved import AllowReserved, check_not_reserved
from devbox_secrets.cli.kit.value_input import (
    TAKES_A_VALUE,
    AllowEmpty,
    Exact,
    FromFile,
    read_value,
    refuse_more_arguments,
)

if TYPE_CHECKING:
    from devbox_secrets.crypto.envelope import PublicKey

commands = Commands()


class Output(StrEnum):
    """How a sealed value is printed."""

    YAML = "yaml"
    JSON = "json"
    RAW = "raw"


@dataclass(frozen=True)
class _Request:
    """What is asked to be sealed."""

    account: str
    variable: str
    from_file: Path | None
    exact: bool
    allow_empty: bool
    description: str | None
    rotate_after: str | None
    allow_reserved: bool

    def manifest(self, key: "PublicKey", object_name: str | None = None) -> dict[str, Any]:
        """Read the value, seal it, and give the manifest; without an object's name, it's derived from the variable."""
        from devbox_secrets.api.manifest import manifest
        from devbox_secrets.api.models import AccountSecretSpec

        value = read_value(self.variable, self.from_file, exact=self.exact, allow_empty=self.allow_empty)
        spec = AccountSecretSpec(
            name=self.variable,
            sealed=key.seal(value, account=self.account, name=self.variable),
            description=self.description,
            rotate_after=self.rotate_after,
        )
        return manifest(self.account, spec, object_name)


@commands.command(context_settings=TAKES_A_VALUE)
def seal(
    ctx: typer.Context,
    at: AccountOptions,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The environment variable.")],
    from_file: FromFile = None,
    public_key: PublicKeyFile = None,
    output: Annotated[
        Output | None,
        typer.Option(
            "--output", "-o",
            help="A manifest, or the sealed value alone; YAML, unless --apply tells what changed.",
            show_default=False,
        ),
    ] = None,
    description: Annotated[
        str | None, typer.Option(help="What the secret is for.")
    ] = None,
    rotate_after: Annotated[
        str | None, typer.Option(metavar="90d", help="How old the value may become.")
    ] = None,
    exact: Exact = False,
    allow_empty: AllowEmpty = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply it on the cluster, with your own rights, and tell what changed.")
    ] = False,
    force: ForceConflicts = False,
    allow_reserved: AllowReserved = False,
) -> None:  # fmt: skip
    """Seal a value for an account's devboxes and print the manifest for kubectl.

    The value is read from standard input, from --from-file, or at a hidden prompt.

    Example: devbox-secrets seal GITHUB_TOKEN < token | kubectl apply -f -

    With --apply the AccountSecret is as the options say: a description that isn't given is
    removed. The command update changes the value alone.
    """
    from devbox_secrets.api.validation import check_description, check_rotate_after, check_variable

    refuse_more_arguments(ctx)
    check_variable(name)
    check_description(description)
    check_rotate_after(rotate_after)
    request = _Request(at.home(), name, from_file, exact, allow_empty, description, rotate_after, allow_reserved)
    # Not a coroutine function: to import asyncio takes as long as to seal offline.
    if apply:
        run(_apply(at, request, public_key, output, force=force))
    else:
        check_not_reserved(name, allow=allow_reserved)
        # The key comes before the value: an error of the cluster is shown before the value is asked for.
        key = read_public_key(public_key, at.operator_namespace) if public_key else run(_newest_key(at))
        _print(request.manifest(key), output)


async def _newest_key(at: AccountOptions) -> "PublicKey":
    from devbox_secrets.cli.resources import sealing_keys

    async with at.connect() as client:
        return await sealing_keys.newest_public(client, at.operator_namespace)


async def _apply(
    at: AccountOptions, request: _Request, public_key: Path | None, output: Output | None, *, force: bool
) -> None:
    from devbox_secrets.cli.resources import account_secrets, sealing_keys

    async with at.connect() as client:
        before = await account_secrets.by_variable(client, request.account, request.variable)
        ready = before is not None and account_secrets.is_synced(before)
        check_not_reserved(request.variable, allow=request.allow_reserved, existing_ready=ready)
        if public_key:
            key = read_public_key(public_key, at.operator_namespace)
        else:
            key = await sealing_keys.newest_public(client, at.operator_namespace)
        body = request.manifest(key, before.name if before else None)
        after = await account_secrets.apply(client, body, force=force)
    if output is None:
        typer.echo("\n".join(account_secrets.changes(before, after)))
    else:
        _print(body, output)


def _print(body: dict[str, Any], output: Output | None) -> None:
    if output is Output.RAW:
        typer.echo(body["spec"]["sealed"])
    else:
        typer.echo(as_manifest(body, output or Output.YAML), nl=False)
