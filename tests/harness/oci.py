"""Writes images as reproducible OCI archives.

An archive is an OCI image layout in a tar file, with the manifest.json that older container engines read.
"""

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CREATED = "1970-01-01T00:00:00Z"
_KEPT = ("Cmd", "Entrypoint", "Env", "Labels", "User")

Json = dict[str, Any]


def normalize(saved: Path, target: Path, name: str) -> None:
    """Write the image from the output of `docker save`, with sorted files owned by root, and without times."""
    with tarfile.open(saved) as source, _layout(target) as blobs:
        (entry,) = _read_json(source, "manifest.json")
        old = _read_json(source, entry["Config"])
        layers, diff_ids = [], []
        for layer in entry["Layers"]:
            path = blobs / "layer"
            diff_ids.append(_write_layer(_open(source, layer), path))
            layers.append(_store(blobs, path.read_bytes(), _LAYER))
            path.unlink()
        platform = {"architecture": old["architecture"], "os": old["os"]}
        settings = {key: old["config"][key] for key in _KEPT if old["config"].get(key)}
        rootfs = {"type": "layers", "diff_ids": diff_ids}
        config = _store_json(blobs, {"created": _CREATED, **platform, "config": settings, "rootfs": rootfs}, _CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers}
        image = {**_store_json(blobs, manifest, _MANIFEST), "platform": platform}
        _write_index(blobs.parents[1], image, name)
        legacy = [{"Config": _path(config), "RepoTags": [name], "Layers": [_path(layer) for layer in layers]}]
        (blobs.parents[1] / "manifest.json").write_bytes(_encode(legacy))


def combine(archives: Sequence[Path], target: Path, name: str) -> str:
    """Write one archive of an image for several platforms, and return its digest, which is the same for all of them."""
    images: list[Json] = []
    with _layout(target) as blobs:
        for archive in archives:
            with tarfile.open(archive) as source:
                images += [_without_name(image) for image in _read_json(source, "index.json")["manifests"]]
                for member in source:
                    if member.name.startswith("blobs/") and member.isfile():
                        (blobs / Path(member.name).name).write_bytes(_open(source, member.name).read())
        images.sort(key=lambda image: str(image["platform"]["architecture"]))
        index = _store_json(blobs, {"schemaVersion": 2, "mediaType": _INDEX, "manifests": images}, _INDEX)
        _write_index(blobs.parents[1], index, name)
    return str(index["digest"])


def platform_of(archive: Path) -> str:
    """Return Go's name for the architecture of the image in an archive."""
    with tarfile.open(archive) as source:
        (image,) = _read_json(source, "index.json")["manifests"]
    return str(image["platform"]["architecture"])


@contextmanager
def _layout(target: Path) -> Iterator[Path]:
    """Yield the blob folder of an image layout; its parent becomes the archive."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        root = Path(folder)
        blobs = root / "blobs/sha256"
        blobs.mkdir(parents=True)
        (root / "oci-layout").write_bytes(_encode({"imageLayoutVersion": "1.0.0"}))
        yield blobs
        part = root / "part"
        with tarfile.open(part, "w") as tar:
            for path in sorted(path for path in root.rglob("*") if path.is_file() and path != part):
                add(tar, tarfile.TarInfo(str(path.relative_to(root))), path.read_bytes())
        part.chmod(0o644)
        part.replace(target)


def _write_layer(source: IO[bytes], target: Path) -> str:
    """Rewrite a layer, sorted and compressed, and return the digest of the compressed layer."""
    digest = hashlib.sha256()
    with tarfile.open(fileobj=source) as old, tempfile.TemporaryFile(dir=target.parent) as plain:
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as new:
            # A hard link must follow the file that it links to.
            for member in sorted(old, key=lambda it: (it.islnk(), it.name)):
                entry = tarfile.TarInfo(member.name)
                entry.type, entry.mode, entry.linkname = member.type, member.mode, member.linkname
                content = old.extractfile(member) if member.isreg() else None
                add(new, entry, content.read() if content else None)
        plain.seek(0)
        with target.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
            while block := plain.read(1 << 20):
                digest.update(block)
                packed.write(block)
    return f"sha256:{digest.hexdigest()}"


def add(tar: tarfile.TarFile, entry: tarfile.TarInfo, content: bytes | None) -> None:
    """Add a file with this content, or an entry without content."""
    entry.size = len(content or b"")
    tar.addfile(entry, io.BytesIO(content or b""))


def _store(blobs: Path, content: bytes, media_type: str) -> Json:
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _store_json(blobs: Path, value: Json, media_type: str) -> Json:
    return _store(blobs, _encode(value), media_type)


def _write_index(root: Path, image: Json, name: str) -> None:
    """Name the image in a layout so that containerd and other tools find it."""
    full = name if "/" in name else f"docker.io/library/{name}"
    tag = name.rpartition(":")[2]
    names = {"io.containerd.image.name": full, "org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [{**image, "annotations": names}]}
    (root / "index.json").write_bytes(_encode(index))


def _without_name(image: Json) -> Json:
    return {key: value for key, value in image.items() if key != "annotations"}


def _path(descriptor: Json) -> str:
    return f"blobs/{str(descriptor['digest']).replace(':', '/')}"


def _encode(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _read_json(tar: tarfile.TarFile, name: str) -> Any:  # noqa: ANN401 - the content of a file
    return json.load(_open(tar, name))


def _open(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    content = tar.extractfile(name)
    if content is None:
        message = f"{name} isn't a file in {tar.name!r}"
        raise ValueError(message)
    return content
