"""Containers of `kubectl debug` get no secrets unless the documented profile requests them."""

import json
import re
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from integration.support.chart import DEVBOX, Json, container, created, get, install, pod
from integration.support.pod_cases import DEFAULT_PATH, ENV, MOUNT, OURS

DOCUMENT = Path(__file__).parents[3] / "docs" / "how-to" / "debug-a-devbox.md"


@pytest.fixture(scope="module", autouse=True)
def _installed(controlplane: ControlPlane) -> None:
    install(controlplane)


def documented(start: str) -> list[str]:
    """Return the words of the documented command with this beginning."""
    (line,) = re.findall(rf"^\$ kubectl ({re.escape(start)}.*)$", DOCUMENT.read_text(), re.MULTILINE)
    return [word.replace("IMAGE", "busybox") for word in line.replace(" -it", "").split()]


def with_profile(namespace: str, folder: Path, profile: str) -> tuple[list[str], Json]:
    """Write a documented profile into a folder, and return the documented command with it and its content."""
    (content,) = re.findall(rf"^\$ echo '(.*)' > {profile}$", DOCUMENT.read_text(), re.MULTILINE)
    (folder / profile).write_text(content)
    words = documented(f"debug box -it --image IMAGE --custom {profile}")
    command = [str(folder / word) if word == profile else word for word in words]
    return [*command, "--container=debugger", f"--namespace={namespace}"], json.loads(content)


def test_an_ephemeral_container_gets_variables_only_with_the_profile(
    controlplane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    created(controlplane, pod({"containers": [container("a")]}, DEVBOX), namespace)
    controlplane.kubectl("debug", "box", "--image=busybox", "--container=plain", f"--namespace={namespace}")
    command, profile = with_profile(namespace, tmp_path, "secrets.json")
    controlplane.kubectl(*command)
    spec = get(controlplane, "pod", "box", f"--namespace={namespace}")["spec"]
    assert {each["name"]: each.get("envFrom") for each in spec["ephemeralContainers"]} == {
        "plain": None,
        "debugger": profile["envFrom"],
    }
    assert spec["containers"][0]["envFrom"] == [OURS]


def test_an_ephemeral_container_mounts_files_with_the_profile(
    controlplane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    annotations = {ENV: "", MOUNT: DEFAULT_PATH}
    created(controlplane, pod({"containers": [container("a")]}, DEVBOX, annotations), namespace)
    command, profile = with_profile(namespace, tmp_path, "files.json")
    controlplane.kubectl(*command)
    spec = get(controlplane, "pod", "box", f"--namespace={namespace}")["spec"]
    (debugger,) = spec["ephemeralContainers"]
    assert debugger["volumeMounts"] == profile["volumeMounts"] == spec["containers"][0]["volumeMounts"]


def test_a_copy_with_the_same_labels_is_a_devbox(controlplane: ControlPlane, namespace: str) -> None:
    created(controlplane, pod({"containers": [container("a")]}, DEVBOX), namespace)
    controlplane.kubectl(*documented("debug box -it --image IMAGE --copy-to"), f"--namespace={namespace}")
    spec = get(controlplane, "pod", "box-copy", f"--namespace={namespace}")["spec"]
    assert [each["envFrom"] for each in spec["containers"]] == [[OURS], [OURS]]
