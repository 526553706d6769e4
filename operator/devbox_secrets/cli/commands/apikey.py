"""`apikey`: creates, lists and revokes API keys for the gateway, which are tokens of a ServiceAccount."""

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
#: The shortest that the API server takes (TokenRequest, authentication.k8s.io/v1).
_MIN_DURATION = timedelta(minutes=10)
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The ServiceAccount whose keys they are, such as ci.",
        autocompletion=complete_service_accounts,
    ),
]  # fmt: skip


@commands.command()
async def create(
    at: AccountOptions,
    name: Name,
    role: Annotated[
        Role | None,
        typer.Option(
            help="What it may do with the account's secrets: edit them, or only view; edit, if it has none yet."
        ),
    ] = None,
    duration: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the key is valid, such as 90d, 12h or 30m.")
    ] = "24h",
    output: Output = Format.TEXT,
) -> None:
    """Create an API key: a ServiceAccount's token for this account, which expires.

    The ServiceAccount and its role are created where they don't exist; this needs an admin's rights. For
    later keys Kubernetes' role edit is enough. The key alone is printed on standard output.

    Example: export RUNLOOP_API_KEY=$(devbox-secrets apikey create ci)
    """
    account, seconds = at.home(), _seconds(duration)
    async with at.connect() as client:
        service_account = ServiceAccount(client, account, name)
        if home := await service_account.other_home():
            note(f"a label gives {account} to the account {home}: create keys there, or name it with each request")
        key = await _issue(service_account, role, seconds)
        url = await base_url(client, at.operator_namespace)
    shorter = ", which is the longest that the API server gives" if key.seconds < seconds else ""
    note(f"a key of {account}/{name}, until {key.expires}{shorter}")
    if sys.stdout.isatty():
        note("it stays on this screen; better give it to a variable at once: export RUNLOOP_API_KEY=$(…)")
    data = {
        "account": account,
        "serviceAccount": name,
        "token": key.token,
        "expires": key.expires,
        "baseUrl": url,
    }
    show(output, data, lambda: typer.echo(key.token))


async def _issue(service_account: ServiceAccount, role: Role | None, seconds: int) -> Key:
    """Create what is missing, then a key; callers who may not read roles get a key of an existing ServiceAccount."""
    try:
        for sentence in await service_account.create(role):
            note(sentence)
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

    Kubernetes doesn't store their keys: each one is valid until it expires, or until all of its
    ServiceAccount's are revoked.
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
            typer.echo(f"The account {account} has no API keys yet: devbox-secrets apikey create NAME -n {account}")

    data = [{"serviceAccount": each.name, "role": each.role, "created": each.created} for each in found]
    show(output, data, text)


@commands.command()
async def revoke(at: AccountOptions, name: Name, yes: Yes = False) -> None:
    """Revoke all API keys of a ServiceAccount: delete what `apikey create` created."""
    account = at.home()
    async with at.connect() as client:
        service_account = ServiceAccount(client, account, name)
        uid = await service_account.find()
        confirm(
            f"Delete the ServiceAccount {name} of the account {account}, and so revoke all of its keys?",
            yes=yes,
            unasked=f"pass --yes to revoke the keys of {name}",
        )
        await service_account.delete(uid)
    note(f"the keys of {account}/{name} are revoked")


def _seconds(text: str) -> int:
    duration = parse_duration(text)
    if duration < _MIN_DURATION:
        raise InvalidDuration(f"{text} is too short: a key is valid for at least 10m")
    return int(duration.total_seconds())
