"""`keys`: lists, rotates, backs up, restores and prunes the sealing keys."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devbox_secrets.cli.kit.app import Commands, Exit
from devbox_secrets.cli.kit.options import ClusterOptions, DryRun
from devbox_secrets.cli.kit.output import Format, Output, Yes, confirm, note, print_table, show
from devbox_secrets.cli.kit.passphrase_input import (
    PassphraseFile,
    read_backup,
    read_passphrase,
    refuse_existing,
    write_new,
)
from devbox_secrets.cli.kit.timeouts import Timeout, timeout_seconds
from devbox_secrets.cli.resources.arguments import complete_older_keys

if TYPE_CHECKING:
    from devbox_secrets.cli.resources.sealing_keys import KeyRow

commands = Commands("Administration", name="keys", help="Manage the sealing keys.", no_args_is_help=True)


@commands.command("list")
async def list_keys(at: ClusterOptions, output: Output = Format.TEXT) -> None:
    """List the sealing keys and how many AccountSecrets use each."""
    from devbox_secrets.cli.resources import sealing_keys

    async with at.connect() as client:
        keys = await sealing_keys.visible(client, at.operator_namespace)
    for message in keys.unseen:
        note(message)
    show(output, [_data(row) for row in keys.rows], lambda: _print(keys.rows))


@commands.command()
async def rotate(
    at: ClusterOptions,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the new key to be published (default).")
    ] = True,
    timeout: Timeout = "60s",  # noqa: ASYNC109 - an option
) -> None:
    """Request a new sealing key from the operator, and print its id.

    The older keys are kept, so values that were sealed with them don't have to be sealed again.
    """
    from devbox_secrets.cli.resources import sealing_keys

    seconds = timeout_seconds(timeout) if wait else None
    async with at.connect() as client:
        key_id = await sealing_keys.rotate(client, at.operator_namespace, seconds)
    if key_id:
        typer.echo(key_id)
    elif wait:
        note(
            f"no new key within {timeout}; the request remains pending. Check the operator:"
            f" kubectl logs deployment/devbox-secrets -n {at.operator_namespace}"
        )
        raise typer.Exit(Exit.TIMEOUT)


@commands.command()
async def backup(
    at: ClusterOptions,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to create; - is standard output.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write all sealing keys to an encrypted file.

    `keys restore` reads the file. It is encrypted with a passphrase of at least 12 characters; store the passphrase
    separately from the file.
    """
    from devbox_secrets.cli.resources import sealing_keys
    from devbox_secrets.crypto.backup import Backup

    refuse_existing(file)
    async with at.connect() as client:
        keyring = await sealing_keys.read(client, at.operator_namespace)
    keys = keyring.newest_first()
    text = Backup.encrypt(keys, read_passphrase(passphrase_file, new=True), datetime.now(UTC)).dump()
    write_new(file, text)
    note(f"backed up {_count(len(keys))}; the newest is {keys[0].public.id}")


@commands.command()
async def restore(
    at: ClusterOptions,
    # Not exists=True: typer would look for a file named -.
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup; - is standard input.")],
    passphrase_file: PassphraseFile = None,
) -> None:  # fmt: skip
    """Restore the sealing keys from a backup.

    Existing keys are kept, and the operator picks up the restored ones without a restart. In a new cluster, restore
    before the operator starts, so that it doesn't create a key of its own.
    """
    from devbox_secrets.cli.resources import sealing_keys

    keys = read_backup(file).decrypt(read_passphrase(passphrase_file, new=False))
    async with at.connect() as client:
        added = await sealing_keys.restore(client, at.operator_namespace, keys)
    for key in keys:
        typer.echo(
            f"{key.public.id} {'restored' if key.public.id in added else 'already exists'},"
            f" created {_time(key.created)}"
        )


@commands.command()
async def prune(
    at: ClusterOptions,
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY...", help="The keys to remove; defaults to all unused keys.",
            autocompletion=complete_older_keys,
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:  # fmt: skip
    """Remove unused sealing keys.

    A key is unused if no AccountSecret in the cluster is sealed with it. The newest key is never removed. Values
    outside the cluster, for example in Git, that are sealed with a removed key can no longer be decrypted.
    """
    from devbox_secrets.cli.resources import sealing_keys

    namespace = at.operator_namespace
    async with at.connect() as client:
        chosen = await sealing_keys.choose(client, namespace, keys or [])
        for key_id, created in chosen.items():
            details = f"created {_time(created)}" if created else "damaged"
            typer.echo(f"{key_id} {'would be' if dry_run else 'will be'} removed, {details}")
        if not chosen:
            note("there are no unused keys; the newest key is never removed")
        if dry_run or not chosen:
            return
        confirm(
            f"Remove {_count(len(chosen))}? Values in Git that are sealed with them can no longer be decrypted.",
            yes=yes,
            unasked="check with --dry-run, then pass --yes",
        )
        await sealing_keys.prune(client, namespace, list(chosen))
    note(f"removed {_count(len(chosen))}")


def _data(row: "KeyRow") -> dict[str, object]:
    created = _time(row.created) if row.created else None
    return {"id": row.id, "state": str(row.state), "created": created, "accountSecrets": row.used_by}


def _print(rows: "Sequence[KeyRow]") -> None:
    cells = [
        [
            row.id,
            row.state,
            _time(row.created) if row.created else "",
            "" if row.used_by is None else f"{row.used_by:,}",
        ]
        for row in rows
    ]
    print_table(["KEY", "STATE", "CREATED", "ACCOUNTSECRETS"], cells)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _count(keys: int) -> str:
    return "1 key" if keys == 1 else f"{keys} keys"
