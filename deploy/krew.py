#!/usr/bin/env python3
"""`kubectl devbox-secrets` as krew installs it: the first run installs the required packages.

The packages are pinned by hash in requirements.txt and are installed in the plugin's own folder.
"""

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HOME = Path(__file__).resolve().parent
OLDEST = (3, 11)


def packages() -> Path:
    """Return the folder with the packages for this Python, and install them if they are missing."""
    folder = HOME / f"packages-{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    if not folder.exists():
        print("devbox-secrets: installing Python packages (once) …", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=HOME, prefix="part-") as part:
            target = Path(part, "packages")
            (wheel,) = HOME.glob("devbox_secrets-*.whl")
            _pip("--target", str(target), "--require-hashes", "--requirement", str(HOME / "requirements.txt"))
            _pip("--target", str(target), str(wheel))
            if not folder.exists():  # a concurrent run may have created it
                target.rename(folder)
    return folder


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--only-binary=:all:", *arguments], stdout=sys.stderr, check=True)


def main() -> None:
    """Run the command in this process."""
    if sys.version_info < OLDEST:
        sys.exit(f"devbox-secrets: Python 3.11 or newer is required, but python3 is {sys.version.split()[0]}")
    try:
        sys.path.insert(0, str(packages()))
    except subprocess.CalledProcessError:
        sys.exit("devbox-secrets: pip failed, see above; check that `python3 -m pip --version` works")
    from devbox_secrets.__main__ import main as command  # noqa: PLC0415 - it was just installed

    command()


if __name__ == "__main__":
    main()
