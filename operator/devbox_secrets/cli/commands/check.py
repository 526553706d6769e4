"""`check`: checks whether an installation is healthy and secure."""

from typing import Annotated

import typer

from devbox_secrets.cli.kit.app import Commands, Exit
from devbox_secrets.cli.kit.options import ScopeOptions
from devbox_secrets.cli.kit.output import Format, Output, print_table, show

commands = Commands("Administration")


@commands.command()
async def check(
    at: ScopeOptions,
    output: Output = Format.TEXT,
    tenants: Annotated[
        bool, typer.Option("--tenants", help="Report AccountSecrets that aren't Ready as errors.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 3 on warnings, too.")] = False,
) -> None:
    """Check whether the installation is healthy and secure.

    The command only reads, with your own permissions; a check that needs more is a warning. It checks the
    AccountSecrets and devboxes of the whole cluster, or of --account. An AccountSecret that isn't Ready is a warning,
    because its team usually has to fix it; with --tenants it is an error.

    Exit codes: 0 if there are no errors; 3 if there are errors, or with --strict, warnings.
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
    show(output, data, lambda: print_table(["LEVEL", "CHECK", "DETAILS"], rows))
    if any(each.level == "error" or (strict and each.level == "warning") for each in found):
        raise typer.Exit(Exit.UNHEALTHY)
