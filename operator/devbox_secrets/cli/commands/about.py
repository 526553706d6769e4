"""`version`, `completion`, `help`: commands about the program itself."""

import os
from enum import StrEnum
from typing import Annotated, Any

import typer

from devbox_secrets.cli.kit.app import COMPLETE_VARIABLE, Commands, client_version
from devbox_secrets.cli.kit.command import NAME
from devbox_secrets.cli.kit.options import ClusterOptions, not_installed
from devbox_secrets.cli.kit.output import Format, Output, note, print_table, show
from devbox_secrets.errors import DevboxSecretsError, NotFound

commands = Commands("About")
#: If the cluster is down, don't delay the version for long.
_SECONDS = 5


class Shell(StrEnum):
    """The shells with completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@commands.command()
async def version(
    at: ClusterOptions,
    client: Annotated[
        bool, typer.Option("--client", help="Show only the client version; no cluster is needed.")
    ] = False,
    output: Output = Format.TEXT,
) -> None:
    """Show the versions of the client and the operator."""
    data: dict[str, str | None] = {"client": client_version()}
    if not client:
        data["operator"] = await _operator_version(at)
    rows = [[name, value or "unknown"] for name, value in data.items()]
    show(output, data, lambda: print_table(["", ""], rows))


async def _operator_version(at: ClusterOptions) -> str | None:
    """Return the operator's version, or None after a message if it can't be read."""
    import asyncio

    from devbox_secrets.api.names import NAMESPACES_PATH, PUBLIC_KEYS_CONFIGMAP

    # Every authenticated user can read this ConfigMap.
    path = f"{NAMESPACES_PATH}/{at.operator_namespace}/configmaps/{PUBLIC_KEYS_CONFIGMAP}"
    try:
        async with at.connect() as client, asyncio.timeout(_SECONDS):
            metadata: dict[str, Any] = (await client.request("GET", path))["metadata"]
    except NotFound as error:
        note(str(not_installed(at.operator_namespace, error)))
    except DevboxSecretsError as error:
        note(str(error))
    except TimeoutError:
        note(f"the cluster didn't respond within {_SECONDS} seconds")
    else:
        return (metadata.get("labels") or {}).get("app.kubernetes.io/version")
    return None


@commands.command()
def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print the shell's completion script.

    It completes commands, options and names. For `kubectl devbox-secrets`, kubectl's own completion is enough.

    Example: source <(devbox-secrets completion bash)

    Example: devbox-secrets completion zsh > "${fpath[1]}/_devbox-secrets"

    Example: devbox-secrets completion fish > ~/.config/fish/completions/devbox-secrets.fish
    """
    # Typer prints its completion script if this variable is set; the script depends only on the program's name.
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
    words: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="The command, such as seal or keys rotate.")
    ] = None,
) -> None:
    """Show the help of a command."""
    root = ctx.find_root()
    root.command.main([*(words or []), "--help"], prog_name=root.info_name)
