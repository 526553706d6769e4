"""`import`: every line of a .env file, sealed. Imports its neighbours at once, the rest when called."""

import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devbox_secrets.cli.output import as_text, print_table, progress
from devbox_secrets.cli.program import Commands, Exit
from devbox_secrets.cli.target import ForceConflicts, PublicKey, Target
from devbox_secrets.errors import DevboxSecretsError, InvalidValue

if TYPE_CHECKING:
    from devbox_secrets.cli.accountsecrets import AccountSecret
    from devbox_secrets.cli.envfile import Line
    from devbox_secrets.cluster import Cluster
    from devbox_secrets.sealing import SealingKey

commands = Commands()
_AT_ONCE = 8
_TO_COME = {"create": "to create", "change": "to change"}


class Manifests(StrEnum):
    """How manifests are printed."""

    YAML = "yaml"
    JSON = "json"


@dataclass(frozen=True)
class _Step:
    """A line, and what becomes of it."""

    line: "Line"
    what: str
    why: str = ""
    body: dict[str, Any] | None = None
    """The manifest, unless the line is refused."""

    def refused(self, why: object) -> "_Step":
        return replace(self, what="refused", why=" ".join(str(why).split()), body=None)


@commands.command("import")
def import_(
    at: Target,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The file; - is standard input."),
    ] = Path(".env"),
    apply: Annotated[bool, typer.Option("--apply", help="Apply what is sealed, with your own rights.")] = False,
    output_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", file_okay=False, help="Write a manifest for each into this folder.")
    ] = None,
    output: Annotated[
        Manifests | None,
        typer.Option("--output", "-o", help="Print the manifests; the table goes to standard error."),
    ] = None,
    public_key: PublicKey = None,
    literal: Annotated[bool, typer.Option("--literal", help="Take ${NAME} in a value as it is.")] = False,
    force: ForceConflicts = False,
) -> None:
    """Seal every line of a .env file; show what is created, what is changed, and what is refused.

    Without --apply, --output-dir or -o nothing is written: the API server is asked what it would
    say. A secret that is there already keeps its description. Lines that are refused hold back no
    others; with one, the exit code is 3.

    Example: devbox-secrets import .env --apply
    """
    if sum(map(bool, (apply, output_dir, output))) > 1:
        raise InvalidValue("choose one of --apply, --output-dir and --output")
    if public_key and apply:
        raise InvalidValue("--public-key is for sealing without the cluster; leave it out to apply")
    from devbox_secrets.cli import envfile

    lines = envfile.read(_content(file), literal=literal)
    account = at.home()
    steps = _planned(at, lines, account, public_key)
    if output_dir:
        steps = [_written(step, output_dir) for step in steps]
    elif not output and not public_key:
        steps = at.ask(lambda cluster: _applied(cluster, steps, force=force, really=apply))
    _show(steps, account, output)
    if not (apply or output_dir or output):
        typer.echo("Nothing was written: say --apply, --output-dir DIR or -o yaml.")
    if any(step.body is None for step in steps):
        raise typer.Exit(Exit.NOT_WELL)


def _content(file: Path) -> bytes:
    if str(file) != "-":
        return file.read_bytes()
    if sys.stdin is None:
        raise InvalidValue("standard input is closed: name the file instead")
    return sys.stdin.buffer.read()


def _planned(at: Target, lines: "list[Line]", account: str, public_key: Path | None) -> list[_Step]:
    there = {} if public_key else _by_variable(at, account)
    key = at.sealing_key(public_key)
    steps = [_sealed(line, there, key, account) for line in lines]
    if public_key:  # what is there isn't known
        return [replace(step, what="sealed") if step.body else step for step in steps]
    return steps


def _by_variable(at: Target, account: str) -> "dict[str, list[AccountSecret]]":
    from devbox_secrets.cli import accountsecrets

    there: dict[str, list[AccountSecret]] = {}
    for each in at.ask(lambda cluster: accountsecrets.list_all(cluster, account)):
        there.setdefault(each.variable, []).append(each)
    return there


def _sealed(line: "Line", there: "dict[str, list[AccountSecret]]", key: "SealingKey", account: str) -> _Step:
    from devbox_secrets.api import AccountSecretSpec
    from devbox_secrets.cli.accountsecrets import resealed
    from devbox_secrets.manifest import manifest

    step = _Step(line, "create")
    if line.refusal:
        return step.refused(line.refusal)
    found = there.get(line.variable, [])
    if len(found) > 1:
        return step.refused(f"it has {len(found)} AccountSecrets: {', '.join(each.name for each in found)}")
    sealed = key.seal(line.value, account=account, name=line.variable)
    if found:
        return replace(step, what="change", why=found[0].name, body=resealed(found[0], sealed))
    body = manifest(account, AccountSecretSpec(name=line.variable, sealed=sealed))
    return replace(step, why=body["metadata"]["name"], body=body)


def _written(step: _Step, folder: Path) -> _Step:
    if step.body is None:
        return step
    body = _for_git(step.body)
    path = folder / f"{body['metadata']['name']}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(as_text(body, "yaml"))
    except FileExistsError:
        return step.refused(f"{path} is there already: move it away, or change that one")
    return replace(step, why=str(path))


def _for_git(body: dict[str, Any]) -> dict[str, Any]:
    """Give a manifest that insists on no state of the cluster's."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "resourceVersion"}
    return {**body, "metadata": metadata}


async def _applied(cluster: "Cluster", steps: list[_Step], *, force: bool, really: bool) -> list[_Step]:
    import asyncio

    from devbox_secrets.cli import accountsecrets

    at_once = asyncio.Semaphore(_AT_ONCE)

    async def one(step: _Step, count: Callable[[int], None]) -> _Step:
        if step.body is None:
            return step
        async with at_once:
            try:
                await accountsecrets.apply(cluster, step.body, force=force, dry_run=not really)
            except DevboxSecretsError as error:
                return step.refused(error)
        count(1)
        return replace(step, what=f"{step.what}d") if really else step

    with progress("applied") as count:
        work: list[Awaitable[_Step]] = [one(step, count) for step in steps]
        return list(await asyncio.gather(*work))


def _show(steps: list[_Step], account: str, output: Manifests | None) -> None:
    rows = [[str(step.line.number), step.line.variable or "?", step.what, step.why] for step in steps]
    bodies = [_for_git(step.body) for step in steps if step.body is not None]
    if rows:
        print_table(["LINE", "VARIABLE", "WHAT", "NAME, OR WHY"], rows, err=output is not None)
    counts = Counter(step.what for step in steps)
    told = ", ".join(f"{number} {_TO_COME.get(what, what)}" for what, number in counts.items()) or "nothing in the file"
    typer.echo(f"\nIn the account {account}: {told}.", err=output is not None)
    if output is Manifests.JSON:
        typer.echo(as_text({"apiVersion": "v1", "kind": "List", "items": bodies}, output), nl=False)
    elif output:
        typer.echo("---\n".join(as_text(body, output) for body in bodies), nl=False)
