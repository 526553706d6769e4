"""`token`: creates and revokes API keys for the gateway, which are tokens of a ServiceAccount."""

import sys
from datetime import timedelta
from typing import Annotated

import typer

from devbox_secrets.api.validation import parse_duration
from devbox_secrets.cli.kit.app import Commands
from devbox_secrets.cli.kit.options import AccountOptions
from devbox_secrets.cli.kit.output import Format, Output, Yes, confirm, note, show
from devbox_secrets.cli.resources.service_accounts import Role, ServiceAccount, base_url
from devbox_secrets.errors import InvalidDuration

commands = Commands()
#: The shortest that the API server takes (TokenRequest, authentication.k8s.io/v1).
_MIN_DURATION = timedelta(minutes=10)


@commands.command()
async def token(
    at: AccountOptions,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The ServiceAccount whose token it is, such as ci.")],
    create: Annotated[
        bool, typer.Option("--create", help="Make the ServiceAccount and bind its role, if they aren't there.")
    ] = False,
    role: Annotated[
        Role | None, typer.Option(help="With --create: edit, which may also write, or view. Edit, if not said.")
    ] = None,
    duration: Annotated[
        str, typer.Option(metavar="24h", help="How long the key lasts: days, hours or minutes, such as 90d or 30m.")
    ] = "24h",
    revoke: Annotated[bool, typer.Option("--revoke", help="End all of its keys: delete what --create made.")] = False,
    yes: Yes = False,
    output: Output = Format.TEXT,
) -> None:
    """Make an API key for the gateway: a ServiceAccount's token for this account, which ends by itself.

    The key alone is printed on standard output, so that a variable or a file can take it.

    Example: export RUNLOOP_API_KEY=$(devbox-secrets token ci --create)
    """
    if revoke and create:
        raise typer.BadParameter("--create and --revoke are two things to do")
    if role and not create:
        raise typer.BadParameter("--role is for --create; what is there already keeps the role that it has")
    if revoke:
        await _revoke(at, name, yes=yes)
        return
    account, seconds = at.home(), _seconds(duration)
    async with at.connect() as client:
        service_account = ServiceAccount(client, account, name)
        if home := await service_account.other_home():
            note(f"a label gives {account} to the account {home}: make keys there, or name it with each request")
        for sentence in await service_account.create(role or Role.EDIT) if create else ():
            note(sentence)
        key = await service_account.issue(seconds)
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


async def _revoke(at: AccountOptions, name: str, *, yes: bool) -> None:
    account = at.home()
    async with at.connect() as client:
        service_account = ServiceAccount(client, account, name)
        uid = await service_account.find()
        confirm(
            f"Delete the ServiceAccount {name} of the account {account}, and so end all of its keys?",
            yes=yes,
            unasked=f"say --yes to end the keys of {name}",
        )
        await service_account.delete(uid)
    note(f"the keys of {account}/{name} have ended")


def _seconds(text: str) -> int:
    duration = parse_duration(text)
    if duration < _MIN_DURATION:
        raise InvalidDuration(f"{text} is too short: a key lasts at least 10m")
    return int(duration.total_seconds())
