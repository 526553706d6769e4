"""`seal`, `set`: read a value, seal it, and print or apply the manifest."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devbox_secrets.cli.kit.app import Commands
from devbox_secrets.cli.kit.options import AccountOptions, DryRun, ForceConflicts, PublicKeyFile, read_public_key
from devbox_secrets.cli.kit.output import as_manifest
from devbox_secrets.cli.kit.reserved import AllowReserved, check_not_reserved
from devbox_secrets.cli.kit.run import run
from devbox_secrets.cli.kit.value_input import (
    TAKES_A_VALUE,
    AllowEmpty,
    FromFile,
    KeepNewline,
    read_value,
    refuse_more_arguments,
)
from devbox_secrets.cli.resources.arguments import Variable

if TYPE_CHECKING:
    from devbox_secrets.api.models import AccountSecret
    from devbox_secrets.crypto.envelope import PublicKey

commands = Commands("Secrets")
Description = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Description of the secret; '' removes an existing one.")
]
RotateAfter = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="Age at which the value is due for rotation, such as 90d; '' removes it."),
]


class Output(StrEnum):
    """Output formats of a sealed value."""

    YAML = "yaml"
    JSON = "json"
    RAW = "raw"


@dataclass(frozen=True)
class _Request:
    """The arguments and options of `seal` and `set`."""

    account: str
    variable: str
    from_file: Path | None
    keep_newline: bool
    allow_empty: bool
    description: str | None
    """None keeps the existing description; an empty one removes it. The same applies to `rotate_after`."""
    rotate_after: str | None
    allow_reserved: bool

    def check(self) -> None:
        """Validate everything but the value, before the value is read."""
        from devbox_secrets.api.validation import check_description, check_rotate_after, check_variable

        check_variable(self.variable)
        check_description(self.description)
        check_rotate_after(self.rotate_after or None)

    def manifest(self, key: "PublicKey", before: "AccountSecret | None" = None) -> dict[str, Any]:
        """Read the value, seal it, and return the manifest; fields without a new value are taken from `before`."""
        from devbox_secrets.api.manifest import manifest
        from devbox_secrets.api.models import AccountSecretSpec

        value = read_value(self.variable, self.from_file, keep_newline=self.keep_newline, allow_empty=self.allow_empty)
        kept = before.spec if before else AccountSecretSpec(name=self.variable, sealed="")
        spec = AccountSecretSpec(
            name=self.variable,
            sealed=key.seal(value, account=self.account, name=self.variable),
            description=kept.description if self.description is None else self.description or None,
            rotate_after=kept.rotate_after if self.rotate_after is None else self.rotate_after or None,
        )
        return manifest(self.account, spec, before.name if before else None)


@commands.command(context_settings=TAKES_A_VALUE)
def seal(
    ctx: typer.Context,
    at: AccountOptions,
    name: Variable,
    from_file: FromFile = None,
    public_key: PublicKeyFile = None,
    output: Annotated[
        Output | None,
        typer.Option(
            "--output", "-o",
            help="Output format; raw prints only the sealed value. Defaults to yaml without --apply.",
        ),
    ] = None,
    description: Description = None,
    rotate_after: RotateAfter = None,
    keep_newline: KeepNewline = False,
    allow_empty: AllowEmpty = False,
    apply: Annotated[bool, typer.Option("--apply", help="Apply the manifest, as `set` does.")] = False,
    force: ForceConflicts = False,
    allow_reserved: AllowReserved = False,
) -> None:  # fmt: skip
    """Seal a value and print the manifest for kubectl or Git.

    The value is read from standard input, from --from-file, or from a hidden prompt.

    Example: devbox-secrets seal GITHUB_TOKEN < token | kubectl apply -f -
    """
    refuse_more_arguments(ctx)
    request = _Request(at.home(), name, from_file, keep_newline, allow_empty, description, rotate_after, allow_reserved)
    request.check()
    # Not a coroutine function: importing asyncio takes as long as sealing offline.
    if apply:
        run(_apply(at, request, public_key, output, force=force))
    else:
        check_not_reserved(name, allow=allow_reserved)
        # Read the key before the value, so that an error from the cluster appears before the prompt.
        key = read_public_key(public_key, at.operator_namespace) if public_key else run(_newest_key(at))
        _print(request.manifest(key), output)


@commands.command("set", context_settings=TAKES_A_VALUE)
async def set_(
    ctx: typer.Context,
    at: AccountOptions,
    name: Variable,
    from_file: FromFile = None,
    public_key: PublicKeyFile = None,
    description: Description = None,
    rotate_after: RotateAfter = None,
    keep_newline: KeepNewline = False,
    allow_empty: AllowEmpty = False,
    dry_run: DryRun = False,
    force: ForceConflicts = False,
    allow_reserved: AllowReserved = False,
) -> None:
    """Create a secret or change its value.

    The value is read from standard input, from --from-file, or from a hidden prompt. It is sealed on your machine and
    applied with your own permissions. An existing description and rotateAfter are kept unless you pass new ones.

    Example: devbox-secrets set GITHUB_TOKEN < token
    """
    refuse_more_arguments(ctx)
    request = _Request(at.home(), name, from_file, keep_newline, allow_empty, description, rotate_after, allow_reserved)
    request.check()
    await _apply(at, request, public_key, None, force=force, dry_run=dry_run)


async def _newest_key(at: AccountOptions) -> "PublicKey":
    from devbox_secrets.cli.resources import sealing_keys

    async with at.connect() as client:
        return await sealing_keys.newest_public(client, at.operator_namespace)


async def _apply(
    at: AccountOptions, request: _Request, public_key: Path | None, output: Output | None, *, force: bool,
    dry_run: bool = False,
) -> None:  # fmt: skip
    from devbox_secrets.api.models import AccountSecret
    from devbox_secrets.cli.resources import account_secrets, sealing_keys

    async with at.connect() as client:
        before = await account_secrets.by_variable(client, request.account, request.variable)
        ready = before is not None and account_secrets.is_synced(before)
        check_not_reserved(request.variable, allow=request.allow_reserved, existing_ready=ready)
        if public_key:
            key = read_public_key(public_key, at.operator_namespace)
        else:
            key = await sealing_keys.newest_public(client, at.operator_namespace)
        body = request.manifest(key, before)
        if dry_run:
            stored = await account_secrets.dry_run(client, body, before=before, force=force)
            # A dry run returns no resource version for a new object.
            after = AccountSecret.parse({**stored, "metadata": {"resourceVersion": "", **stored["metadata"]}})
        else:
            after = await account_secrets.apply(client, body, before=before, force=force)
    if output is None:
        typer.echo("\n".join(account_secrets.changes(before, after, dry_run=dry_run)))
    else:
        _print(body, output)


def _print(body: dict[str, Any], output: Output | None) -> None:
    if output is Output.RAW:
        typer.echo(body["spec"]["sealed"])
    else:
        typer.echo(as_manifest(body, output or Output.YAML), nl=False)
