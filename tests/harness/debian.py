"""Root file systems from Debian packages, for machines that can't pull base images."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.engine import apt_install
from harness.run import CACHE, ClusterError, lock, run, step

# The last Debian release whose systemd starts on cgroup v1.
_SUITE = "bookworm"
_FOLDER = CACHE / "debian"
_UNNEEDED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/locale", "usr/share/man")
# Licenses are kept, because they must accompany the packages.
_DOCUMENTS = "usr/share/doc"
_LICENSE = "copyright"


def tree_of(*packages: str) -> Path:
    """Return the cached archive of a minimal Debian with these packages, and create it on first use."""
    key = hashlib.sha256(json.dumps([_SUITE, *_UNNEEDED, _LICENSE, *packages]).encode()).hexdigest()[:16]
    archive = _FOLDER / f"{_SUITE}-{key}.tar"
    with lock(_FOLDER / ".lock"):
        if not archive.exists():
            with step(f"collecting Debian packages for {packages[0]} and {len(packages) - 1} more (once)"):
                _bootstrap(packages, archive)
    return archive


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Unpack an archive into a temporary folder next to the cache, which isn't in memory."""
    with scratch() as folder:
        run("tar", "--extract", "--file", archive, "--directory", folder, "--numeric-owner")
        yield folder


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield an empty folder; those of killed runs are removed at the next start."""
    parent = _FOLDER / "scratch"
    parent.mkdir(parents=True, exist_ok=True)
    for other in parent.iterdir():
        pid = other.name.split("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(other, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def libraries_of(tree: Path, *programs: str) -> set[str]:
    """Return the shared libraries that programs in a tree load, including the dynamic linker."""
    words = run("chroot", tree, "ldd", *programs).split()
    return {word for word in words if word.startswith("/") and not word.endswith(":")}


def _bootstrap(packages: tuple[str, ...], archive: Path) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        message = "no container registry can be reached, and images are built from packages only as root on Debian"
        raise ClusterError(message)
    if shutil.which("debootstrap") is None:
        apt_install("debootstrap")
    downloads = _FOLDER / "packages"
    downloads.mkdir(exist_ok=True)
    with scratch() as folder:
        # In a separate mount namespace, debootstrap's mounts disappear with it, even if it is killed.
        run(
            *("unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={','.join(packages)}"),
            *(f"--cache-dir={downloads}", _SUITE, folder / "tree", _mirror()),
        )
        for unneeded in _UNNEEDED:
            shutil.rmtree(folder / "tree" / unneeded)
        for document in (folder / "tree" / _DOCUMENTS).glob("*/*"):
            if document.is_dir() and not document.is_symlink():
                shutil.rmtree(document)
            elif document.name != _LICENSE:
                document.unlink()
        run("tar", "--create", "--file", folder / "tar", "--directory", folder / "tree", "--numeric-owner", ".")
        (folder / "tar").replace(archive)


def _mirror() -> str:
    listed = run("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages", "Component: main")
    for line in listed.splitlines():
        site, release = line.split()
        if release == _SUITE:
            return site
    message = f"apt's sources name no mirror of Debian {_SUITE}: add one, or make a container registry reachable"
    raise ClusterError(message)
