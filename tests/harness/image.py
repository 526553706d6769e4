"""The images that tests and the demo run in a cluster: the operator's, built from the wheel, and one for devboxes."""

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness import archive, debian, oci
from harness.engine import BUSYBOX, Engine
from harness.kind import Cluster
from harness.nodeimage import NODE_PACKAGES
from harness.run import CACHE, ClusterError, lock, run, say, step

_ROOT = Path(__file__).parents[2]
_DOCKERFILE = _ROOT / "deploy/Dockerfile"
_RECIPE = (_DOCKERFILE, _ROOT / "deploy/rootfs.py")
_REQUIREMENTS = _ROOT / "requirements/operator.txt"
_FOLDER = CACHE / "image"
_KEPT_SECONDS = 3600

_DEVBOX = "devbox-secrets-devbox:test"

_ASK_PYTHON = (
    "import json, platform, sys; print(json.dumps([sys.version_info[:2], platform.libc_ver()[1], platform.machine()]))"
)


@dataclass(frozen=True)
class _Python:
    """The properties of a base image's interpreter that determine the choice of wheels."""

    version: tuple[int, int]
    glibc: tuple[int, int]
    machine: str

    @property
    def pip_options(self) -> list[str]:
        """The options that make pip choose wheels for this interpreter instead of its own."""
        major, newest = self.glibc
        names = [f"manylinux_{major}_{minor}" for minor in range(newest, 4, -1)] + ["manylinux2014"]
        options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={'.'.join(map(str, self.version))}"]
        return options + [f"--platform={name}_{self.machine}" for name in names]


def operator_image(cluster: Cluster) -> str:
    """Load the operator's image into the cluster's node and return its name; an existing cluster pulls it."""
    if cluster.engine is None:
        image = os.environ.get("DEVBOX_SECRETS_IMAGE", "")
        if ":" in image.rpartition("/")[2]:
            return image
        message = (
            "an existing cluster needs DEVBOX_SECRETS_IMAGE, the operator's image as NAME:TAG, where it can be pulled"
        )
        raise ClusterError(message)
    image = build(cluster.engine)
    cluster.load(image)
    return image


def devbox_image(cluster: Cluster) -> str:
    """Return the name of an image with a shell, printenv and sleep, for a devbox in this cluster."""
    if cluster.engine is None:
        return os.environ.get("DEVBOX_SECRETS_DEVBOX_IMAGE", BUSYBOX)
    if cluster.engine.pull(BUSYBOX):
        cluster.engine.docker("tag", BUSYBOX, _DEVBOX)
        cluster.load(_DEVBOX)
    else:
        cluster.load(_devbox_archive())
    return _DEVBOX


def packages(folder: Path, *targets: str) -> Path:
    """Build the product's wheel and other targets of hatchling in a folder, and return the wheel's path.

    The wheel contains fixed times, so that a commit that changes no packaged file doesn't change the image.
    """
    env = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    options = [word for target in ("wheel", *targets) for word in ("--target", target)]
    run(sys.executable, "-m", "hatchling", "build", *options, "--directory", folder.absolute(), cwd=_ROOT, env=env)
    (built,) = folder.glob("*.whl")
    return built


def build(engine: Engine) -> str:
    """Build the operator's image and return its name, which is derived from its contents."""
    with lock(_FOLDER / ".lock"):
        name, archived = _archive(engine)
        if not engine.has_image(name):
            engine.docker("load", "--quiet", "--input", archived)
        _forget_old(engine)
        return name


def build_archive(engine: Engine, target: Path, *, fresh: bool = False) -> None:
    """Write the operator's image as an OCI archive; a fresh build uses no cached layers."""
    with lock(_FOLDER / ".lock"):
        shutil.copyfile(_archive(engine, fresh=fresh)[1], target)


def _archive(engine: Engine, *, fresh: bool = False) -> tuple[str, Path]:
    shutil.rmtree(_FOLDER / "wheel", ignore_errors=True)
    product = packages(_FOLDER / "wheel")
    base = _base(engine)
    parts = [product, *_RECIPE, _REQUIREMENTS, Path(oci.__file__)]
    content = b"".join(hashlib.sha256(part.read_bytes()).digest() for part in parts) + base.encode()
    name = f"devbox-secrets:{product.name.split('-')[1]}-{hashlib.sha256(content).hexdigest()[:12]}"
    archived = _FOLDER / f"{name.replace(':', '-')}.tar"
    if fresh or not archived.exists():
        with step(f"building {name}"):
            context = _context(product, _wheelhouse(_python_of(engine, base)))
            options = [f"--build-arg=BASE_IMAGE={base}", *(["--no-cache"] if fresh else [])]
            _build(engine, name, archived, *options, context)
    archived.touch()
    return name, archived


