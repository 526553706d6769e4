"""Reads and writes backup files, and reads their passphrases."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devbox_secrets.cli.kit.text_input import refuse_utf16, without_bom
from devbox_secrets.errors import InvalidPassphrase

if TYPE_CHECKING:
    from pydantic import SecretBytes

    from devbox_secrets.crypto.backup import Backup

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", metavar="FILE", exists=True, dir_okay=False,
        help="Read the backup's passphrase from the first line of this file; without it, the command prompts.",
    ),
]  # fmt: skip
_MOST_BYTES = 1 << 16


def refuse_existing(path: Path) -> None:
    """Check that a file doesn't exist.

    Raises:
        FileExistsError: it does.
    """
    if str(path) != "-" and os.path.lexists(path):
        raise FileExistsError(f"{path} already exists; remove it first, or choose another name")


def write_new(path: Path, text: str) -> None:
    """Write a new file that only its owner can read, or none if writing fails; `-` is standard output.

    Raises:
        FileExistsError: it already exists.
    """
    if str(path) == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    refuse_existing(path)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink()
            raise


def read_backup(path: Path) -> "Backup":
    """Read a backup without decrypting it; `-` is standard input.

    Raises:
        InvalidBackup: the file isn't a backup.
    """
    from devbox_secrets.crypto.backup import MAX_BYTES, Backup

    if str(path) == "-":
        return Backup.parse(sys.stdin.buffer.read(MAX_BYTES + 1))
    with path.open("rb") as file:
        return Backup.parse(file.read(MAX_BYTES + 1))


def read_passphrase(file: Path | None, *, new: bool) -> "SecretBytes":
    """Read the passphrase from a file or a hidden prompt, which asks twice for a new one.

    Raises:
        InvalidPassphrase: there is no file and no terminal, or the passphrase isn't text or is too short.
        InvalidText: the file is UTF-16.
    """
    from devbox_secrets.crypto.backup import check_new, passphrase_from

    passphrase = passphrase_from(_ask(confirm=new) if file is None else _first_line(file))
    if new:
        check_new(passphrase)
    return passphrase


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        line = file.readline(_MOST_BYTES)
    refuse_utf16(line, path)
    line = without_bom(line, path)
    # Invalid UTF-8 is rejected later, as for a typed passphrase.
    return line.rstrip(b"\r\n").decode(errors="surrogateescape")


def _ask(*, confirm: bool) -> str:
    if sys.stdin is None or not sys.stdin.isatty():
        raise InvalidPassphrase("stdin is not a terminal; pass the passphrase with --passphrase-file")
    typed: str = typer.prompt("Backup passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    return typed
