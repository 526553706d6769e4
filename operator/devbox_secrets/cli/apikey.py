"""`token`: an API key for the gateway, which is a bounded ServiceAccount token. Imports its neighbours at once."""

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from devbox_secrets.api import duration as read_duration
from devbox_secrets.cli.output import Format, Output, Yes, confirm, note, show
from devbox_secrets.cli.program import Commands
from devbox_secrets.cli.serviceaccounts import Key, Role, ServiceAccount, base_url
from devbox_secrets.cli.target import Target
from devbox_secrets.errors import InvalidDuration

if TYPE_CHECKING:
    from devbox_secrets.cluster import Cluster

commands = Commands()
#: What the API server takes (TokenRequest, authentication.k8s.io/v1).
_SHORTEST = timedelta(minutes=10)


@commands.command()
def token(
    at: Target,
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
        _revoke(at, name, yes=yes)
        return
    account, seconds = at.home(), _seconds(duration)

    async def ask(cluster: "Cluster") -> tuple[Key, str | None]:
        it = ServiceAccount(cluster, account, name)
        if home := await it.other_home():
            note(f"a label gives {account} to the account {home}: make keys there, or name it with each request")
        for done in await it.make(role or Role.EDIT) if create else ():
            note(done)
        return await it.issue(seconds), await base_url(cluster, at.operator_namespace)

    key, url = at.ask(ask)
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


def _revoke(at: Target, name: str, *, yes: bool) -> None:
    account = at.home()
    uid = at.ask(lambda cluster: ServiceAccount(cluster, account, name).find())
    confirm(
        f"Delete the ServiceAccount {name} of the account {account}, and so end all of its keys?",
        yes=yes,
        unasked=f"say --yes to end the keys of {name}",
    )
    at.ask(lambda cluster: ServiceAccount(cluster, account, name).delete(uid))
    note(f"the keys of {account}/{name} have ended")


def _seconds(text: str) -> int:
    asked = read_duration(text)
    if asked < _SHORTEST:
        raise InvalidDuration(f"{text} is too short: a key lasts at least 10m")
    return int(asked.total_seconds())
