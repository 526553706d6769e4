"""`seal`: a value in, a manifest out. Imports its neighbours at once, sealing later."""

from enum import StrEnum
from typing import Annotated

import typer

from devbox_secrets.cli.output import as_text
from devbox_secrets.cli.program import Commands
from devbox_secrets.cli.target import ForceConflicts, PublicKey, Target
from devbox_secrets.cli.values import TAKES_A_VALUE, Exact, FromFile, read_value, refuse_more_arguments

commands = Commands()


class Output(StrEnum):
    """How a sealed value is printed."""

    YAML = "yaml"
    JSON = "json"
    RAW = "raw"


@commands.command(context_settings=TAKES_A_VALUE)
def seal(
    ctx: typer.Context,
    at: Target,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The environment variable.")],
    from_file: FromFile = None,
    public_key: PublicKey = None,
    output: Annotated[
        Output | None,
        typer.Option(
            "--output", "-o",
            help="A manifest, or the sealed value alone; YAML, unless --apply tells what changed.",
            show_default=False,
        ),
    ] = None,
    description: Annotated[
        str | None, typer.Option(help="What the secret is for.")
    ] = None,
    rotate_after: Annotated[
        str | None, typer.Option(metavar="90d", help="How old the value may become.")
    ] = None,
    exact: Exact = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply it on the cluster, with your own rights, and tell what changed.")
    ] = False,
    force: ForceConflicts = False,
) -> None:  # fmt: skip
    """Seal a value for an account's devboxes and print the manifest for kubectl.

    The value is read from standard input, from --from-file, or at a hidden prompt.

    Example: devbox-secrets seal GITHUB_TOKEN < token | kubectl apply -f -

    With --apply the AccountSecret is as the options say: a description that isn't given is
    removed. The command update changes the value alone.
    """
    from devbox_secrets.api import AccountSecretSpec, check_description, check_rotate_after, check_variable
    from devbox_secrets.cli import accountsecrets
    from devbox_secrets.manifest import manifest

    refuse_more_arguments(ctx)
    check_variable(name)
    check_description(description)
    check_rotate_after(rotate_after)
    account = at.home()
    # Before the value is asked for: whatever may be wrong with the cluster is told first.
    before = at.ask(lambda cluster: accountsecrets.by_variable(cluster, account, name)) if apply else None
    key = at.sealing_key(public_key)
    sealed = key.seal(read_value(name, from_file, exact=exact), account=account, name=name)
    spec = AccountSecretSpec(name=name, sealed=sealed, description=description, rotate_after=rotate_after)
    body = manifest(account, spec, before.name if before else None)
    if apply:
        after = at.ask(lambda cluster: accountsecrets.apply(cluster, body, force=force))
        if output is None:
            typer.echo("\n".join(accountsecrets.changes(before, after)))
            return
    text = f"{sealed}\n" if output is Output.RAW else as_text(body, output or Output.YAML)
    typer.echo(text, nl=False)
