"""README's session, run as it is printed there."""

import re
from pathlib import Path

from harness.kind import Cluster
from harness.shell import environment, run, sessions

README = Path(__file__).parents[2] / "README.md"
#: What differs from one run to the next: a key's id, an age, a token's end.
VARIES = re.compile(r"\b[0-9a-f]{16}\b|\b\d+s\b|ghp_\S+")


def test_readmes_session_prints_what_it_says(
    cluster: Cluster, namespace: str, devbox_image: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("ghp_canary\n")
    env = environment(tmp_path, cluster.kubeconfig, DEVBOX_IMAGE=devbox_image)
    steps = sessions(README.read_text())[0]
    assert len(steps) >= 6
    run([f"kubectl config set-context --current --namespace {namespace}"], tmp_path, env)
    wait = "kubectl wait --for condition=Ready accountsecret/github-token > ready && "
    commands = [f"{wait if 'get accountsecrets' in step.command else ''}{step.command}" for step in steps]
    for step, ran in zip(steps, run(commands, tmp_path, env), strict=True):
        assert ran.code == 0, f"{step.command}: {ran.output}"
        # Where README leaves out what kubectl says of itself, so does this.
        assert not step.shown or same(ran.output) == same(step.shown)


def same(text: str) -> list[list[str]]:
    return [VARIES.sub("…", line).split() for line in text.strip().splitlines()]
