"""Writes files atomically."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devbox_secrets.errors import Conflict


def replace_file(path: Path, content: bytes, before: bytes) -> None:
    """Replace a file's content atomically; its mode and owner are kept, and symbolic links are followed.

    Raises:
        Conflict: the content is no longer `before`.
    """
    target = path.resolve()
    with _written(target, content) as new:
        stat = target.stat()
        if (stat.st_uid, stat.st_gid) != (new.stat().st_uid, new.stat().st_gid):
            with suppress(PermissionError):
                os.chown(new, stat.st_uid, stat.st_gid)
        new.chmod(stat.st_mode & 0o7777)
        if target.read_bytes() != before:
            raise Conflict("the file changed in the meantime; run the command again")
        new.replace(target)


def create_file(path: Path, content: bytes) -> None:
    """Create a file; it is empty until the whole content is written.

    Raises:
        FileExistsError: the path already exists.
    """
    with path.open("xb"):  # the umask sets the mode
        pass
    try:
        replace_file(path, content, before=b"")
    except BaseException:
        path.unlink()
        raise


@contextmanager
def _written(target: Path, content: bytes) -> Iterator[Path]:
    """Write the content to a temporary file next to the target, and delete it afterwards unless it was moved."""
    import tempfile

    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        yield Path(name)
    except OSError as error:
        # A failed write doesn't name the file.
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        Path(name).unlink(missing_ok=True)
