"""Runs the commands of docs/sessions.md and compares their output with the page."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness import shell
from harness.controlplane import ControlPlane
from integration.support.chart import NAMESPACE, get, install, until
from integration.support.kubelet import make_ready, run_devbox
from integration.support.output import normalize
from integration.support.processes import operator

SESSIONS = Path(__file__).parents[3] / "docs" / "sessions.md"
FILES = {
    "token": "ghp_canary_1\n",
    "new-token": "ghp_canary_2",
    "damaged.env": "REGION=canary\nKEY=-----BEGIN KEY-----\ncanary\ncanary=\n-----END KEY-----\nTOKEN=canary\n",
    ".env": "GITHUB_TOKEN=canary-3\nexport DB='canary-4'\nPATH=/canary-5\nREGISTRY=${DB}/canary-6\n",
    "passphrase": "a passphrase for the test\n",
    "plain.yaml": (
        "apiVersion: devbox-secrets.dev/v1beta1\nkind: AccountSecret\nmetadata: {name: token, namespace: team-a}\n"
        "spec:\n  name: TOKEN\n  sealed: canary-7\n"
    ),
}


@dataclass(frozen=True)
class Shell:
    """A developer's shell: a folder and an environment with a kubeconfig."""

    controlplane: ControlPlane
    folder: Path
    env: dict[str, str]

    def run(self, commands: list[str]) -> list[str]:
        """Run commands in sequence in one shell and return what each prints."""
        return [ran.output for ran in shell.run(commands, self.folder, self.env)]


def sessions() -> dict[str, list[shell.Step]]:
    """Return the commands of each section with the output that the page shows."""
    sections = (section.partition("\n") for section in SESSIONS.read_text().split("\n## ")[1:])
    return {title: [step for block in shell.sessions(text) for step in block] for title, _, text in sections}


@pytest.fixture(scope="module")
def developer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A control plane of its own, because `check` examines all of it."""
    with ControlPlane.start() as controlplane:
        install(controlplane)
        controlplane.kubectl("create", "namespace", "team-a")
        controlplane.kubectl("wait", "--for=create", "serviceaccount/default", "--namespace=team-a")
        folder = tmp_path_factory.mktemp("developer")
        env = shell.environment(folder, controlplane.kubeconfig)
        shell.run(["kubectl config set-context --current --namespace team-a"], folder, env)
        for name, text in FILES.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o600)
        with operator(controlplane, keys_refresh_seconds="0.5"):
            make_ready(controlplane, NAMESPACE, NAMESPACE)
            yield Shell(controlplane, folder, env)


def _devboxes_around_the_update(developer: Shell) -> None:
    body = get(developer.controlplane, "accountsecret", "github-token", "-n", "team-a")
    created = datetime.fromisoformat(body["metadata"]["creationTimestamp"])
    until("a devbox can start later than that", lambda: datetime.now(UTC) > created + timedelta(seconds=2))
    run_devbox(developer.controlplane, "team-a", "agent-1", timedelta(0))
    since = time.monotonic()
    until("the value changes later than that", lambda: time.monotonic() > since + 2)
    run_devbox(
        developer.controlplane,
        "team-a",
        "agent-2",
        timedelta(hours=1),
        {"devbox-secrets.dev/env": "TOKEN=GITHUB_TOKEN"},
    )


#: Preparations for a session besides its commands.
BEFORE: dict[str, Callable[[Shell], None]] = {"Change a value": _devboxes_around_the_update}


def test_the_output_is_as_shown(developer: Shell) -> None:
    # One test: each session continues where the previous one ended.
    for title, steps in sessions().items():
        assert steps, title
        if title in BEFORE:
            BEFORE[title](developer)
        shown = developer.run([step.command for step in steps])
        for step, output in zip(steps, shown, strict=True):
            assert "canary" not in output, step.command
            assert (title, step.command, normalize(output)) == (title, step.command, normalize(step.shown))


def test_every_command_has_a_session() -> None:
    reference = (SESSIONS.parent / "cli.md").read_text()
    commands = set(re.findall(r"^## ([a-z ]+)$", reference, re.MULTILINE))
    used = {step.command for steps in sessions().values() for step in steps}
    assert {name for name in commands if not any(f"devbox-secrets {name}" in each for each in used)} == set()
