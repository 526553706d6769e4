"""`usage`: shows which devboxes have which secrets, and which secrets no devbox has."""

from typing import TYPE_CHECKING

import typer

from devbox_secrets.cli.kit.app import Commands
from devbox_secrets.cli.kit.options import AccountOptions
from devbox_secrets.cli.kit.output import Format, Output, note, print_table, progress, show

if TYPE_CHECKING:
    from devbox_secrets.cli.resources.devboxes import Delivery, Devbox
    from devbox_secrets.kube.client import Client

commands = Commands("Devboxes")


@commands.command()
async def usage(at: AccountOptions, output: Output = Format.TEXT) -> None:
    """Show which devboxes have which secrets.

    It also lists the secrets that no running devbox has.
    """
    from devbox_secrets.cli.resources import account_secrets, devboxes

    account = at.home()
    async with at.connect() as client:
        secrets = await account_secrets.list_all(client, account)
        deliveries = [each for secret in secrets if (each := devboxes.delivery_of(secret))]
        found = await _devboxes(client, account, deliveries)
    used = {variable for _, variables in found for variable in variables}
    unused = [name for name in dict.fromkeys(secret.spec.name for secret in secrets) if name and name not in used]
    data = {
        "account": account,
        "devboxes": [
            {"namespace": devbox.namespace, "name": devbox.name, "secrets": variables, "files": bool(devbox.files)}
            for devbox, variables in found
        ],
        "unused": unused,
    }

    def text() -> None:
        if found:
            delivered = [each.variable for each in deliveries]
            rows = [
                [f"{devbox.namespace}/{devbox.name}", str(len(variables)), _which(devbox, variables, delivered)]
                for devbox, variables in found
            ]
            print_table(["DEVBOX", "COUNT", "SECRETS"], rows)
        else:
            typer.echo(f"The account {account} has no running devboxes.")
        if unused:
            typer.echo(f"\nSecrets that no running devbox has: {', '.join(unused)}")

    show(output, data, text)


async def _devboxes(client: "Client", account: str, deliveries: "list[Delivery]") -> "list[tuple[Devbox, list[str]]]":
    """Read the account's devboxes and the variables of each, sorted by name."""
    from devbox_secrets.cli.resources import devboxes

    having = {devboxes.Has.CURRENT, devboxes.Has.OLDER}
    found: list[tuple[Devbox, list[str]]] = []

    def take(devbox: "Devbox") -> None:
        found.append((devbox, [each.variable for each in deliveries if devbox.has(each) in having]))

    with progress("pods") as count:
        namespaces = await devboxes.members(client, account, note)
        await devboxes.read(client, namespaces, take, note, count)
    return sorted(found, key=lambda each: (each[0].namespace, each[0].name))


def _which(devbox: "Devbox", variables: list[str], delivered: list[str]) -> str:
    """Return the variables that a devbox has, or those that it lacks if that is shorter."""
    lacking = [variable for variable in delivered if variable not in set(variables)]
    other_names = {variable: name for name, variable in devbox.names.items()}
    if not variables:
        which = "none"
    elif not lacking:
        which = "all"
    elif len(lacking) < len(variables):
        which = f"all but {', '.join(lacking)}"
    else:
        shown = [f"{other_names[each]}={each}" if each in other_names else each for each in variables]
        which = ", ".join(shown)
    return (
        f"{which} (also as files)" if devbox.files and devbox.env else f"{which} (as files)" if devbox.files else which
    )
