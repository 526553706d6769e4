"""The kubectl plugin that krew installs: its archive and its manifest."""

import gzip
import tarfile
from pathlib import Path

import yaml

from harness import oci

_ROOT = Path(__file__).parents[2]
_PROGRAM = "kubectl-devbox_secrets"
_DESCRIPTION = """\
Seals values with the cluster's public key, applies and inspects AccountSecrets,
and manages the sealing keys of devbox-secrets.
"""
_CAVEATS = """\
Needs Python 3.11 or newer with pip. The first run installs the Python packages
that requirements.txt names, with their hashes, into the plugin's own folder.
"""


def write_archive(target: Path, wheel: Path) -> None:
    """Write the archive that krew unpacks; equal files give an equal archive."""
    files = {
        _PROGRAM: _ROOT / "deploy/krew.py",
        "requirements.txt": _ROOT / "requirements/command.txt",
        "LICENSE": _ROOT / "LICENSE",
        wheel.name: wheel,
    }
    with (
        target.open("wb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, path in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755 if name == _PROGRAM else 0o644
            oci.add(tar, entry, path.read_bytes())


def manifest(version: str, home: str, download: str, digest: str) -> str:
    """Return the plugin's manifest for krew; the archive is the same for all platforms."""
    systems = {"key": "os", "operator": "In", "values": ["darwin", "linux"]}
    platform = {"selector": {"matchExpressions": [systems]}, "uri": download, "sha256": digest, "bin": _PROGRAM}
    plugin = {
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": "devbox-secrets"},
        "spec": {
            "version": f"v{version}",
            "homepage": home,
            "shortDescription": "Seal secrets for AI-agent devboxes",
            "description": _DESCRIPTION,
            "caveats": _CAVEATS,
            "platforms": [platform],
        },
    }
    return yaml.safe_dump(plugin, sort_keys=False)
