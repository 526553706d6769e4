"""`import`: seals every variable of a .env file."""

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
#: Each planned result, and the result once it is done.
_DONE = {"create": "created", "change": "changed", "write": "written", "overwrite": "overwritten"}
_FAILED = {"rejected", "damaged"}
_NOTHING_CHANGED = "Nothing was changed. To import, pass --apply, --output-dir DIR or -o yaml."


class Manifests(StrEnum):
    """Output formats of manifests."""

    YAML = "yaml"
    JSON = "json"


@dataclass(frozen=True)
class _Step:
    """A line and its planned or actual result."""

    line: "Line"
    result: str
    details: str = ""
    body: dict[str, Any] | None = None
    """The manifest, if there is one to write or apply."""
    name: str = ""
    """The object's name."""
    before: "AccountSecret | None" = None
    """The stored AccountSecret that the manifest is based on."""

    def rejected(self, reason: object) -> "_Step":
        return replace(self, result="rejected", details=" ".join(str(reason).split()), body=None)

    def done(self) -> "_Step":
        return replace(self, result=_DONE[self.result])


@dataclass(frozen=True)
class _Sealer:
    """Seals lines for an account."""

    key: "PublicKey"
    account: str
    allow_reserved: bool

    def step(self, line: "Line", existing: "list[AccountSecret]") -> _Step:
        """Seal a line; `existing` are the variable's AccountSecrets."""
        from devbox_secrets.api.manifest import manifest, object_name
        from devbox_secrets.api.models import AccountSecretSpec

        if line.refusal:
            return _unsealed(line)
        step = _Step(line, "create")
        if len(existing) > 1:
            names = ", ".join(secret.name for secret in existing)
            return step.rejected(f"the variable has {len(existing)} AccountSecrets: {names}")
        try:
            self._check_not_reserved(line.variable, existing)
        except ReservedName as error:
            return step.rejected(error)
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
    return _Step(line, "damaged" if line.damaged else "rejected", line.refusal)


@commands.command("import")
async def import_(
    at: AccountOptions,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The .env file; - is standard input."),
    ] = Path(".env"),
    apply: Annotated[bool, typer.Option("--apply", help="Create or update the AccountSecrets in the cluster.")] = False,
    output_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Write one manifest per variable to this folder."),
    ] = None,
    output: Annotated[
        Manifests | None,
        typer.Option("--output", "-o", help="Print the manifests; the table goes to standard error."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what --apply or --output-dir would do, without doing it.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the sealed values in existing manifests in --output-dir.")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Import the valid lines of a file with damaged lines.")
    ] = False,
    public_key: PublicKeyFile = None,
    literal: Annotated[bool, typer.Option("--literal", help="Don't treat ${NAME} in a value as a reference.")] = False,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Accept variables with an empty value.")] = False,
    allow_reserved: AllowReserved = False,
    force: ForceConflicts = False,
) -> None:
    """Seal every variable of a .env file.

    Without --apply, --output-dir or -o, the command is a server-side dry run: it shows what would be created, changed
    or rejected. Existing secrets keep their descriptions.

    If a line is damaged, nothing is imported, because a damaged line may hide others. A valid line that can't be sealed
    is rejected, the other lines are imported, and the exit code is 3.

    Existing manifests in --output-dir are kept, because a sealed value can't be compared with the new one. With
    --overwrite, their sealed values are replaced and everything else in them is kept.

    Example: devbox-secrets import .env --apply
    """
    if sum(map(bool, (apply, output_dir, output))) > 1:
        raise InvalidValue("pass only one of --apply, --output-dir and --output")
    if overwrite and not output_dir:
        raise InvalidValue("--overwrite requires --output-dir")
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
        # Offline, it isn't known whether the variable would be created or changed.
        steps = [replace(step, result="sealed") if step.body else step for step in steps]
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
    if any(step.result in _FAILED for step in steps):
        raise typer.Exit(Exit.UNHEALTHY)


def _refuse_damaged(lines: "list[Line]", account: str, output: Manifests | None) -> None:
    if any(line.damaged for line in lines):
        _show([_unsealed(line) for line in lines], account, output)
        raise InvalidValue(
            "nothing was imported, because damaged lines may hide others; fix them, or pass --keep-going to import the"
            " other lines"
        )


def _content(file: Path) -> str:
    if str(file) != "-":
        return read_text(file)
    if sys.stdin is None:
        raise InvalidValue("standard input is closed; pass a file name instead")
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
                return replace(step, result="kept", details=str(file), body=None)
            if not dry_run:
                folder.replace_sealed(file, variable, body["spec"]["sealed"])
            step = replace(step, result="overwrite", details=str(file))
        else:
            file = folder.new_file(step.name)
            if not dry_run:
                folder.write_new(file, body)
            step = replace(step, result="write", details=str(file))
        return step if dry_run else step.done()

    def tried(step: _Step) -> _Step:
        try:
            return one(step, step.body) if step.body else step
        except (NotOurs, Conflict) as error:
            return step.rejected(error)

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
                return step.rejected(error)
        count(1)
        return step if dry_run else step.done()

    with progress("applied") as count:
        return list(await asyncio.gather(*(one(step, count) for step in steps)))


def _show(steps: list[_Step], account: str, output: Manifests | None) -> None:
    rows = [[step.line.place, step.line.variable or "?", step.result, step.details] for step in steps]
    bodies = [step.body for step in steps if step.body is not None]
    if rows:
        print_table(["LINE", "VARIABLE", "RESULT", "DETAILS"], rows, err=output is not None)
    counts = Counter(step.result for step in steps)
    summary = ", ".join(f"{number} {'to ' * (result in _DONE)}{result}" for result, number in counts.items())
    typer.echo(f"\nAccount {account}: {summary or 'no variables in the file'}.", err=output is not None)
    if counts["kept"]:
        typer.echo("Kept manifests may have an older value. To replace their values, pass --overwrite.")
    if output is Manifests.JSON:
        typer.echo(as_text({"apiVersion": "v1", "kind": "List", "items": bodies}, output), nl=False)
    elif output:
        typer.echo("".join(as_manifest(body, output) for body in bodies), nl=False)
