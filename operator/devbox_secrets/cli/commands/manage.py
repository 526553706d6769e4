"""`list`, `get`, `update`, `delete`: an account's AccountSecrets."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from devbox_secrets.cli.kit.app import Commands
from devbox_secrets.cli.kit.options import AccountOptions, ForceConflicts
from devbox_secrets.cli.kit.output import Format, Output, Yes, age, confirm, note, print_table, show
from devbox_secrets.cli.kit.reserved import AllowReserved, check_not_reserved
from devbox_secrets.cli.kit.value_input import (
    TAKES_A_VALUE,
    AllowEmpty,
    Exact,
    FromFile,
    read_value,
    refuse_more_arguments,
)
from devbox_secrets.cli.resources.name_argument import Name

if TYPE_CHECKING:
    from devbox_secrets.api.models import AccountSecret

commands = Commands()


@commands.command("list")
async def list_(at: AccountOptions, output: Output = Format.TEXT) -> None:
    """List an account's secrets: which variables there are, and whether devboxes get them."""
    from devbox_secrets.cli.resources import account_secrets

    account = at.home()
    async with at.connect() as client:
        secrets = await account_secrets.list_all(client, account)

    def text() -> None:
        if secrets:
            print_table(["VARIABLE", "READY", "CHANGED", "NAME", "DESCRIPTION"], map(_row, secrets))
        else:
            typer.echo(f"The account {account} has no secrets yet: devbox-secrets seal NAME -n {account} --apply")

    show(output, [_data(secret) for secret in secrets], text)


@commands.command()
async def get(at: AccountOptions, name: Name, output: Output = Format.TEXT) -> None:
    """Show one secret of an account: everything but its value, which no one can ask for."""
    from devbox_secrets.cli.resources import account_secrets

    account = at.home()
    async with at.connect() as client:
        data = _data(await account_secrets.find(client, account, name))
    rows = [[field, str(value)] for field, value in data.items() if value is not None]
    show(output, data, lambda: print_table(["FIELD", "VALUE"], rows))


@commands.command(context_settings=TAKES_A_VALUE)
async def update(
    ctx: typer.Context,
    at: AccountOptions,
    name: Name,
    from_file: FromFile = None,
    exact: Exact = False,
    allow_empty: AllowEmpty = False,
    force: ForceConflicts = False,
    allow_reserved: AllowReserved = False,
) -> None:
    """Give a secret a new value, and keep what else its AccountSecret says.

    The value is read from standard input, from --from-file, or at a hidden prompt.

    Example: devbox-secrets update GITHUB_TOKEN < token
    """
    from devbox_secrets.api.manifest import manifest
    from devbox_secrets.cli.resources import account_secrets, sealing_keys

    refuse_more_arguments(ctx)
    account = at.home()
    async with at.connect() as client:
        before = await account_secrets.find(client, account, name)
        variable = before.spec.name
        check_not_reserved(variable, allow=allow_reserved, existing_ready=account_secrets.is_synced(before))
        key = await sealing_keys.newest_public(client, at.operator_namespace)
        sealed = key.seal(
            read_value(variable, from_file, exact=exact, allow_empty=allow_empty), account=account, name=variable
        )
        body = manifest(account, before.spec.model_copy(update={"sealed": sealed}), before.name)
        after = await account_secrets.apply(client, body, before=before, force=force)
    typer.echo("\n".join(account_secrets.changes(before, after)))


@commands.command()
async def delete(
    at: AccountOptions,
    name: Name,
    yes: Yes = False,
) -> None:
    """Delete a secret. New devboxes don't have it then; those that run keep it until they end."""
    from devbox_secrets.cli.resources import account_secrets

    account = at.home()
    async with at.connect() as client:
        secret = await account_secrets.find(client, account, name)
        variable = secret.spec.name
        question = f"Delete {variable} ({secret.name}) of the account {account}?"
        confirm(question, yes=yes, unasked=f"say --yes to delete {variable}")
        tool = await account_secrets.managing_tool_of(client, secret)
        await account_secrets.delete(client, secret)
    typer.echo(f"{account_secrets.full_name(secret)} deleted in {account}: {variable}")
    if tool:
        note(f"{tool.name} manages {secret.name} and may create it again; remove it {tool.source} as well")


def _data(secret: "AccountSecret") -> dict[str, Any]:
    from devbox_secrets.cli.resources.account_secrets import ready

    condition, spec, status = ready(secret), secret.spec, secret.status
    return {
        "variable": spec.name,
        "name": secret.name,
        "account": secret.namespace,
        "ready": condition and condition.holds,
        "reason": condition and condition.reason,
        "message": condition and condition.message,
        "changedAt": status.changed_at,
        "keyId": status.key_id,
        "description": spec.description,
        "rotateAfter": spec.rotate_after,
        "rotationDue": status.overdue if spec.rotate_after else None,
        "created": secret.created,
    }


def _row(secret: "AccountSecret") -> list[str]:
    from devbox_secrets.api.manifest import object_name
    from devbox_secrets.cli.resources.account_secrets import synced_text

    return [
        secret.spec.name,
        synced_text(secret),
        age(secret.status.changed_at, datetime.now(UTC)),
        "" if secret.name == object_name(secret.spec.name) else secret.name,
        secret.spec.description or "",
    ]
