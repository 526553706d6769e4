"""Shell completion from the kubeconfig and the cluster; if they can't be read, there are no candidates."""

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

#: Nobody waits longer for a completion.
_SECONDS = 2


def complete_contexts(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the kubeconfig's contexts that start with the typed text."""
    import yaml

    given = ctx.params.get("kubeconfig")
    paths = [str(given)] if given else (os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep)
    names: dict[str, None] = {}
    for path in filter(None, paths):
        try:
            content = yaml.safe_load(Path(path).expanduser().read_bytes())
            names |= dict.fromkeys(str(each["name"]) for each in content["contexts"])
        except Exception:  # noqa: BLE001, S112 - pyyaml raises any exception, such as KeyError for `!!bool x`
            continue  # there may be other files; a command reports what is wrong with this one
    # Skip names that a shell would split or expand.
    return [name for name in names if name.startswith(incomplete) and name == shlex.quote(name)]


def from_cluster(
    connection: "AbstractAsyncContextManager[Client]",
    incomplete: str,
    read: "Callable[[Client], Awaitable[Iterable[str]]]",
) -> list[str]:
    """Return the names that `read` finds in the cluster and that start with the typed text."""
    import asyncio

    async def found() -> Iterable[str]:
        async with asyncio.timeout(_SECONDS), connection as client:
            return await read(client)

    try:
        return [each for each in run(found()) if each.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - an error would disturb the typing; the command itself reports it
        return []
