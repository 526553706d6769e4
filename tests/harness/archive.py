"""Writes container images as docker-archives without an engine."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Go's name for the architecture of the image.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Image:
    """A container image with one layer.

    `files` maps paths in the image to executable files on disk, and `links` maps paths to targets of symbolic links.
    """

    name: str
    files: Mapping[str, Path]
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    user: str = ""


def write(image: Image, archive: Path, machine: str) -> None:
    """Write an archive for `kind load image-archive`, `ctr images import` and `docker load`.

    `machine` is the architecture as in uname. Equal input gives an equal archive.
    """
    part = archive.with_name(f".{archive.name}.part")
    layer = part.with_name(f"{part.name}.layer")
    try:
        _write_layer(image, layer)
        with layer.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        config = json.dumps(
            {
                "architecture": _ARCHITECTURES[machine],
                "os": "linux",
                "config": {
                    "Entrypoint": list(image.entrypoint),
                    "Cmd": list(image.command),
                    "Env": [f"PATH={_SEARCH_PATH}"],
                    "User": image.user,
                },
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            }
        ).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = [{"Config": name, "RepoTags": [image.name], "Layers": [f"{digest}.tar"]}]
        with tarfile.open(part, "w") as tar:
            _add_bytes(tar, name, config)
            _add_bytes(tar, "manifest.json", json.dumps(manifest).encode())
            with layer.open("rb") as content:
                tar.addfile(_entry(f"{digest}.tar", size=layer.stat().st_size), content)
        part.replace(archive)
    finally:
        part.unlink(missing_ok=True)
        layer.unlink(missing_ok=True)


def _write_layer(image: Image, layer: Path) -> None:
    folders = {parent for name in (*image.files, *image.links) for parent in Path(name.lstrip("/")).parents} - {Path()}
    with tarfile.open(layer, "w") as tar:
        tar.addfile(_entry("tmp", type=tarfile.DIRTYPE, mode=0o1777))
        for folder in sorted(folders):
            tar.addfile(_entry(str(folder), type=tarfile.DIRTYPE, mode=0o755))
        for name, source in sorted(image.files.items()):
            with source.open("rb") as content:
                tar.addfile(_entry(name.lstrip("/"), size=source.stat().st_size, mode=0o755), content)
        for name, target in sorted(image.links.items()):
            tar.addfile(_entry(name.lstrip("/"), type=tarfile.SYMTYPE, linkname=target))


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_entry(name, size=len(content)), io.BytesIO(content))


def _entry(name: str, **fields: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    for field_name, value in fields.items():
        setattr(entry, field_name, value)
    return entry
