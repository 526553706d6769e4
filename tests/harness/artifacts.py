"""The files of a release, built from this checkout.

`python -m harness.artifacts release FOLDER [IMAGE…]` writes them, including images that `… image FOLDER` wrote on
machines of other architectures. Equal checkouts give equal files.
"""

import argparse
import hashlib
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from harness import image, krew, oci, sbom
from harness.engine import engine
from harness.run import ClusterError, run, say, step
from harness.tools import ToolError, tool

_ROOT = Path(__file__).parents[2]
_CHART = _ROOT / "charts/devbox-secrets"
_REGISTRY = "ghcr.io"
_SOURCE_IMAGE = "devbox-secrets"
"""The image in deploy/install.yaml, which doesn't exist in any registry."""


@dataclass(frozen=True)
class Release:
    """The version of this checkout, and where it is published."""

    version: str
    home: str
    created: int

    @property
    def repository(self) -> str:
        """The image's name in its registry, without the registry."""
        return urlsplit(self.home).path.strip("/")

    @property
    def image(self) -> str:
        """The image's name without tag and digest."""
        return f"{_REGISTRY}/{self.repository}"

    def download(self, name: str) -> str:
        """Return the URL of a file of the release."""
        return f"{self.home}/releases/download/v{self.version}/{name}"


def this_release() -> Release:
    """Read the version from pyproject.toml, and the time from SOURCE_DATE_EPOCH or from the last commit."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    created = os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct", cwd=_ROOT)
    return Release(project["version"], project["urls"]["Source"], int(created))


def write_image(folder: Path, *, fresh: bool = False) -> Path:
    """Write the image for this machine's architecture, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / ".image.part"
    with engine() as it:
        image.build_archive(it, part, fresh=fresh)
    return part.rename(folder / f"image-{oci.platform_of(part)}.tar")


def write(it: Release, target: Path, others: Sequence[Path] = (), *, fresh: bool = False) -> str:
    """Write every file of a release into an empty folder, and return the image's digest."""
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        message = f"{target} is not empty: files of another release would be published with these"
        raise ClusterError(message)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = image.packages(target, "sdist")
        images = [write_image(folder, fresh=fresh), *others]
        digest = oci.combine(images, target / f"devbox-secrets-{it.version}-image.tar", f"{it.image}:{it.version}")
        with step("writing the bills of materials"):
            for path in images:
                _write_sbom(it, f"oci-archive:{path}", target / f"devbox-secrets-{it.version}-{path.stem}")
            _write_sbom(it, f"dir:{_installed(wheel, folder / 'wheel')}", target / wheel.name)
        _write_chart(it, digest, target, folder / "chart")
        (target / "install.yaml").write_text(_manifest(it, digest, (_ROOT / "deploy/install.yaml").read_text()))
        archive = target / f"devbox-secrets-{it.version}-krew.tar.gz"
        krew.write_archive(archive, wheel)
        manifest = krew.manifest(it.version, it.home, it.download(archive.name), _digest(archive))
        (target / "devbox-secrets.yaml").write_text(manifest)
    _write_checksums(target)
    return digest


def _write_sbom(it: Release, source: str, subject: Path) -> None:
    sbom.write(source, subject.with_name(f"{subject.name}.spdx.json"), subject.name, it.version, it.created)


def _installed(wheel: Path, folder: Path) -> Path:
    """Return a folder with the contents of the wheel and the locked versions of its dependencies."""
    shutil.unpack_archive(wheel, folder, "zip")
    shutil.copy(_ROOT / "requirements/command.txt", folder / "requirements.txt")
    return folder


def _write_chart(it: Release, digest: str, target: Path, folder: Path) -> None:
    """Write the chart's package, with values that name the image by its digest."""
    shutil.copytree(_CHART, folder)
    values = folder / "values.yaml"
    names = {"registry": _REGISTRY, "repository": it.repository, "digest": digest}
    values.write_text(with_image(values.read_text(), names))
    for path in (folder, *folder.rglob("*")):  # helm stores the modification times of the files
        os.utime(path, (it.created, it.created))
    run(tool("helm"), "package", folder, "--destination", target)


def with_image(values: str, names: Mapping[str, str]) -> str:
    """Set fields of `image` in a chart's values, and keep the comments."""
    block = re.search(r"^image:\n(?:[ \t]+.*\n)+", values, re.MULTILINE)
    text = block[0] if block else ""
    for field, value in names.items():
        text, count = re.subn(rf"^  {field}: .*$", f"  {field}: {value}", text, flags=re.MULTILINE)
        if count != 1:
            message = f"the chart's values have no image.{field}"
            raise ClusterError(message)
    return values.replace(block[0] if block else "", text)


def _manifest(it: Release, digest: str, text: str) -> str:
    """Return install.yaml with the released image, ready to be applied."""
    text = re.sub(r"\A#.*\n", f"# devbox-secrets {it.version}: kubectl apply -f install.yaml\n", text)
    return text.replace(f'image: "{_SOURCE_IMAGE}:{it.version}"', f'image: "{it.image}@{digest}"')


def _write_checksums(target: Path) -> None:
    lines = [f"{_digest(path)}  {path.name}\n" for path in sorted(target.iterdir())]
    (target / "SHA256SUMS").write_text("".join(lines))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """Write the image or a whole release, and print the image's path or digest."""
    parser = argparse.ArgumentParser(prog="python -m harness.artifacts", description=__doc__)
    parser.add_argument("what", choices=["image", "release"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("images", type=Path, nargs="*", help="images for other architectures")
    parser.add_argument("--fresh", action="store_true", help="use no cached layers")
    options = parser.parse_args()
    try:
        if options.what == "image":
            print(write_image(options.folder, fresh=options.fresh))
        else:
            print(write(this_release(), options.folder, options.images, fresh=options.fresh))
    except (ClusterError, ToolError) as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
