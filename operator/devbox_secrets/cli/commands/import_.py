"""`import`: seals every line of a .env file."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devbox_secrets.cli.kit.app import Commands, Exit
from devbox_secrets.cli.kit.options import AccountOptions, ForceConflicts, PublicKeyFile, read_public_key
from devbox_secrets.cli.kit.output import as_manifest, as_text, print_table, progress
from devbox_secrets.errors import DevboxSecretsError, InvalidValue

if TYPE_CHECKING:
    from devbox_secrets.api.models import AccountSecret
    from devbox_secrets.cli.formats.envfile import Line
    from devbox_secrets.crypto.envelope import PublicKey
    from devbox_secrets.kube.client import Client

commands = Commands()
_CONCURRENT_REQUESTS = 8
_PENDING = {"create": "to create", "change": "to change"}


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
    name: str = ""
    """The object's name."""
    before: "AccountSecret | None" = None
    """What the manifest was made from."""

    def refused(self, why: object) -> "_Step":
        return replace(self, what="refused", why=" ".join(str(why).split()), body=None)


@commands.command("import")
async def import_(
    at: AccountOptions,
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
    public_key: PublicKeyFile = None,
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
    from devbox_secrets.cli.formats import envfile

    lines = envfile.read(_content(file), literal=literal)
    account = at.home()
    if public_key:
        steps = _sealed_offline(lines, read_public_key(public_key, at.operator_namespace), account)
    else:
        async with at.connect() as client:
            steps = await _sealed(client, lines, account, at.operator_namespace)
            if not (output_dir or output):
                steps = await _applied(client, steps, force=force, dry_run=not apply)
    if output_dir:
        steps = [_written(step, output_dir) for step in steps]
    _show(steps, account, output)
    if not (apply or output_dir or output):
        typer.echo("Nothing was written: say --apply, --output-dir DIR or -o yaml.")
    if any(step.body is None for step in steps):
        raise typer.Exit(Exit.UNHEALTHY)


def _content(file: Path) -> bytes:
    if str(file) != "-":
        return file.read_bytes()
    if sys.stdin is None:
        raise InvalidValue("standard input is closed: name the file instead")
    return sys.stdin.buffer.read()


def _sealed_offline(lines: "list[Line]", key: "PublicKey", account: str) -> list[_Step]:
    steps = [_step(line, [], key, account) for line in lines]
    # Whether it would be created or changed isn't known.
    return [replace(step, what="sealed") if step.body else step for step in steps]


async def _sealed(client: "Client", lines: "list[Line]", account: str, operator_namespace: str) -> list[_Step]:
    from devbox_secrets.cli.resources import account_secrets, sealing_keys

    existing: dict[str, list[AccountSecret]] = {}
    for secret in await account_secrets.list_all(client, account):
        existing.setdefault(secret.spec.name, []).append(secret)
    key = await sealing_keys.newest_public(client, operator_namespace)
    return [_step(line, existing.get(line.variable, []), key, account) for line in lines]


def _step(line: "Line", existing: "list[AccountSecret]", key: "PublicKey", account: str) -> _Step:
    """Seal a line; `existing` are the AccountSecrets of its variable."""
    from devbox_secrets.api.manifest import manifest, object_name
    from devbox_secrets.api.models import AccountSecretSpec

    step = _Step(line, "create")
    if line.refusal:
        return step.refused(line.refusal)
    if len(existing) > 1:
        names = ", ".join(secret.name for secret in existing)
        return step.refused(f"it has {len(existing)} AccountSecrets: {names}")
    sealed = key.seal(line.value, account=account, name=line.variable)
    if existing:
        (before,) = existing
        body = manifest(account, before.spec.model_copy(update={"sealed": sealed}), before.name)
        return _Step(line, "change", before.name, body, before.name, before)
    name = object_name(line.variable)
    return _Step(line, "create", name, manifest(account, AccountSecretSpec(name=line.variable, sealed=sealed)), name)


def _written(step: _Step, folder: Path) -> _Step:
    if step.body is None:
        return step
    path = folder / f"{step.name}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(as_manifest(step.body, "yaml"))
    except FileExistsError:
        return step.refused(f"{path} is there already: move it away, or change that one")
    return replace(step, why=str(path))


async def _applied(client: "Client", steps: list[_Step], *, force: bool, dry_run: bool) -> list[_Step]:
    import asyncio

    from devbox_secrets.cli.resources import account_secrets

    limit = asyncio.Semaphore(_CONCURRENT_REQUESTS)
    send = account_secrets.dry_run if dry_run else account_secrets.apply

    async def one(step: _Step, count: Callable[[int], None]) -> _Step:
        if step.body is None:
            return step
        async with limit:
            try:
                await send(client, step.body, before=step.before, force=force)
            except DevboxSecretsError as error:
                return step.refused(error)
        count(1)
        return step if dry_run else replace(step, what=f"{step.what}d")

    with progress("applied") as count:
        return list(await asyncio.gather(*(one(step, count) for step in steps)))


def _show(steps: list[_Step], account: str, output: Manifests | None) -> None:
    rows = [[str(step.line.number), step.line.variable or "?", step.what, step.why] for step in steps]
    bodies = [step.body for step in steps if step.body is not None]
    if rows:
        print_table(["LINE", "VARIABLE", "WHAT", "NAME, OR WHY"], rows, err=output is not None)
    counts = Counter(step.what for step in steps)
    summary = ", ".join(f"{number} {_PENDING.get(what, what)}" for what, number in counts.items())
    typer.echo(f"\nIn the account {account}: {summary or 'nothing in the file'}.", err=output is not None)
    if output is Manifests.JSON:
        typer.echo(as_text({"apiVersion": "v1", "kind": "List", "items": bodies}, output), nl=False)
    elif output:
        typer.echo("".join(as_manifest(body, output) for body in bodies), nl=False)
