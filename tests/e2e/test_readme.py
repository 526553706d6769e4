"""Runs the commands of README and of the quick start, and compares their output with the pages."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.kind import Cluster
from harness.shell import Step, environment, run, sessions

ROOT = Path(__file__).parents[2]
#: Key ids and ages, which differ between runs.
VARIES = re.compile(r"\b[0-9a-f]{16}\b|\b\d+s\b")


def readme() -> list[Step]:
    """Return the steps of README's first block, and wait where a reader is slower than the operator."""
    steps = sessions((ROOT / "README.md").read_text())[0]
    wait = "kubectl wait --for condition=Ready accountsecret/github-token > ready && "
    return [Step(f"{wait if 'get accountsecrets' in it.command else ''}{it.command}", it.shown) for it in steps]


def quick_start() -> list[Step]:
    """Return the steps of the quick start after the installation and the creation of the account."""
    _, _, text = (ROOT / "docs" / "quick-start.md").read_text().partition("\n## Seal and apply a value\n")
    return [step for block in sessions(text) for step in block]


@pytest.mark.parametrize("document", [readme, quick_start], ids=lambda it: it.__name__)
def test_the_documented_commands_print_what_the_page_shows(
    cluster: Cluster, namespace: str, devbox_image: str, tmp_path: Path, document: Callable[[], list[Step]]
) -> None:
    (tmp_path / "token").write_text("ghp_canary\n")
    env = environment(tmp_path, cluster.kubeconfig, DEVBOX_IMAGE=devbox_image)
    steps = document()
    assert len(steps) >= 6
    run([f"kubectl config set-context --current --namespace {namespace}"], tmp_path, env)
    for step, ran in zip(steps, run([step.command for step in steps], tmp_path, env), strict=True):
        assert ran.code == 0, f"{step.command}: {ran.output}"
        # The pages omit the output of some commands.
        assert not step.shown or normalize(ran.output) == normalize(step.shown)


def normalize(text: str) -> list[list[str]]:
    return [VARIES.sub("…", line).split() for line in text.strip().splitlines()]
