"""`usage`: which devboxes have which secrets, and which secrets none has. Imports its neighbours at once."""

from typing import TYPE_CHECKING

import typer

from devbox_secrets.cli.output import Format, Output, note, print_table, progress, show
from devbox_secrets.cli.program import Commands
from devbox_secrets.cli.target import Target

if TYPE_CHECKING:
    from devbox_secrets.cli.accountsecrets import AccountSecret
    from devbox_secrets.cli.devboxes import Devbox
    from devbox_secrets.cluster import Cluster

commands = Commands()


@commands.command()
def usage(at: Target, output: Output = Format.TEXT) -> None:
    """Show which devboxes have which secrets, and which secrets no running devbox has."""
    account = at.home()

    async def ask(cluster: "Cluster") -> "tuple[list[AccountSecret], list[tuple[Devbox, list[str]]]]":
        from devbox_secrets.cli import accountsecrets, devboxes

        secrets = await accountsecrets.list_all(cluster, account)
        found: list[tuple[Devbox, list[str]]] = []

        def take(devbox: "Devbox") -> None:
            having = {devboxes.Has.PRESENT, devboxes.Has.OLDER}
            found.append((devbox, [secret.variable for secret in secrets if devbox.has(secret) in having]))

        with progress("pods") as count:
            namespaces = await devboxes.members(cluster, account, note)
            await devboxes.read(cluster, namespaces, take, note, count)
        return secrets, sorted(found, key=lambda each: (each[0].namespace, each[0].name))

    secrets, found = at.ask(ask)
    everything = [secret.variable for secret in secrets]
    given = [secret.variable for secret in secrets if secret.given_since]
    used = {variable for _, variables in found for variable in variables}
    unused = [variable for variable in dict.fromkeys(everything) if variable not in used]
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
            rows = [
                [f"{devbox.namespace}/{devbox.name}", str(len(variables)), _which(devbox, variables, given)]
                for devbox, variables in found
            ]
            print_table(["DEVBOX", "SECRETS", "WHICH"], rows)
        else:
            typer.echo(f"No devbox of the account {account} runs.")
        if unused:
            typer.echo(f"\nNo running devbox has: {', '.join(unused)}")

    show(output, data, text)


def _which(devbox: "Devbox", variables: list[str], given: list[str]) -> str:
    """Name the variables that a devbox has, or those that it lacks where that says it shorter."""
    lacking = [variable for variable in given if variable not in set(variables)]
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
