"""`apikey`: creates, lists and revokes API keys for the gateway, which are ServiceAccount tokens."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from devbox_secrets.api.validation import parse_duration
from devbox_secrets.cli.kit.app import Commands
from devbox_secrets.cli.kit.options import AccountOptions
from devbox_secrets.cli.kit.output import Format, Output, Yes, age, confirm, note, print_table, show
from devbox_secrets.cli.resources.arguments import complete_service_accounts
from devbox_secrets.cli.resources.service_accounts import Key, Role, ServiceAccount, base_url, list_ours
from devbox_secrets.errors import Forbidden, InvalidDuration, NotFound

commands = Commands("Administration", name="apikey", help="Manage API keys for the gateway.", no_args_is_help=True)
#: The API server's minimum (TokenRequest, authentication.k8s.io/v1).
_MIN_DURATION = timedelta(minutes=10)
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The ServiceAccount of the keys, such as ci.",
        autocompletion=complete_service_accounts,
    ),
]  # fmt: skip


@commands.command()
async def create(
    at: AccountOptions,
    name: Name,
    role: Annotated[
        Role | None,
        typer.Option(help="Permissions on the account's secrets; defaults to the existing role, or edit."),
    ] = None,
    duration: Annotated[
        str, typer.Option(metavar="DURATION", help="Lifetime of the key, such as 90d, 12h or 30m.")
    ] = "24h",
    output: Output = Format.TEXT,
) -> None:
    """Create an API key for the gateway.

    The key is an expiring token of a ServiceAccount in the account's namespace. The first key creates the
    ServiceAccount and its RoleBinding, which needs the ClusterRole admin in the namespace. Later keys need only edit.

    Only the key is printed on standard output.

    Example: export RUNLOOP_API_KEY=$(devbox-secrets apikey create ci)
    """
    account, seconds = at.home(), _seconds(duration)
    async with at.connect() as client:
        service_account = ServiceAccount(client, account, name)
        if home := await service_account.other_home():
            note(
                f"the namespace {account} belongs to the account {home}; create keys in {home}, or name the account in"
                " each request"
            )
        key = await _issue(service_account, role, seconds)
        url = await base_url(client, at.operator_namespace)
    shorter = " (the API server's maximum)" if key.seconds < seconds else ""
    note(f"created an API key for {account}/{name}; it expires at {key.expires}{shorter}")
    if sys.stdout.isatty():
        note("the key is visible in this terminal; store it in a variable instead: export RUNLOOP_API_KEY=$(…)")
    data = {
        "account": account,
        "serviceAccount": name,
        "token": key.token,
        "expires": key.expires,
        "baseUrl": url,
    }
    show(output, data, lambda: typer.echo(key.token))


async def _issue(service_account: ServiceAccount, role: Role | None, seconds: int) -> Key:
    """Create missing objects, then a key. A caller who can't read RoleBindings needs an existing ServiceAccount."""
    try:
        for message in await service_account.create(role):
            note(message)
    except Forbidden as forbidden:
        if role:
            raise
        try:
            return await service_account.issue(seconds)
        except NotFound:
            raise forbidden from None
    return await service_account.issue(seconds)


@commands.command("list")
async def list_(at: AccountOptions, output: Output = Format.TEXT) -> None:
    """List the ServiceAccounts that `apikey create` created.

    Kubernetes doesn't store the keys themselves. A key is valid until it expires or `apikey revoke` deletes its
    ServiceAccount.
    """
    account = at.home()
    async with at.connect() as client:
        found = await list_ours(client, account)

    def text() -> None:
        if found:
            now = datetime.now(UTC)
            rows = [
                [each.name, "unknown" if each.role is None else each.role, age(each.created, now)] for each in found
            ]
            print_table(["NAME", "ROLE", "AGE"], rows)
        else:
            typer.echo(
                f"The account {account} has no API keys. Create one: devbox-secrets apikey create NAME -n {account}"
            )

    data = [{"serviceAccount": each.name, "role": each.role, "created": each.created} for each in found]
    show(output, data, text)


@commands.command()
async def revoke(at: AccountOptions, name: Name, yes: Yes = False) -> None:
    """Revoke all API keys of a ServiceAccount.

    This deletes the ServiceAccount and the RoleBindings that `apikey create` created.
    """
    account = at.home()
    async with at.connect() as client:
        service_account = ServiceAccount(client, account, name)
        uid = await service_account.find()
        confirm(
            f"Delete the ServiceAccount {name} in the account {account} and revoke all its keys?",
            yes=yes,
            unasked=f"pass --yes to revoke the keys of {name}",
        )
        await service_account.delete(uid)
    note(f"revoked all keys of {account}/{name}")


def _seconds(text: str) -> int:
    duration = parse_duration(text)
    if duration < _MIN_DURATION:
        raise InvalidDuration(f"{text} is too short; the minimum is 10m")
    return int(duration.total_seconds())
