"""The harness without a cluster: images, the container runtime's edits, locks, programs, and pinned versions."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import IO, Any

import pytest

from harness import archive, artifacts, image, oci, runtime, tools
from harness.kind import Cluster
from harness.run import ClusterError, is_locked, lock, run


def image_of(program: Path) -> archive.Image:
    return archive.Image("example:1", files={"/bin/box": program}, entrypoint=["/bin/box"], links={"/bin/sh": "box"})


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"machine code")
    return path


def test_an_archive_names_its_image_and_contains_its_only_layer(tmp_path: Path, program: Path) -> None:
    archive.write(image_of(program), tmp_path / "image.tar", "x86_64")
    with tarfile.open(tmp_path / "image.tar") as tar:
        (manifest,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = json.load(tar.extractfile(manifest["Config"]))  # type: ignore[arg-type]
        with tarfile.open(fileobj=tar.extractfile(manifest["Layers"][0])) as layer:
            names = {entry.name: entry for entry in layer}
    assert manifest["RepoTags"] == ["example:1"]
    assert (config["architecture"], config["config"]["Entrypoint"]) == ("amd64", ["/bin/box"])
    assert names["bin/box"].mode == 0o755
    assert names["bin/sh"].linkname == "box"
    assert names["tmp"].mode == 0o1777


def test_equal_images_are_equal_archives(tmp_path: Path, program: Path) -> None:
    for name in ("one", "two"):
        archive.write(image_of(program), tmp_path / name, "aarch64")
        os.utime(program, (0, 0))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_failed_write_leaves_no_archive(tmp_path: Path, program: Path) -> None:
    with pytest.raises(KeyError):
        archive.write(image_of(program), tmp_path / "image.tar", "an unknown processor")
    assert [path.name for path in tmp_path.iterdir()] == ["program"]


def write_tar(target: IO[bytes], files: dict[str, bytes], **owner: int | str) -> None:
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for field, value in owner.items():
                setattr(entry, field, value)
            tar.addfile(entry, io.BytesIO(content))


def saved_by_docker(target: Path, files: dict[str, bytes], architecture: str, time: int = 1) -> Path:
    """Write the parts of `docker save` that are read: a layer with times and owners, and a config."""
    layer = io.BytesIO()
    write_tar(layer, files, mtime=time, uid=1000, uname="builder")
    settings = {"User": "1", "Hostname": "x"}
    config = {"architecture": architecture, "os": "linux", "created": str(time), "config": settings}
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": ["a/layer.tar"]}]
    parts = {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    with target.open("wb") as file:
        write_tar(file, {"a/layer.tar": layer.getvalue(), **parts})
    return target


def read_json(archived: Path, name: str) -> Any:  # noqa: ANN401 - any JSON
    with tarfile.open(archived) as tar:
        return json.load(tar.extractfile(name))  # type: ignore[arg-type]


def test_an_image_does_not_depend_on_the_time_and_order_of_its_build(tmp_path: Path) -> None:
    files = {"b": b"2", "a": b"1"}
    for number, content in enumerate((files, dict(sorted(files.items())))):
        saved = saved_by_docker(tmp_path / "saved", content, "amd64", time=number)
        oci.normalize(saved, tmp_path / f"{number}", "box:1")
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    (legacy,) = read_json(tmp_path / "0", "manifest.json")
    assert legacy["RepoTags"] == ["box:1"]
    assert read_json(tmp_path / "0", legacy["Config"])["config"] == {"User": "1"}


def test_the_images_for_two_processors_have_one_digest_in_any_order(tmp_path: Path) -> None:
    images = []
    for architecture in ("arm64", "amd64"):
        saved = saved_by_docker(tmp_path / "saved", {"a": architecture.encode()}, architecture)
        images.append(tmp_path / architecture)
        oci.normalize(saved, images[-1], "box:1")
        assert oci.platform_of(images[-1]) == architecture
    digest = oci.combine(images, tmp_path / "both", "registry.example/box:1")
    assert oci.combine(images[::-1], tmp_path / "again", "registry.example/box:1") == digest
    (named,) = read_json(tmp_path / "both", "index.json")["manifests"]
    assert named["digest"] == digest
    both = read_json(tmp_path / "both", f"blobs/{digest.replace(':', '/')}")["manifests"]
    assert [it["platform"]["architecture"] for it in both] == ["amd64", "arm64"]
    assert [it["digest"] for it in both] == [
        read_json(path, "index.json")["manifests"][0]["digest"] for path in images[::-1]
    ]


VALUES = 'image:\n  # Where it is.\n  repository: ""\n  tag: ""\nother:\n  repository: theirs\n'


def test_a_released_chart_s_values_name_the_image_and_keep_the_rest() -> None:
    named = artifacts.with_image(VALUES, {"repository": "ours"})
    assert named == VALUES.replace('  repository: ""', "  repository: ours")


@pytest.mark.parametrize("values", [VALUES, "image: {}\n"])
def test_a_chart_whose_image_cannot_be_named_is_not_released(values: str) -> None:
    with pytest.raises(ClusterError, match=r"no image\.digest"):
        artifacts.with_image(values, {"digest": "sha256:0"})


PROCESS = {"rlimits": [1], "oomScoreAdj": -999, "capabilities": {"bounding": ["CAP_KILL", "CAP_SYS_RESOURCE"]}}
LESS = {"capabilities": {"bounding": ["CAP_KILL"]}}


@pytest.mark.parametrize(
    ("before", "arguments", "after"),
    [
        ({"process": PROCESS}, ["--root", "/r", "create", "--bundle", "{folder}", "id"], {"process": LESS}),
        ({"process": PROCESS}, ["run", "-b", "{folder}", "id"], {"process": LESS}),
        (PROCESS, ["exec", "--process={folder}/config.json", "id"], LESS),
        (PROCESS, ["exec", "-p", "{folder}/config.json", "id"], LESS),
        ({"process": PROCESS}, ["delete", "id"], {"process": PROCESS}),
    ],
    ids=["create", "run", "exec --process=", "exec -p", "delete"],
)
def test_the_runtime_only_requests_from_runc_what_the_machine_has(
    tmp_path: Path, before: object, arguments: list[str], after: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use a `runc` that prints its arguments, to check that they are unchanged."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(before))
    runc = tmp_path / "runc"
    runc.write_text('#!/bin/sh\necho "$@"\n')
    runc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    given = [argument.format(folder=tmp_path) for argument in arguments]
    assert run(sys.executable, runtime.__file__, *given).split() == given
    assert json.loads(config.read_text()) == after


def test_a_lock_is_released_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holding = f"from pathlib import Path; from harness.run import lock\nwith lock(Path({str(path)!r})): input()"
    environment = {**os.environ, "PYTHONPATH": str(Path(archive.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", holding], env=environment, stdin=subprocess.PIPE) as holder:
        while not is_locked(path):
            assert holder.poll() is None
        holder.kill()
    assert not is_locked(path)


def test_a_shared_lock_can_have_many_holders(tmp_path: Path) -> None:
    with lock(tmp_path / "lock", shared=True), lock(tmp_path / "lock", shared=True):
        assert is_locked(tmp_path / "lock")


def test_the_error_for_a_failed_program_has_its_output() -> None:
    with pytest.raises(ClusterError, match=r"(?s)exit code 3.*the reason"):
        run("sh", "-c", "echo the reason >&2; exit 3")


def test_a_missing_program_is_reported() -> None:
    with pytest.raises(ClusterError, match="no-such-program: not found on PATH"):
        run("no-such-program")


EXISTING = Cluster("existing", Path("kubeconfig"), engine=None)


@pytest.mark.parametrize("name", ["devbox-secrets:0.1.0", "registry.example:5000/devbox-secrets:0.1.0"])
def test_an_existing_cluster_uses_the_named_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVBOX_SECRETS_IMAGE", name)
    assert image.operator_image(EXISTING) == name


@pytest.mark.parametrize("name", ["", "devbox-secrets", "registry.example:5000/devbox-secrets"])
def test_an_image_without_a_tag_is_rejected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVBOX_SECRETS_IMAGE", name)
    with pytest.raises(ClusterError, match="NAME:TAG"):
        image.operator_image(EXISTING)


PINS = Path(tools.__file__).with_name("tools")
#: Modules that helm's kubectl, coredns' fork and kube-network-policies' NRI need in another version.
OTHER = {"github.com/go-errors/errors", "github.com/coredns/caddy", "github.com/opencontainers/runtime-spec"}


def pinned(folder: str) -> dict[str, str]:
    """Return the version of each module that a folder's go.mod requires."""
    text = (PINS / folder / "go.mod").read_text()
    return dict(re.findall(r"^(?:require |\t)(\S+) (?:=> \S+ )?(v\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("folder", ["coredns", "crictl", "helm", "kube-network-policies"])
def test_a_program_shares_module_versions_with_kubernetes_so_that_they_are_compiled_once(folder: str) -> None:
    ours, kubernetes = pinned(folder), pinned("kubernetes-1.37")
    shared = ours.keys() & kubernetes.keys() - OTHER
    assert "k8s.io/client-go" in shared
    assert {name: ours[name] for name in shared} == {name: kubernetes[name] for name in shared}
