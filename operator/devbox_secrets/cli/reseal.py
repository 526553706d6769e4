"""`reseal`: manifests in Git, sealed with the newest key. Imports its neighbours at once, the rest when called."""

import difflib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devbox_secrets.cli.output import note, print_table, progress
from devbox_secrets.cli.program import Commands, Exit
from devbox_secrets.cli.target import Target
from devbox_secrets.errors import DevboxSecretsError

if TYPE_CHECKING:
    from devbox_secrets.cli.yamltext import Sealed
    from devbox_secrets.sealing import Keyring

commands = Commands()
_SUFFIXES = {".yaml", ".yml", ".json"}


@dataclass
class _Done:
    """What became of the sealed strings so far."""

    rows: list[list[str]] = field(default_factory=list)
    current: int = 0
    """Those that needed nothing."""
    failed: bool = False

    def tell(self, path: Path, line: int, variable: str, what: str, why: str = "") -> None:
        self.rows.append([f"{path}:{line}" if line else str(path), variable, what, why])
        self.failed |= what == "refused"


@commands.command()
def reseal(
    at: Target,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", exists=True, help="Files, or folders of them.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; show the difference.")] = False,
) -> None:
    """Seal the values in manifests anew, with the newest sealing key.

    In YAML and JSON files the sealed strings of AccountSecrets are changed, and nothing else.
    What is sealed with the newest key is left alone. It needs your own right to read the Secret
    of the sealing keys, and the values are opened on this machine.

    A manifest without a namespace is of the --account. With one that can't be opened the exit code is 3.

    Example: devbox-secrets reseal clusters/ --dry-run
    """
    from devbox_secrets import keeper

    keyring = at.ask(lambda cluster: keeper.read(cluster, at.operator_namespace))
    if not keyring:
        raise at.no_key_yet()
    done = _Done()
    with progress("files") as count:
        for path in _files(paths):
            _reseal(path, keyring, at, done, dry_run=dry_run)
            count(1)
    if done.rows:
        print_table(["WHERE", "VARIABLE", "WHAT", "WHY"], done.rows, err=dry_run)
    changed = sum(row[2] == "resealed" for row in done.rows)
    newest = keyring.newest.public.id
    note(f"{changed} {'would be ' if dry_run else ''}resealed, {done.current} had the newest key {newest} already")
    if done.failed:
        raise typer.Exit(Exit.NOT_WELL)


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.suffix in _SUFFIXES and each.is_file())
        else:
            yield path


def _reseal(path: Path, keyring: "Keyring", at: Target, done: _Done, *, dry_run: bool) -> None:
    import yaml

    from devbox_secrets.api import KIND
    from devbox_secrets.cli import yamltext

    raw = path.read_bytes()
    if KIND.encode() not in raw:
        return
    try:
        text = raw.decode()
        found = yamltext.find(text)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        # A template, perhaps. What the parser quotes isn't told: it may be anything.
        done.tell(path, mark.line + 1 if mark else 0, "", "refused", "it isn't YAML that can be read")
        return
    changes = {}
    for each in found:
        if new := _resealed(path, each, keyring, at, done):
            changes[each.start] = (each, new)
    after = yamltext.replaced(text, changes)
    if dry_run:
        lines = (text.splitlines(keepends=True), after.splitlines(keepends=True))
        typer.echo("".join(difflib.unified_diff(*lines, f"a/{path}", f"b/{path}")), nl=False)
    elif changes:
        _replace(path, after.encode())


def _resealed(path: Path, found: "Sealed", keyring: "Keyring", at: Target, done: _Done) -> str:
    from devbox_secrets.sealing import key_id_of

    newest = keyring.newest.public
    try:
        if key_id_of(found.sealed) == newest.id:
            done.current += 1
            return ""
        account = found.account or at.home()
        value = keyring.open(found.sealed, account=account, name=found.variable)
        new = newest.seal(value, account=account, name=found.variable)
    except DevboxSecretsError as error:
        done.tell(path, found.line, found.variable, "refused", str(error))
        return ""
    done.tell(path, found.line, found.variable, "resealed", f"{key_id_of(found.sealed)} → {newest.id}")
    return new


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, with the mode that it has."""
    target = path.resolve()  # a link stays one
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(target.stat().st_mode & 0o7777)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
