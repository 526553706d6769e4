"""`version`, `completion`, `help`: about the program itself."""

import os
from enum import StrEnum
from typing import Annotated, Any

import typer

from devbox_secrets.cli.kit.app import COMPLETE_VARIABLE, Commands, client_version
from devbox_secrets.cli.kit.command import NAME
from devbox_secrets.cli.kit.options import ClusterOptions
from devbox_secrets.cli.kit.output import Format, Output, note, print_table, show
from devbox_secrets.errors import DevboxSecretsError

commands = Commands("About")
#: Whoever asks for a version doesn't wait for a cluster that is down.
_SECONDS = 5


class Shell(StrEnum):
    """The shells that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@commands.command()
async def version(
    at: ClusterOptions,
    client: Annotated[bool, typer.Option("--client", help="Only the command's own; asks no cluster.")] = False,
    output: Output = Format.TEXT,
) -> None:
    """Show the versions of this command and of the operator."""
    data: dict[str, str | None] = {"client": client_version()}
    if not client:
        data["operator"] = await _operator_version(at)
    rows = [[name, value or "unknown"] for name, value in data.items()]
    show(output, data, lambda: print_table(["", ""], rows))


async def _operator_version(at: ClusterOptions) -> str | None:
    """Give the version of the installation; None, after a note, where it can't be read."""
    import asyncio

    from devbox_secrets.api.names import NAMESPACES_PATH, PUBLIC_KEYS_CONFIGMAP

    # Everyone can read that one.
    path = f"{NAMESPACES_PATH}/{at.operator_namespace}/configmaps/{PUBLIC_KEYS_CONFIGMAP}"
    try:
        async with at.connect() as client, asyncio.timeout(_SECONDS):
            metadata: dict[str, Any] = (await client.request("GET", path))["metadata"]
    except DevboxSecretsError as error:
        note(str(error))
    except TimeoutError:
        note(f"the cluster didn't respond within {_SECONDS} seconds")
    else:
        return (metadata.get("labels") or {}).get("app.kubernetes.io/version")
    return None


@commands.command()
def completion(shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="Your shell.")]) -> None:
    """Print the script by which a shell completes commands, options and names.

    After `kubectl devbox-secrets`, kubectl's own completion does the same without it.

    Example: source <(devbox-secrets completion bash)

    Example: devbox-secrets completion zsh > "${fpath[1]}/_devbox-secrets"

    Example: devbox-secrets completion fish > ~/.config/fish/completions/devbox-secrets.fish
    """
    # The scripts are typer's, which prints them when it is asked so; they depend on the program's name alone.
    scripts = typer.Typer(add_completion=True)
    scripts.command()(lambda: None)
    os.environ[COMPLETE_VARIABLE] = f"source_{shell}"
    try:
        scripts([], prog_name=NAME, complete_var=COMPLETE_VARIABLE)
    finally:
        del os.environ[COMPLETE_VARIABLE]


@commands.command("help")
def help_(
    ctx: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="Such as seal, or keys rotate.")] = None,
) -> None:
    """Show the help of a command."""
    root = ctx.find_root()
    root.command.main([*(words or []), "--help"], prog_name=root.info_name)
