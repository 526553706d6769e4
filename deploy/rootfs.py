"""Collects the image's root file system: Python and its libraries, without a shell or package manager.

The Dockerfile runs it with the base image's Python: `python3 rootfs.py ENVIRONMENT ROOT`.
"""

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

# Parts of the standard library that no server needs; some would require more libraries.
_UNUSED = (
    *("__pycache__", "config-*", "dist-packages", "site-packages", "test", "tests", "_test*", "_ctypes_test*", "xx*"),
    *("curses", "_curses*", "dbm", "_dbm*", "_gdbm*", "ensurepip", "idlelib", "lib2to3", "nis.*", "ossaudiodev*"),
    *("pydoc_data", "readline*", "sqlite3", "_sqlite3*", "tkinter", "_tkinter*", "turtle*", "venv"),
)
_FILES = ("/etc/os-release", "/etc/ssl/openssl.cnf", "/etc/ssl/certs/ca-certificates.crt")
_TEXTS = {
    "etc/passwd": "root:x:0:0::/:/nonexistent\ndevbox-secrets:x:65532:65532::/nonexistent:/nonexistent\n",
    "etc/group": "root:x:0:\ndevbox-secrets:x:65532:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
_DPKG = Path("/var/lib/dpkg")


def collect(environment: Path, root: Path) -> None:
    """Copy to `root` the files that the programs of a virtual environment need outside of it."""
    library = Path(sysconfig.get_path("stdlib"))
    copied = {path for name in (*_FILES, environment / "bin/python3") for path in _copy(Path(name), root, environment)}
    shutil.copytree(library, _within(root, library), ignore=shutil.ignore_patterns(*_UNUSED))
    # Unchecked bytecode, as in the Dockerfile.
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(root, quiet=1, stripdir=str(root), invalidation_mode=unchecked)
    programs = {Path(sys.executable).resolve(), *_within(root, library).rglob("*.so"), *environment.rglob("*.so*")}
    for name in _libraries(programs):
        copied |= set(_copy(name, root, environment))
    for file, text in _TEXTS.items():
        (root / file).write_text(text)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    _add_packages(copied | {path for path in library.rglob("*") if _within(root, path).exists()}, root)


def _within(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _copy(path: Path, root: Path, environment: Path) -> Iterator[Path]:
    """Copy a file and the symbolic links in its path, except inside the environment; yield the file."""
    ours = path.is_relative_to(environment)
    link = next((part for part in (*reversed(path.parents), path) if part.is_symlink()), None)
    target = _within(root, link or path)
    if not ours:
        target.parent.mkdir(parents=True, exist_ok=True)
    if link is not None:
        if not ours and not target.is_symlink():
            target.symlink_to(link.readlink())
        rest = path.relative_to(link)
        yield from _copy(Path(os.path.normpath(link.parent / link.readlink() / rest)), root, environment)
    elif not ours:
        shutil.copyfile(path, target)
        shutil.copymode(path, target)
        yield path


def _libraries(programs: Iterable[Path]) -> list[Path]:
    """Return the shared libraries that programs load, including the dynamic linker."""
    said = subprocess.run(["ldd", *sorted(map(str, programs))], capture_output=True, text=True, check=False).stdout
    return sorted({Path(word) for word in said.split() if word.startswith("/") and not word.endswith(":")})


def _true_path(name: str) -> Path:
    """Resolve the folder of a file, because folders such as /lib are symbolic links."""
    folder, file = os.path.split(name)
    return Path(os.path.realpath(folder), file)


def _add_packages(files: set[Path], root: Path) -> None:
    """Record the Debian packages of the files, for image scanners, and copy their licenses."""
    wanted = {"ca-certificates"}  # its file is generated at installation
    for listed in _DPKG.glob("info/*.list"):
        if any(_true_path(line) in files for line in listed.read_text().splitlines()):
            wanted.add(listed.stem.partition(":")[0])
    status = root / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    for entry in (_DPKG / "status").read_text().split("\n\n"):
        name = entry.partition("\n")[0].removeprefix("Package: ")
        if name in wanted:
            (status / name).write_text(f"{entry}\n")
            text = Path("/usr/share/doc", name, "copyright")
            if text.exists():
                for _ in _copy(text, root, root):
                    pass


if __name__ == "__main__":
    collect(Path(sys.argv[1]), Path(sys.argv[2]))
