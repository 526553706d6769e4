"""README's session, run as it is printed there."""

import os
import re
import subprocess
import sys
from pathlib import Path

from cluster.kind import Cluster
from cluster.tools import tool

README = (Path(__file__).parents[2] / "README.md").read_text()
#: What differs from one run to the next: a key's id, an age, a token's end.
VARIES = re.compile(r"\b[0-9a-f]{16}\b|\b\d+s\b|ghp_\S+")


def test_readmes_session_prints_what_it_says(
    cluster: Cluster, namespace: str, devbox_image: str, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_bytes(cluster.kubeconfig.read_bytes())
    (tmp_path / "token").write_text("ghp_canary\n")
    env = {
        **os.environ,
        "PATH": f"{tool('kubectl').parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(kubeconfig),
        "DEVBOX_IMAGE": devbox_image,
    }

    def shell(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    shell(f"kubectl config set-context --current --namespace {namespace}")
    for command, printed in session():
        if "get accountsecrets" in command:
            shell("kubectl wait --for condition=Ready accountsecret/github-token")
        shown = shell(command)
        # Where README leaves out what kubectl says of itself, so does this.
        assert not printed or same(shown) == same(printed)
    assert len(list(session())) >= 6


def session() -> list[tuple[str, str]]:
    block = re.findall(r"```console\n(.*?)```", README, re.DOTALL)[0]
    parts = re.split(r"^\$ (.*)$", block, flags=re.MULTILINE)[1:]
    return [(command, printed.strip("\n")) for command, printed in zip(parts[::2], parts[1::2], strict=True)]


def same(text: str) -> list[list[str]]:
    return [VARIES.sub("…", line).split() for line in text.strip().splitlines()]
