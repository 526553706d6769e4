"""`check`: whether an installation is healthy and safe, line by line."""

from typing import Annotated

import typer

from devbox_secrets.cli.kit.app import Commands, Exit
from devbox_secrets.cli.kit.options import AccountOptions
from devbox_secrets.cli.kit.output import Format, Output, print_table, show

commands = Commands("Administration")


@commands.command()
async def check(
    at: AccountOptions,
    output: Output = Format.TEXT,
    tenants: Annotated[
        bool, typer.Option("--tenants", help="Let AccountSecrets that aren't Ready count as errors.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Let a warning count as an error does.")] = False,
) -> None:
    """Check whether the installation is healthy and safe; each line is ok, warning or error.

    It reads, with your own rights; what those don't show is a warning. AccountSecrets and devboxes
    are those of the whole cluster, or of the --account. An AccountSecret that isn't Ready is most
    likely a mistake of its team, and a warning; with --tenants it's an error.

    Exit codes: 0, no line is an error; 3, one is, or with --strict a warning.
    """
    import asyncio
    from dataclasses import replace

    from devbox_secrets.cli.health.checks import CHECKS
    from devbox_secrets.cli.health.key_readers import key_readers
    from devbox_secrets.cli.health.probe import Level, Probe, findings

    async with at.connect() as client:
        probe = Probe(client, at.operator_namespace, at.home() if at.account else None)
        checks = {**CHECKS, "key readers": key_readers}
        groups = await asyncio.gather(*(findings(probe, name, each) for name, each in checks.items()))
    found = [finding for group in groups for finding in group]
    if tenants:
        found = [replace(each, level=Level.ERROR) if each.is_tenants else each for each in found]
    data = [{"level": each.level.value, "check": each.check, "text": each.text} for each in found]
    rows = [[each.level.value, each.check, each.text] for each in found]
    show(output, data, lambda: print_table(["LEVEL", "CHECK", "FOUND"], rows))
    if any(each.level == "error" or (strict and each.level == "warning") for each in found):
        raise typer.Exit(Exit.UNHEALTHY)
