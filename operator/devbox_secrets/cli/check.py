"""`check`: whether an installation is healthy and safe, line by line. Imports its neighbours at once."""

from typing import TYPE_CHECKING, Annotated

import typer

from devbox_secrets.cli.output import Format, Output, print_table, show
from devbox_secrets.cli.program import Commands, Exit
from devbox_secrets.cli.target import Target

if TYPE_CHECKING:
    from devbox_secrets.cli.look import Finding
    from devbox_secrets.cluster import Cluster

commands = Commands()


@commands.command()
def check(
    at: Target,
    output: Output = Format.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Let a warning count as an error does.")] = False,
) -> None:
    """Check whether the installation is healthy and safe; each line is ok, warning or error.

    It reads, with your own rights; what those don't show is a warning. AccountSecrets and devboxes
    are those of the whole cluster, or of the --account.

    Exit codes: 0, no line is an error; 3, one is, or with --strict a warning.
    """

    async def ask(cluster: "Cluster") -> "list[Finding]":
        import asyncio

        from devbox_secrets.cli import checks, look, readers

        looking = look.Look(cluster, at.operator_namespace, at.home() if at.account else None)
        every = {**checks.CHECKS, "key readers": readers.readers}
        found = await asyncio.gather(*(look.findings(looking, what, one) for what, one in every.items()))
        return [finding for group in found for finding in group]

    found = at.ask(ask)
    data = [{"level": each.level.value, "check": each.what, "text": each.text} for each in found]
    rows = [[each.level.value, each.what, each.text] for each in found]
    show(output, data, lambda: print_table(["LEVEL", "CHECK", "FOUND"], rows))
    if any(each.level == "error" or (strict and each.level == "warning") for each in found):
        raise typer.Exit(Exit.NOT_WELL)
