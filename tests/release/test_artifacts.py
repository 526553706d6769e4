"""The files of a release are reproducible and complete, and the image in them is minimal."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from harness import artifacts, image
from harness.engine import engine
from harness.run import run
from harness.tools import tool

ROOT = Path(__file__).parents[2]
RELEASE = artifacts.this_release()
CREATED = {**os.environ, "SOURCE_DATE_EPOCH": str(RELEASE.created)}
MEGABYTE = 1_000_000

Json = dict[str, Any]


@pytest.fixture(scope="module", name="files")
def _files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    artifacts.write(RELEASE, folder)
    return folder


class Image:
    """A release's image for one architecture, read from its archive."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._tar = archive
        (named,) = json.loads(self._read("index.json"))["manifests"]
        self.digest = named["digest"]
        (self.platform,) = json.loads(self._blob(self.digest))["manifests"]
        self.manifest = json.loads(self._blob(self.platform["digest"]))
        self.config = json.loads(self._blob(self.manifest["config"]["digest"]))

    def _read(self, name: str) -> bytes:
        content = self._tar.extractfile(name)
        assert content is not None
        return content.read()

    def _blob(self, digest: str) -> bytes:
        content = self._read(f"blobs/{digest.replace(':', '/')}")
        assert hashlib.sha256(content).hexdigest() == digest.partition(":")[2]
        return content

    def entries(self) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        for layer in self.manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(gzip.decompress(self._blob(layer["digest"])))) as tar:
                for entry in tar:
                    content = tar.extractfile(entry) if entry.isreg() else None
                    yield entry, content.read() if content else b""


@pytest.fixture(scope="module", name="released")
def _released(files: Path) -> Iterator[Image]:
    with tarfile.open(files / f"devbox-secrets-{RELEASE.version}-image.tar") as archive:
        yield Image(archive)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.timeout(900)
def test_a_fresh_build_in_another_folder_gives_the_same_files(files: Path, tmp_path: Path) -> None:
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, names):
        target = tmp_path / "checkout" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    env = {**CREATED, "PYTHONPATH": str(tmp_path / "checkout/tests")}
    run(sys.executable, "-m", "harness.artifacts", "release", tmp_path / "release", "--fresh", env=env, cwd=tmp_path)
    assert digests(tmp_path / "release") == digests(files)


