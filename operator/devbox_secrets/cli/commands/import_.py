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
from devbox_secrets.cli.kit.reserved import AllowReserved, check_not_reserved
from devbox_secrets.cli.kit.text_input import read_text, to_text
from devbox_secrets.errors import Conflict, DevboxSecretsError, InvalidValue, NotOurs, ReservedName

if TYPE_CHECKING:
    from devbox_secrets.api.models import AccountSecret
    from devbox_secrets.cli.formats.envfile import Line
    from devbox_secrets.crypto.envelope import PublicKey
    from devbox_secrets.kube.client import Client

commands = Commands("Secrets")
_CONCURRENT_REQUESTS = 8
#: What would be done, and what was.
_DONE = {"create": "created", "change": "changed", "write": "written", "overwrite": "overwritten"}
_REFUSED = {"refused", "damaged"}
_NOTHING_CHANGED = "Nothing was changed: pass --apply, --output-dir DIR or -o yaml."


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
    """The manifest, where there is something to do."""
    name: str = ""
    """The object's name."""
    before: "AccountSecret | None" = None
    """What the manifest was made from."""

    def refused(self, why: object) -> "_Step":
        return replace(self, what="refused", why=" ".join(str(why).split()), body=None)

    def done(self) -> "_Step":
        return replace(self, what=_DONE[self.what])


@dataclass(frozen=True)
class _Sealer:
    """Seals lines for an account."""

    key: "PublicKey"
    account: str
    allow_reserved: bool

    def step(self, line: "Line", existing: "list[AccountSecret]") -> _Step:
        """Seal a line; `existing` are the AccountSecrets of its variable."""
        from devbox_secrets.api.manifest import manifest, object_name
        from devbox_secrets.api.models import AccountSecretSpec

        if line.refusal:
            return _unsealed(line)
        step = _Step(line, "create")
        if len(existing) > 1:
            names = ", ".join(secret.name for secret in existing)
            return step.refused(f"it has {len(existing)} AccountSecrets: {names}")
        try:
            self._check_not_reserved(line.variable, existing)
        except ReservedName as error:
            return step.refused(error)
        sealed = self.key.seal(line.value, account=self.account, name=line.variable)
        if existing:
            (before,) = existing
            body = manifest(self.account, before.spec.model_copy(update={"sealed": sealed}), before.name)
            return _Step(line, "change", before.name, body, before.name, before)
        name = object_name(line.variable)
        body = manifest(self.account, AccountSecretSpec(name=line.variable, sealed=sealed))
        return _Step(line, "create", name, body, name)

    def _check_not_reserved(self, variable: str, existing: "list[AccountSecret]") -> None:
        ready = False
        if existing:
            from devbox_secrets.cli.resources.account_secrets import is_synced

            ready = is_synced(existing[0])
        check_not_reserved(variable, allow=self.allow_reserved, existing_ready=ready)


def _unsealed(line: "Line") -> _Step:
    if not line.refusal:
        return _Step(line, "skipped", "other lines are damaged")
    return _Step(line, "damaged" if line.damaged else "refused", line.refusal)


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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; show what --apply or --output-dir would do.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the sealed values in the manifests that --output-dir has.")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Import the other lines of a file in which lines are damaged.")
    ] = False,
    public_key: PublicKeyFile = None,
    literal: Annotated[bool, typer.Option("--literal", help="Take ${NAME} in a value as it is.")] = False,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Take variables without a value.")] = False,
    allow_reserved: AllowReserved = False,
    force: ForceConflicts = False,
) -> None:
    """Seal every variable of a .env file; show what is created, what is changed, and what is refused.

    Without --apply, --output-dir or -o nothing is changed: the API server is asked what it would say. A secret that
    already exists keeps its description.

    While a line is damaged, nothing is imported: it may hide others. A line that is understood but can't be sealed is
    refused by itself, and the exit code is 3.

    A manifest that --output-dir already has is kept, since nobody can see whether its value is still the same. With
    --overwrite, its sealed value is replaced and nothing else in it.

    Example: devbox-secrets import .env --apply
    """
    if sum(map(bool, (apply, output_dir, output))) > 1:
        raise InvalidValue("choose one of --apply, --output-dir and --output")
    if overwrite and not output_dir:
        raise InvalidValue("--overwrite is for --output-dir")
    from devbox_secrets.cli.formats import envfile
    from devbox_secrets.cli.resources import sealing_keys

    lines = envfile.read(_content(file), literal=literal, allow_empty=allow_empty)
    account = at.home()
    if not keep_going:
        _refuse_damaged(lines, account, output)
    online = apply or (dry_run and not (output_dir or output))
    dry_run = dry_run or not (apply or output_dir or output)
    given_key = read_public_key(public_key, at.operator_namespace) if public_key else None
    if given_key and not online:
        sealer = _Sealer(given_key, account, allow_reserved)
        steps = [sealer.step(line, []) for line in lines]
        # Whether it would be created or changed isn't known.
        steps = [replace(step, what="sealed") if step.body else step for step in steps]
    else:
        async with at.connect() as client:
            key = given_key or await sealing_keys.newest_public(client, at.operator_namespace)
            steps = await _sealed(client, lines, _Sealer(key, account, allow_reserved))
            if not (output_dir or output):
                steps = await _applied(client, steps, force=force, dry_run=dry_run)
    if output_dir:
        steps = _written(steps, output_dir, account, overwrite=overwrite, dry_run=dry_run)
    _show(steps, account, output)
    if dry_run and not output:
        typer.echo("Nothing was changed." if apply or output_dir else _NOTHING_CHANGED)
    if any(step.what in _REFUSED for step in steps):
        raise typer.Exit(Exit.UNHEALTHY)


