"""What `kubectl debug` sees of a devbox's secrets: nothing by itself, and what the documents say to do instead."""

import json
import re
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from integration.support.chart import DEVBOX, container, created, get, install, pod
from integration.support.pod_cases import OURS

DOCUMENT = Path(__file__).parents[3] / "docs" / "concepts.md"


@pytest.fixture(scope="module", autouse=True)
def _installed(controlplane: ControlPlane) -> None:
    install(controlplane)


def documented(start: str) -> list[str]:
    """Return the words of the command in the document that begins like that."""
    (line,) = re.findall(rf"^\$ kubectl ({re.escape(start)}.*)$", DOCUMENT.read_text(), re.MULTILINE)
    return [word.replace("IMAGE", "busybox") for word in line.replace(" -it", "").split()]


def test_an_ephemeral_container_gets_nothing_unless_its_profile_says_so(
    controlplane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    created(controlplane, pod({"containers": [container("a")]}, DEVBOX), namespace)
    controlplane.kubectl("debug", "box", "--image=busybox", "--container=plain", f"--namespace={namespace}")
    (profile,) = re.findall(r"^\$ echo '(.*)' > secrets.json$", DOCUMENT.read_text(), re.MULTILINE)
    (tmp_path / "secrets.json").write_text(profile)
    command = " ".join(documented("debug box -it --image IMAGE --custom")).replace(
        "secrets.json", str(tmp_path / "secrets.json")
    )
    controlplane.kubectl(*command.split(), "--container=asked", f"--namespace={namespace}")
    spec = get(controlplane, "pod", "box", f"--namespace={namespace}")["spec"]
    assert {each["name"]: each.get("envFrom") for each in spec["ephemeralContainers"]} == {
        "plain": None,
        "asked": [json.loads(profile)["envFrom"][0]],
    }
    assert spec["containers"][0]["envFrom"] == [OURS]


def test_a_copy_is_a_devbox_again_when_it_keeps_the_labels(controlplane: ControlPlane, namespace: str) -> None:
    created(controlplane, pod({"containers": [container("a")]}, DEVBOX), namespace)
    controlplane.kubectl(*documented("debug box -it --image IMAGE --copy-to"), f"--namespace={namespace}")
    spec = get(controlplane, "pod", "box-copy", f"--namespace={namespace}")["spec"]
    assert [each["envFrom"] for each in spec["containers"]] == [[OURS], [OURS]]
