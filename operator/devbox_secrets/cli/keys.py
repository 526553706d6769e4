"""`keys`: what the keeper of the sealing keys does. Imports its neighbours at once, the rest when called."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devbox_secrets.cli.keyfile import PassphraseFile, read_backup, read_passphrase, refuse_present, write_new
from devbox_secrets.cli.output import Format, Output, Yes, confirm, note, print_table, show
from devbox_secrets.cli.program import Commands, Exit
from devbox_secrets.cli.target import Place

if TYPE_CHECKING:
    from devbox_secrets.keyplan import KeyRow

commands = Commands(
    name="keys", help="List, rotate, back up, restore and prune the sealing keys.", no_args_is_help=True
)


@commands.command("list")
def list_keys(at: Place, output: Output = Format.TEXT) -> None:
    """List the sealing keys: when each was made, and how many AccountSecrets are sealed with it."""
    from devbox_secrets import keeper

    view = at.ask(lambda cluster: keeper.look(cluster, at.operator_namespace))
    for sentence in view.unseen:
        note(sentence)
    show(output, [_data(row) for row in view.rows], lambda: _print(view.rows))


@commands.command()
def rotate(
    at: Place,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the new key is published.")] = True,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="How long to wait.")] = 60,
) -> None:  # fmt: skip
    """Have the operator make a new sealing key, and print its id.

    Older keys stay and open what was sealed with them. Nothing has to be sealed again.
    """
    from devbox_secrets import keeper

    key_id = at.ask(lambda cluster: keeper.rotate(cluster, at.operator_namespace, timeout if wait else None))
    if key_id:
        typer.echo(key_id)
    elif wait:
        note(
            f"no new key within {timeout:g} s; the request stays. Does the operator run, and what does it say?"
            f" kubectl logs deployment/devbox-secrets -n {at.operator_namespace}"
        )
        raise typer.Exit(Exit.TIME_IS_UP)


@commands.command()
def backup(
    at: Place,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that isn't there yet; - is standard output.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write every sealing key to an encrypted file, which `keys restore` reads.

    A passphrase opens it, of at least 12 characters: keep it apart from the file.
    """
    from devbox_secrets import keeper
    from devbox_secrets.backup import Backup

    refuse_present(file)
    keyring = at.ask(lambda cluster: keeper.read(cluster, at.operator_namespace))
    if not keyring:
        raise at.no_key_yet()
    keys = keyring.newest_first()
    text = Backup.encrypt(keys, read_passphrase(passphrase_file, new=True), datetime.now(UTC)).dump()
    write_new(file, text)
    note(f"backed up {_count(len(keys))}, the newest {keys[0].public.id}")


@commands.command()
def restore(
    at: Place,
    # Typer, told to look whether it exists, takes - for a file as well.
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup; - is standard input.")],
    passphrase_file: PassphraseFile = None,
) -> None:  # fmt: skip
    """Put the sealing keys of a backup back into the cluster, beside those that are there.

    The operator picks them up by itself. In a new cluster, restore before it starts: then it makes no key of its own.
    """
    from devbox_secrets import keeper

    found = read_backup(file)
    keys = found.decrypt(read_passphrase(passphrase_file, new=False))
    added = at.ask(lambda cluster: keeper.restore(cluster, at.operator_namespace, keys))
    for key in keys:
        typer.echo(
            f"{key.public.id} {'restored' if key.public.id in added else 'was there'}, made {_time(key.created)}"
        )


@commands.command()
def prune(
    at: Place,
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY", help="The keys to remove; without any, all that nothing needs."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    yes: Yes = False,
) -> None:  # fmt: skip
    """Remove sealing keys with which no AccountSecret is sealed. The newest stays.

    Values that are not in the cluster, in Git for instance, and sealed with such a key can't be opened any more.
    """
    from devbox_secrets import keeper

    namespace = at.operator_namespace
    chosen = at.ask(lambda cluster: keeper.choose(cluster, namespace, keys or []))
    for key_id, created in chosen.items():
        made = f"made {_time(created)}" if created else "which can't be read"
        typer.echo(f"{key_id} {'would go' if dry_run else 'goes'}, {made}")
    if not chosen:
        note("no key can go: AccountSecrets need each of them, or it's the newest")
    if dry_run or not chosen:
        return
    confirm(
        f"Remove {_count(len(chosen))}? Values in Git that were sealed so can't be opened any more.",
        yes=yes,
        unasked="look with --dry-run, then say --yes",
    )
    at.ask(lambda cluster: keeper.prune(cluster, namespace, list(chosen)))
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
    print_table(["KEY", "STATE", "MADE", "ACCOUNTSECRETS"], cells)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _count(keys: int) -> str:
    return "1 key" if keys == 1 else f"{keys} keys"