def test_the_checksums_are_correct_and_cover_every_file(files: Path) -> None:
    lines = (files / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert listed == {name: digest for name, digest in digests(files).items() if name != "SHA256SUMS"}


def test_every_file_of_a_release_is_documented(files: Path) -> None:
    text = (ROOT / "docs/reference/versions.md").read_text().partition("## Release files")[2].partition("```")[0]
    documented = [name.replace("VERSION", RELEASE.version) for name in re.findall(r"`([^` ]+)`", text)]
    for path in files.iterdir():
        assert any(path.match(pattern) for pattern in documented), path.name


def test_the_image_is_owned_by_root_and_runs_as_another_user(released: Image) -> None:
    assert released.config["config"]["User"] == "65532:65532"
    assert released.config["config"]["Entrypoint"] == ["devbox-secrets"]
    for entry, _ in released.entries():
        assert (entry.uid, entry.gid, entry.mtime) == (0, 0, 0), entry.name
        assert not entry.mode & 0o6000, entry.name
        assert not entry.mode & 0o002 or entry.issym() or entry.name == "tmp", entry.name


def test_the_image_has_no_shell_package_manager_or_tests(released: Image) -> None:
    programs = {"sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "pip", "pip3", "perl", "env"}
    names = [entry.name for entry, _ in released.entries() if not entry.isdir()]
    assert [name for name in names if Path(name).name in programs] == []
    assert [name for name in names if {"test", "tests"} & set(Path(name).parts)] == []
    executable = [e.name for e, _ in released.entries() if e.isreg() and e.mode & 0o111 and "bin" in Path(e.name).parts]
    assert [Path(name).name for name in executable if "python" not in name] == ["devbox-secrets"]


def test_the_images_bytecode_is_valid_for_any_modification_time(released: Image) -> None:
    flags = {content[4:8] for entry, content in released.entries() if entry.name.endswith(".pyc")}
    assert flags == {b"\x01\0\0\0"}  # hash-based, unchecked


def test_the_image_has_a_passwd_file_without_login_shells(released: Image) -> None:
    (users,) = (content.decode() for entry, content in released.entries() if entry.name == "etc/passwd")
    assert [line.split(":")[0] for line in users.splitlines()] == ["root", "devbox-secrets"]
    assert not re.search(r"/bin/|sh$", users, re.MULTILINE)


def test_the_image_stays_small(released: Image) -> None:
    assert sum(layer["size"] for layer in released.manifest["layers"]) < 60 * MEGABYTE
    assert sum(entry.size for entry, _ in released.entries()) < 150 * MEGABYTE


def test_the_image_runs_without_capabilities_network_or_a_writable_file_system() -> None:
    confined = ("run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    servers = [f"devbox_secrets.{name}" for name in ("controller.process", "gateway.process", "webhook.server")]
    authorities = "len(ssl.create_default_context().get_ca_certs()) > 99"
    ask = f"import os, ssl, {', '.join(servers)}; print(os.getuid(), {authorities})"
    python = "/opt/devbox-secrets/bin/python3"
    with engine() as it:
        name = image.build(it)
        assert it.docker(*confined, name, "--version").strip() == RELEASE.version
        assert it.docker(*confined, f"--entrypoint={python}", name, "-c", ask).split() == ["65532", "True"]


def packages(document: Path) -> set[tuple[str, str]]:
    found = json.loads(document.read_text())
    assert found["spdxVersion"].startswith("SPDX-2.")
    return {(package["name"], package.get("versionInfo", "")) for package in found["packages"]}


def pinned(name: str) -> set[tuple[str, str]]:
    lines = re.findall(r"^[a-z0-9-]+==.*?(?= \\|$)", (ROOT / "requirements" / name).read_text(), re.MULTILINE)
    wanted = [it for it in map(Requirement, lines) if it.marker is None or it.marker.evaluate()]
    return {(it.name, str(it.specifier).removeprefix("==")) for it in wanted}


def test_the_images_bill_of_materials_lists_each_pinned_package_and_debians_packages(files: Path) -> None:
    (document,) = files.glob("*-image-*.spdx.json")
    assert pinned("operator.txt") | {("devbox-secrets", RELEASE.version)} <= packages(document)
    names = {name for name, _ in packages(document)}
    assert {"libc6", "ca-certificates"} <= names
    assert any(name.startswith("libssl3") for name in names)


def test_the_wheels_bill_of_materials_lists_each_pinned_package(files: Path) -> None:
    (document,) = files.glob("*.whl.spdx.json")
    assert pinned("command.txt") | {("devbox-secrets", RELEASE.version)} <= packages(document)


def images_of(manifests: str) -> set[str]:
    return {found["image"] for found in _containers(list(yaml.safe_load_all(manifests)))}


def _containers(value: object) -> Iterator[Json]:
    if isinstance(value, dict):
        yield from value.get("containers") or ()
        yield from value.get("initContainers") or ()
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _containers(part)


def test_the_chart_and_install_yaml_reference_the_image_by_digest(files: Path, released: Image) -> None:
    chart = files / f"devbox-secrets-{RELEASE.version}.tgz"
    everything = ("--set=gateway.enabled=true", "--set=injection.method=webhook")
    rendered = run(tool("helm"), "template", "devbox-secrets", chart, "--namespace=devbox-secrets", *everything)
    expected = {f"{RELEASE.image}@{released.digest}"}
    assert images_of(rendered) == expected
    assert images_of((files / "install.yaml").read_text()) == expected


def test_install_yaml_differs_from_the_checkouts_only_in_the_image_and_the_first_line(files: Path) -> None:
    ours = (ROOT / "deploy/install.yaml").read_text().splitlines()
    theirs = (files / "install.yaml").read_text().splitlines()
    assert {a.split(":")[0].strip() for a, b in zip(ours, theirs, strict=True) if a != b} == {
        ours[0].split(":")[0],
        "image",
    }


def test_the_kubectl_plugins_manifest_meets_krews_requirements(files: Path) -> None:
    """See https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/."""
    plugin = yaml.safe_load((files / "devbox-secrets.yaml").read_text())
    assert (plugin["apiVersion"], plugin["kind"]) == ("krew.googlecontainertools.github.com/v1alpha2", "Plugin")
    assert plugin["metadata"] == {"name": "devbox-secrets"}
    spec = plugin["spec"]
    assert spec["version"] == f"v{RELEASE.version}"
    assert len(spec["shortDescription"]) <= 50
    assert spec.keys() == {"version", "homepage", "shortDescription", "description", "caveats", "platforms"}
    (platform,) = spec["platforms"]
    assert platform.keys() == {"selector", "uri", "sha256", "bin"}
    archive = files / platform["uri"].rpartition("/")[2]
    assert digests(files)[archive.name] == platform["sha256"]
    with tarfile.open(archive) as tar:
        assert tar.getmember(platform["bin"]).mode == 0o755
        assert "LICENSE" in tar.getnames()


def test_the_kubectl_plugin_installs_its_dependencies_once_and_runs(files: Path, tmp_path: Path) -> None:
    (archive,) = files.glob("*-krew.tar.gz")
    shutil.unpack_archive(archive, tmp_path / "store", filter="data")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/kubectl-devbox_secrets"
    program.symlink_to(tmp_path / "store/kubectl-devbox_secrets")
    for expected in ("installing Python packages", ""):
        done = subprocess.run([sys.executable, program, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"{RELEASE.version}\n"
        assert expected in done.stderr
        assert expected or not done.stderr
