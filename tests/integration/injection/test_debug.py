"""What `kubectl debug` sees of a devbox's secrets: nothing by itself, and what the documents say to do instead."""

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
    """Return the words of the command in the document that begins like that."""
    (line,) = re.findall(rf"^\$ kubectl ({re.escape(start)}.*)$", DOCUMENT.read_text(), re.MULTILINE)
    return [word.replace("IMAGE", "busybox") for word in line.replace(" -it", "").split()]


def asked(namespace: str, folder: Path, profile: str) -> tuple[list[str], Json]:
    """Return the documented command with that profile, and the profile, which is written into the folder."""
    (content,) = re.findall(rf"^\$ echo '(.*)' > {profile}$", DOCUMENT.read_text(), re.MULTILINE)
    (folder / profile).write_text(content)
    words = documented(f"debug box -it --image IMAGE --custom {profile}")
    command = [str(folder / word) if word == profile else word for word in words]
    return [*command, "--container=asked", f"--namespace={namespace}"], json.loads(content)


def test_an_ephemeral_container_gets_nothing_unless_its_profile_says_so(
    controlplane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    created(controlplane, pod({"containers": [container("a")]}, DEVBOX), namespace)
    controlplane.kubectl("debug", "box", "--image=busybox", "--container=plain", f"--namespace={namespace}")
    command, profile = asked(namespace, tmp_path, "secrets.json")
    controlplane.kubectl(*command)
    spec = get(controlplane, "pod", "box", f"--namespace={namespace}")["spec"]
    assert {each["name"]: each.get("envFrom") for each in spec["ephemeralContainers"]} == {
        "plain": None,
        "asked": profile["envFrom"],
    }
    assert spec["containers"][0]["envFrom"] == [OURS]


def test_an_ephemeral_container_mounts_the_files_if_its_profile_says_so(
    controlplane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    annotations = {ENV: "", MOUNT: DEFAULT_PATH}
    created(controlplane, pod({"containers": [container("a")]}, DEVBOX, annotations), namespace)
    command, profile = asked(namespace, tmp_path, "files.json")
    controlplane.kubectl(*command)
    spec = get(controlplane, "pod", "box", f"--namespace={namespace}")["spec"]
    (debugger,) = spec["ephemeralContainers"]
    assert debugger["volumeMounts"] == profile["volumeMounts"] == spec["containers"][0]["volumeMounts"]


def test_a_copy_is_a_devbox_again_when_it_keeps_the_labels(controlplane: ControlPlane, namespace: str) -> None:
    created(controlplane, pod({"containers": [container("a")]}, DEVBOX), namespace)
    controlplane.kubectl(*documented("debug box -it --image IMAGE --copy-to"), f"--namespace={namespace}")
    spec = get(controlplane, "pod", "box-copy", f"--namespace={namespace}")["spec"]
    assert [each["envFrom"] for each in spec["containers"]] == [[OURS], [OURS]]
