"""`list`, `get`, `update`, `delete`: an account's AccountSecrets."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devbox_secrets.cli.kit.app import Commands
from devbox_secrets.cli.kit.options import AccountOptions, ForceConflicts
from devbox_secrets.cli.kit.output import ObjectFormat, ObjectOutput, Yes, age, confirm, note, print_table, show
from devbox_secrets.cli.kit.reserved import AllowReserved, check_not_reserved
from devbox_secrets.cli.kit.value_input import (
    TAKES_A_VALUE,
    AllowEmpty,
    FromFile,
    KeepNewline,
    read_value,
    refuse_more_arguments,
)
from devbox_secrets.cli.resources.arguments import Name

if TYPE_CHECKING:
    from devbox_secrets.api.models import AccountSecret

commands = Commands("Secrets")


@commands.command("list")
async def list_(
    at: AccountOptions,
    everywhere: Annotated[
        bool, typer.Option("--all-accounts", "--all-namespaces", "-A", help="List the secrets of all accounts.")
    ] = False,
    output: ObjectOutput = ObjectFormat.TEXT,
) -> None:
    """List secrets and whether devboxes get them."""
    from devbox_secrets.cli.resources import account_secrets

    account = None if everywhere else at.home()
    async with at.connect() as client:
        secrets = await account_secrets.list_all(client, account)

    def text() -> None:
        if secrets:
            _print_list(secrets, with_account=everywhere, wide=output is ObjectFormat.WIDE)
        elif account:
            typer.echo(f"The account {account} has no secrets. Create one: devbox-secrets set NAME -n {account}")
        else:
            typer.echo("No account has secrets. Create one: devbox-secrets set NAME -n ACCOUNT")

    _show(output, secrets, [_data(secret) for secret in secrets], text)


@commands.command()
async def get(at: AccountOptions, name: Name, output: ObjectOutput = ObjectFormat.TEXT) -> None:
    """Show the details of a secret.

    The value isn't shown: an AccountSecret contains only the sealed value.
    """
    from devbox_secrets.cli.resources import account_secrets

    account = at.home()
    async with at.connect() as client:
        secret = await account_secrets.find(client, account, name)
    data = _data(secret)
    rows = [[field, str(value)] for field, value in data.items() if value is not None]
    _show(output, [secret], data, lambda: print_table(["FIELD", "VALUE"], rows))


@commands.command(context_settings=TAKES_A_VALUE)
async def update(
    ctx: typer.Context,
    at: AccountOptions,
    name: Name,
    from_file: FromFile = None,
    keep_newline: KeepNewline = False,
    allow_empty: AllowEmpty = False,
    force: ForceConflicts = False,
    allow_reserved: AllowReserved = False,
) -> None:
    """Change the value of an existing secret.

    Its description and rotateAfter are kept. To also create the secret if it doesn't exist, use `set`.

    The value is read from standard input, from --from-file, or from a hidden prompt.

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
        value = read_value(variable, from_file, keep_newline=keep_newline, allow_empty=allow_empty)
        sealed = key.seal(value, account=account, name=variable)
        body = manifest(account, before.spec.model_copy(update={"sealed": sealed}), before.name)
        after = await account_secrets.apply(client, body, before=before, force=force)
    typer.echo("\n".join(account_secrets.changes(before, after)))


@commands.command()
async def delete(
    at: AccountOptions,
    name: Name,
    yes: Yes = False,
) -> None:
    """Delete a secret.

    New devboxes don't get the variable. Running devboxes keep it in their environment until they are restarted.
    """
    from devbox_secrets.cli.resources import account_secrets

    account = at.home()
    async with at.connect() as client:
        secret = await account_secrets.find(client, account, name)
        variable = secret.spec.name
        question = f"Delete {variable} ({secret.name}) from the account {account}?"
        confirm(question, yes=yes, unasked=f"pass --yes to delete {variable}")
        tool = await account_secrets.managing_tool_of(client, secret)
        await account_secrets.delete(client, secret)
    typer.echo(f"{account_secrets.full_name(secret)} deleted in {account}: {variable}")
    if tool:
        note(f"{tool.name} manages {secret.name} and may create it again; remove it {tool.source}, too")


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


def _show(output: ObjectFormat, secrets: "list[AccountSecret]", data: Any, text: Callable[[], None]) -> None:  # noqa: ANN401 - JSON
    from devbox_secrets.cli.resources.account_secrets import full_name

    if output is ObjectFormat.NAME:
        typer.echo("".join(f"{full_name(secret)}\n" for secret in secrets), nl=False)
    else:
        show(output, data, text)


def _print_list(secrets: "list[AccountSecret]", *, with_account: bool, wide: bool) -> None:
    headers = ["VARIABLE", "READY", "CHANGED", "NAME", "DESCRIPTION"]
    rows = [_row(secret) for secret in secrets]
    if wide:
        headers[-1:-1] = ["AGE", "KEY", "ROTATE"]
        for row, secret in zip(rows, secrets, strict=True):
            row[-1:-1] = _wide(secret)
    if with_account:
        headers = ["ACCOUNT", *headers]
        rows = [[secret.namespace, *row] for row, secret in zip(rows, secrets, strict=True)]
    print_table(headers, rows)


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


def _wide(secret: "AccountSecret") -> list[str]:
    rotate_after = secret.spec.rotate_after or ""
    due = ", due" if rotate_after and secret.status.overdue else ""
    return [age(secret.created, datetime.now(UTC)), secret.status.key_id or "", f"{rotate_after}{due}"]