def _refuse_damaged(lines: "list[Line]", account: str, output: Manifests | None) -> None:
    if any(line.damaged for line in lines):
        _show([_unsealed(line) for line in lines], account, output)
        raise InvalidValue(
            "nothing was imported, since damaged lines may hide others: correct them, or pass --keep-going to import"
            " the rest"
        )


def _content(file: Path) -> str:
    if str(file) != "-":
        return read_text(file)
    if sys.stdin is None:
        raise InvalidValue("standard input is closed: name the file instead")
    return to_text(sys.stdin.buffer.read(), "standard input")


async def _sealed(client: "Client", lines: "list[Line]", sealer: "_Sealer") -> list[_Step]:
    from devbox_secrets.cli.resources import account_secrets

    existing: dict[str, list[AccountSecret]] = {}
    for secret in await account_secrets.list_all(client, sealer.account):
        existing.setdefault(secret.spec.name, []).append(secret)
    return [sealer.step(line, existing.get(line.variable, [])) for line in lines]


def _written(steps: list[_Step], path: Path, account: str, *, overwrite: bool, dry_run: bool) -> list[_Step]:
    from devbox_secrets.cli.kit.manifest_folder import ManifestFolder

    folder = ManifestFolder(path, account)

    def one(step: _Step, body: dict[str, Any]) -> _Step:
        variable = step.line.variable
        if file := folder.file_of(variable):
            if not overwrite:
                return replace(step, what="kept", why=str(file), body=None)
            if not dry_run:
                folder.replace_sealed(file, variable, body["spec"]["sealed"])
            step = replace(step, what="overwrite", why=str(file))
        else:
            file = folder.new_file(step.name)
            if not dry_run:
                folder.write_new(file, body)
            step = replace(step, what="write", why=str(file))
        return step if dry_run else step.done()

    def tried(step: _Step) -> _Step:
        try:
            return one(step, step.body) if step.body else step
        except (NotOurs, Conflict) as error:
            return step.refused(error)

    return [tried(step) for step in steps]


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
        return step if dry_run else step.done()

    with progress("applied") as count:
        return list(await asyncio.gather(*(one(step, count) for step in steps)))


def _show(steps: list[_Step], account: str, output: Manifests | None) -> None:
    rows = [[step.line.place, step.line.variable or "?", step.what, step.why] for step in steps]
    bodies = [step.body for step in steps if step.body is not None]
    if rows:
        print_table(["LINE", "VARIABLE", "WHAT", "NAME, OR WHY"], rows, err=output is not None)
    counts = Counter(step.what for step in steps)
    summary = ", ".join(f"{number} {'to ' * (what in _DONE)}{what}" for what, number in counts.items())
    typer.echo(f"\nIn the account {account}: {summary or 'nothing in the file'}.", err=output is not None)
    if counts["kept"]:
        typer.echo("Whether a kept value is the same can't be seen: to seal it again, pass --overwrite.")
    if output is Manifests.JSON:
        typer.echo(as_text({"apiVersion": "v1", "kind": "List", "items": bodies}, output), nl=False)
    elif output:
        typer.echo("".join(as_manifest(body, output) for body in bodies), nl=False)
