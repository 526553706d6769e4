"""Writes files whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devbox_secrets.errors import Conflict


def replace_file(path: Path, content: bytes, before: bytes) -> None:
    """Replace a file's content in one step; its mode and owner stay, and a link stays a link.

    Raises:
        Conflict: it isn't as it was `before`.
    """
    target = path.resolve()
    with _written(target, content) as new:
        stat = target.stat()
        if (stat.st_uid, stat.st_gid) != (new.stat().st_uid, new.stat().st_gid):
            with suppress(PermissionError):
                os.chown(new, stat.st_uid, stat.st_gid)
        new.chmod(stat.st_mode & 0o7777)
        if target.read_bytes() != before:
            raise Conflict("someone changed it meanwhile; run this again")
        new.replace(target)


def create_file(path: Path, content: bytes) -> None:
    """Create a file; until it's whole it's empty.

    Raises:
        FileExistsError: something is there.
    """
    with path.open("xb"):  # its mode follows the umask
        pass
    try:
        replace_file(path, content, before=b"")
    except BaseException:
        path.unlink()
        raise


@contextmanager
def _written(target: Path, content: bytes) -> Iterator[Path]:
    """Give a file beside the target with the content; it's gone afterwards unless it was moved."""
    import tempfile

    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        yield Path(name)
    except OSError as error:
        # To write names no file.
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        Path(name).unlink(missing_ok=True)
