"""An account in tests on a real cluster."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from harness import release
from harness.kind import Cluster

DEVBOX = {"devbox-secrets.dev/devbox": "true"}
SECRET = "devbox-account-secrets"  # noqa: S105 - a Secret's name
COMMAND = Path(sys.executable).with_name("devbox-secrets")
#: The most verbose log level of the operator, because tests search its log for values.
DEBUG_LOG = "--set=logLevel=DEBUG"
#: As process 1, a shell exits on SIGTERM, unlike sleep.
IDLE = ["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"]
PRINT = 'echo "$NAME: ${TOKEN-not set}"'

Json = dict[str, Any]


@dataclass(frozen=True)
class Account:
    """An account, used as its developers do: with the CLI, kubectl and pods."""

    cluster: Cluster
    name: str
    image: str

    def seal(self, variable: str, value: str, *options: str, account: str | None = None) -> str:
        where = ("--account", account or self.name, "--kubeconfig", self.cluster.kubeconfig)
        done = subprocess.run(
            [COMMAND, "seal", variable, *where, *options],
            input=value,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def apply(self, manifest: str) -> None:
        self.cluster.kubectl("apply", "-n", self.name, "-f", "-", stdin=manifest)

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments)

    def sync(self, variable: str, value: str) -> None:
        """Apply a value and wait until devboxes get it."""
        self.apply(self.seal(variable, value))
        name = variable.lower().replace("_", "-")
        self.kubectl("wait", "--for=condition=Ready", f"accountsecret/{name}", "--timeout=20s")

    def container(self, name: str, **fields: object) -> Json:
        env = [{"name": "NAME", "value": name}]
        return {"name": name, "image": self.image, "command": ["sh", "-c", PRINT], "env": env, **fields}

    def spec(self, *containers: Json, **fields: object) -> Json:
        return {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": list(containers), **fields}

    def create(self, kind: str, name: str, spec: Json, api: str = "v1", **metadata: dict[str, str]) -> None:
        body = {"apiVersion": api, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}
        self.cluster.kubectl("create", "-n", self.name, "-f", "-", stdin=json.dumps(body))

    def run(self, name: str, spec: Json | None = None, **metadata: dict[str, str]) -> str:
        """Run a pod until it completes, and return what it prints; it is a devbox unless it has other labels."""
        self.create("Pod", name, spec or self.spec(self.container("main")), "v1", **{"labels": DEVBOX, **metadata})
        self.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=60s")
        # The kubelet can return an empty log for a moment after the containers have terminated.
        until("the pod has an output", lambda: self.kubectl("logs", name, "--all-containers"))
        return self.kubectl("logs", name, "--all-containers")


@contextmanager
def repeatedly(account: Account, *actions: Callable[[Account, int], None]) -> Iterator[list[int]]:
    """Repeat each function with a counter during the context, and yield a list that has the counts afterwards."""
    stop = Event()
    calls: list[int] = []

    def repeat(action: Callable[[Account, int], None]) -> int:
        number = 0
        while not stop.is_set():
            action(account, number)
            number += 1
        return number

    with ThreadPoolExecutor() as threads:
        running = [threads.submit(repeat, action) for action in actions]
        try:
            yield calls
        finally:
            stop.set()
        calls += [each.result() for each in running]


def try_devbox(account: Account, _: int) -> None:
    """Create a devbox in a dry run, and check that it gets secrets."""
    box = ("run", "another", f"--labels={release.DEVBOX}", "--image=none", "--dry-run=server", "--output=json")
    assert "envFrom" in account.kubectl(*box)


def until(awaited: str, ask: Callable[[], object], seconds: float = 60) -> float:
    """Wait until it is true, and return how many seconds that took."""
    started = time.monotonic()
    while not ask():
        assert time.monotonic() - started < seconds, f"waited {seconds:.0f} s, but not: {awaited}"
        time.sleep(0.05)
    return time.monotonic() - started
