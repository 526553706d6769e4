"""Candidates that the shell completes: from the kubeconfig or the cluster; none, quickly, where those can't be read."""

import os
import shlex
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from devbox_secrets.cli.kit.run import run

if TYPE_CHECKING:
    from devbox_secrets.kube.client import Client

#: Nobody waits longer for a candidate.
_SECONDS = 2


def complete_contexts(ctx: typer.Context, incomplete: str) -> list[str]:
    """Give the kubeconfig's contexts that begin so."""
    import yaml

    given = ctx.params.get("kubeconfig")
    paths = [str(given)] if given else (os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep)
    names: dict[str, None] = {}
    for path in filter(None, paths):
        try:
            content = yaml.safe_load(Path(path).expanduser().read_bytes())
            names |= dict.fromkeys(str(each["name"]) for each in content["contexts"])
        except (OSError, RuntimeError, yaml.YAMLError, KeyError, TypeError, ValueError):
            continue  # a file of several; what is wrong with it, a command says
    # A name that a shell would take apart, or run, is better typed by hand.
    return [name for name in names if name.startswith(incomplete) and name == shlex.quote(name)]


def from_cluster(
    connection: "AbstractAsyncContextManager[Client]",
    incomplete: str,
    read: "Callable[[Client], Awaitable[Iterable[str]]]",
) -> list[str]:
    """Give what `read` finds in a cluster, as far as it begins so."""
    import asyncio

    async def found() -> Iterable[str]:
        async with asyncio.timeout(_SECONDS), connection as client:
            return await read(client)

    try:
        return [each for each in run(found()) if each.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - whatever it is, someone is typing: the command itself will say it
        return []
