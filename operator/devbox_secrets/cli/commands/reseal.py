"""`reseal`: reseals the values in files with the newest key; it doesn't apply the files."""

import difflib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devbox_secrets.api.names import KIND
from devbox_secrets.cli.kit.app import Commands, Exit
from devbox_secrets.cli.kit.files import replace_file
from devbox_secrets.cli.kit.options import AccountOptions, DryRun
from devbox_secrets.cli.kit.output import note, print_table, progress
from devbox_secrets.errors import Conflict, DevboxSecretsError, InvalidText, NotSealed

if TYPE_CHECKING:
    from devbox_secrets.cli.formats.yaml_edit import Sealed
    from devbox_secrets.crypto.envelope import Keyring

commands = Commands("Administration")


@dataclass
class _Results:
    """The results for the sealed values so far."""

    rows: list[list[str]] = field(default_factory=list)
    current: int = 0
    """How many already use the newest key."""
    failed: bool = False

    def add(self, path: Path, line: int, variable: str, result: str, details: str = "") -> None:
        self.rows.append([f"{path}:{line}" if line else str(path), variable, result, details])
        self.failed |= result == "failed"

    def unread(self, error: OSError) -> None:
        self.add(Path(error.filename), 0, "", "failed", error.strerror or str(error))


@commands.command()
async def reseal(
    at: AccountOptions,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", exists=True, help="Files or folders.")],
    dry_run: DryRun = False,
) -> None:
    """Reseal the values in manifests with the newest sealing key.

    The command changes only the sealed values of AccountSecrets in YAML and JSON files; everything else in the files is
    kept. Values that already use the newest key are skipped. You need permission to read the Secret with the sealing
    keys, and the values are decrypted on your machine.

    A manifest without a namespace belongs to --account. A value with an older key that isn't in an AccountSecret, for
    example in Helm values, patches or comments, is listed as failed, and the exit code is 3.

    Example: devbox-secrets reseal clusters/ --dry-run
    """
    from devbox_secrets.cli.resources import sealing_keys

    async with at.connect() as client:
        keyring = await sealing_keys.read(client, at.operator_namespace)
    results = _Results()
    with progress("files") as count:
        for path in _files(paths, results.unread):
            rows_before = len(results.rows)
            try:
                _reseal(path, keyring, at, results, dry_run=dry_run)
            except (OSError, Conflict) as error:
                del results.rows[rows_before:]
                results.add(path, 0, "", "failed", getattr(error, "strerror", None) or str(error))
            count(1)
    if results.rows:
        print_table(["FILE", "VARIABLE", "RESULT", "DETAILS"], results.rows, err=dry_run)
    changed = sum(row[2] == "resealed" for row in results.rows)
    newest = keyring.newest.public.id
    note(f"{changed} {'would be ' if dry_run else ''}resealed, {results.current} already used the newest key {newest}")
    if results.failed:
        note("don't prune the older keys yet; the values that failed may need them")
        raise typer.Exit(Exit.UNHEALTHY)


def _files(paths: list[Path], unread: Callable[[OSError], None]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        # Not Path.rglob: it silently skips folders that can't be read.
        for folder, folders, names in os.walk(path, onerror=unread):
            folders[:] = sorted({*folders} - {".git"})
            yield from filter(_is_file, (Path(folder, name) for name in sorted(names)))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return True  # reading it fails, too, and that error is reported


def _reseal(path: Path, keyring: "Keyring", at: AccountOptions, results: _Results, *, dry_run: bool) -> None:
    from devbox_secrets.cli.formats import text, yaml_edit

    raw = path.read_bytes()
    # Without the NULs of UTF-16, and without the backslashes that continue lines in quoted strings.
    bare = raw.translate(None, b"\0\\").decode("latin-1")
    key_ids = yaml_edit.key_ids(bare)
    if not key_ids and KIND not in bare:
        return
    try:
        before = text.decode(raw)
        sealed_values = yaml_edit.find(before.text)
    except InvalidText as error:
        if key_ids:
            results.add(path, 0, "", "failed", str(error))
        return
    changes = {}
    for each in sealed_values:
        if new := _resealed(path, each, keyring, at, results):
            changes[each.start] = (each, new)
    after = replace(before, text=yaml_edit.replaced(before.text, changes))
    if dry_run:
        lines = (before.text.splitlines(keepends=True), after.text.splitlines(keepends=True))
        for line in difflib.unified_diff(*lines, f"a/{path}", f"b/{path}"):
            typer.echo(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n", nl=False)
    elif changes:
        replace_file(path, after.encode(), before=raw)


def _resealed(path: Path, before: "Sealed", keyring: "Keyring", at: AccountOptions, results: _Results) -> str:
    """Reseal a value and return the new text; empty if nothing changes."""
    newest = keyring.newest.public
    if before.key_ids == {newest.id}:
        results.current += 1
        return ""
    try:
        if before.problem:
            raise NotSealed(before.problem)
        account = before.account or at.home()
        value = keyring.open(before.sealed, account=account, name=before.variable)
        new = newest.seal(value, account=account, name=before.variable)
    except DevboxSecretsError as error:
        results.add(path, before.line, before.variable, "failed", str(error))
        return ""
    results.add(path, before.line, before.variable, "resealed", f"{', '.join(before.key_ids)} → {newest.id}")
    return new