def _build(engine: Engine, name: str, archived: Path, *options: str | Path) -> None:
    built = f"{name}-as-built"
    saved = archived.with_suffix(".saved")
    engine.docker("build", "--quiet", "--network=none", "--tag", built, *options)
    try:
        engine.docker("save", "--output", saved, built)
        oci.normalize(saved, archived, name)
    finally:
        saved.unlink(missing_ok=True)
        engine.docker("image", "rm", built)


def _forget_old(engine: Engine) -> None:
    """Remove images that no run has used in the last hour, and on our own engine, build caches."""
    for archived in _FOLDER.glob("devbox-secrets-*.tar"):
        if archived.stat().st_mtime < time.time() - _KEPT_SECONDS:
            archived.unlink()
            with suppress(ClusterError):  # it was already removed, or a container uses it
                engine.docker("image", "rm", archived.stem.replace("devbox-secrets-", "devbox-secrets:", 1))
    if engine.host is not None:
        engine.docker("image", "prune", "--force", "--filter=until=24h")


def _base(engine: Engine) -> str:
    found = re.search(r"^ARG BASE_IMAGE=(\S+)$", _DOCKERFILE.read_text(), re.MULTILINE)
    if found is None:
        message = f"{_DOCKERFILE} names no default BASE_IMAGE"
        raise ClusterError(message)
    official = found[1]
    if engine.pull(official):
        return official
    say("using Debian's Python instead")
    tree = debian.tree_of("python3", "python3-venv", "ca-certificates")
    name = f"devbox-secrets-base:{tree.stem}"
    if not engine.has_image(name):
        with step(f"importing {name} (once)"):
            engine.docker("import", tree, name)
    return name


def _python_of(engine: Engine, base: str) -> _Python:
    answer = engine.docker("run", "--rm", "--network=none", "--entrypoint=python3", base, "-c", _ASK_PYTHON)
    (major, minor), glibc, machine = json.loads(answer)
    glibc_major, glibc_minor = glibc.split(".")[:2]
    return _Python((major, minor), (int(glibc_major), int(glibc_minor)), machine)


def _wheelhouse(python: _Python) -> Path:
    """Return the folder of the locked dependencies' wheels, downloaded on first use."""
    key = hashlib.sha256(repr(python).encode() + _REQUIREMENTS.read_bytes()).hexdigest()[:16]
    folder = _FOLDER / f"wheelhouse-{key}"
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        with step(f"downloading the dependencies for Python {'.'.join(map(str, python.version))} (once)"):
            run(
                *(*_pip(), "download", "--quiet", "--require-hashes", "--no-deps", f"--requirement={_REQUIREMENTS}"),
                *(f"--dest={part}", *python.pip_options),
            )
        part.rename(folder)
    return folder


def _pip() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    return [sys.executable, "-m", "uv", "tool", "run", "pip"]


def _context(product: Path, wheelhouse: Path) -> Path:
    context = _FOLDER / "context"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(wheelhouse, context / "wheelhouse", copy_function=os.link)
    shutil.copytree(product.parent, context / "product")
    shutil.copy(_REQUIREMENTS, context / "requirements.txt")
    for part in _RECIPE:
        shutil.copy(part, context)
    return context


def _devbox_archive() -> Path:
    """Return an archive of a devbox image: Debian's static busybox, and printenv, which busybox lacks."""
    packages = debian.tree_of(*NODE_PACKAGES)
    key = hashlib.sha256(b"".join(Path(module).read_bytes() for module in (__file__, archive.__file__))).hexdigest()[
        :12
    ]
    target = _FOLDER / f"devbox-{packages.stem}-{key}.tar"
    with lock(_FOLDER / ".lock"):
        if not target.exists():
            with debian.unpacked(packages) as tree:
                archive.write(_devbox(tree), target, platform.machine())
    return target


def _devbox(tree: Path) -> archive.Image:
    programs = ("/bin/busybox", "/usr/bin/printenv")
    applets = run(tree / "bin/busybox", "--list").split()
    return archive.Image(
        _DEVBOX,
        # As process 1, a shell exits on SIGTERM, unlike sleep.
        command=["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"],
        files={name: tree / name.lstrip("/") for name in (*programs, *debian.libraries_of(tree, programs[1]))},
        links={f"/bin/{name}": "busybox" for name in applets if name != "busybox"},
        user="65534",
    )
