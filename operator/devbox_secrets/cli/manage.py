"""`list`, `get`, `update`, `delete`: an account's AccountSecrets. Imports its neighbours; the rest when called."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from devbox_secrets.cli.output import Format, Output, Yes, age, confirm, print_table, show
from devbox_secrets.cli.program import Commands, Name
from devbox_secrets.cli.target import ForceConflicts, Target
from devbox_secrets.cli.values import TAKES_A_VALUE, Exact, FromFile, read_value, refuse_more_arguments

if TYPE_CHECKING:
    from devbox_secrets.cli.accountsecrets import AccountSecret

commands = Commands()


@commands.command("list")
def list_(at: Target, output: Output = Format.TEXT) -> None:
    """List an account's secrets: which variables there are, and whether devboxes get them."""
    from devbox_secrets.cli import accountsecrets

    account = at.home()
    found = at.ask(lambda cluster: accountsecrets.list_all(cluster, account))

    def text() -> None:
        if found:
            print_table(["VARIABLE", "READY", "CHANGED", "NAME", "DESCRIPTION"], map(_row, found))
        else:
            typer.echo(f"The account {account} has no secrets yet: devbox-secrets seal NAME -n {account} --apply")

    show(output, [_data(each) for each in found], text)


@commands.command()
def get(at: Target, name: Name, output: Output = Format.TEXT) -> None:
    """Show one secret of an account: everything but its value, which no one can ask for."""
    from devbox_secrets.cli import accountsecrets

    account = at.home()
    found = at.ask(lambda cluster: accountsecrets.find(cluster, account, name))
    data = _data(found)
    rows = [[name, str(value)] for name, value in data.items() if value is not None]
    show(output, data, lambda: print_table(["FIELD", "VALUE"], rows))


@commands.command(context_settings=TAKES_A_VALUE)
def update(
    ctx: typer.Context,
    at: Target,
    name: Name,
    from_file: FromFile = None,
    exact: Exact = False,
    force: ForceConflicts = False,
) -> None:
    """Give a secret a new value, and keep what else its AccountSecret says.

    The value is read from standard input, from --from-file, or at a hidden prompt.

    Example: devbox-secrets update GITHUB_TOKEN < token
    """
    from devbox_secrets.cli import accountsecrets

    refuse_more_arguments(ctx)
    account = at.home()
    before = at.ask(lambda cluster: accountsecrets.find(cluster, account, name))
    key = at.sealing_key()
    sealed = key.seal(read_value(before.variable, from_file, exact=exact), account=account, name=before.variable)
    body = accountsecrets.resealed(before, sealed)
    after = at.ask(lambda cluster: accountsecrets.apply(cluster, body, force=force))
    typer.echo("\n".join(accountsecrets.changes(before, after)))


@commands.command()
def delete(
    at: Target,
    name: Name,
    yes: Yes = False,
) -> None:
    """Delete a secret. New devboxes don't have it then; those that run keep it until they end."""
    from devbox_secrets.cli import accountsecrets

    account = at.home()
    found = at.ask(lambda cluster: accountsecrets.find(cluster, account, name))
    question = f"Delete {found.variable} ({found.name}) of the account {account}?"
    confirm(question, yes=yes, unasked=f"say --yes to delete {found.variable}")
    at.ask(lambda cluster: accountsecrets.delete(cluster, found))
    typer.echo(f"{found.full_name} deleted in {account}: {found.variable}")


def _data(found: "AccountSecret") -> dict[str, Any]:
    ready = found.ready
    return {
        "variable": found.variable,
        "name": found.name,
        "account": found.account,
        "ready": None if ready is None else found.synced,
        "reason": None if ready is None else ready.reason,
        "message": None if ready is None else ready.message,
        "changedAt": found.status.changed_at,
        "keyId": found.status.key_id,
        "description": found.spec.description,
        "rotateAfter": found.spec.rotate_after,
        "rotationDue": found.status.overdue if found.spec.rotate_after else None,
        "created": found.created,
    }


def _row(found: "AccountSecret") -> list[str]:
    from devbox_secrets.manifest import object_name

    return [
        found.variable,
        found.synced_text,
        age(found.status.changed_at, datetime.now(UTC)),
        "" if found.name == object_name(found.variable) else found.name,
        found.spec.description or "",
    ]
