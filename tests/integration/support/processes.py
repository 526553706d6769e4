"""The product as its users run it: the operator's process and the CLI, from the wheel."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.components import reserved_port
from harness.controlplane import ControlPlane
from harness.process import Component
from integration.support.chart import NAMESPACE

COMMAND = Path(sys.executable).with_name("devbox-secrets")
OPERATOR = (str(COMMAND), "operator")
END_SECONDS = 5
"""How long a program may take to exit before it is killed; a killed program reports no coverage."""


@dataclass(frozen=True)
class Process:
    """A program of the product as a child process, and the address of its probes."""

    component: Component
    url: str

    @property
    def log(self) -> str:
        return self.component.log.read_text()

    def get(self, path: str) -> str:
        """Return its response to /metrics, /readyz or /healthz."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:  # noqa: S310 - our own URL
            text: str = answer.read().decode()
            return text

    def metric(self, line: str) -> float:
        """Return a metric's value by its name and labels, or 0 if it doesn't exist yet."""
        for each in self.get("/metrics").splitlines():
            name, _, value = each.rpartition(" ")
            if name == line:
                return float(value)
        return 0.0


class Operator(Process):
    """The operator, with the permissions from the chart."""

    def leads(self) -> bool:
        """Return whether it runs and holds the lease."""
        try:
            return self.component.is_running() and self.metric("devbox_secrets_leader") == 1
        except OSError:  # it has just started
            return False

    def unready(self) -> str:
        """Return why it isn't ready; empty if it is."""
        try:
            self.get("/readyz")
        except urllib.error.HTTPError as error:
            text: str = error.read().decode()
            return text
        return ""


@contextmanager
def operator(
    controlplane: ControlPlane,
    folder: Path | None = None,
    server: str | None = None,
    probe: str = "readyz",
    program: Sequence[str] = OPERATOR,
    **settings: str,
) -> Iterator[Operator]:
    """Run the operator on a control plane with the chart installed; its log goes into the folder.

    It waits for the probe; use `healthz` for an operator that can't become ready. A test can pass another program.
    """
    kubeconfig = controlplane.service_account_kubeconfig(NAMESPACE, "devbox-secrets", server=server)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "MALLOC_ARENA_MAX": "1",  # as in the image
        "DEVBOX_SECRETS_PORT": str(port),
        "DEVBOX_SECRETS_LOG_LEVEL": "DEBUG",
        "DEVBOX_SECRETS_KEYS_REFRESH_SECONDS": "0.5",
        **{f"DEVBOX_SECRETS_{name.upper()}": value for name, value in settings.items()},
    }
    where = folder or controlplane.folder
    component = Component(Path(program[0]), program[1:], where, lambda: is_ready(url, probe), env)
    component.start()
    try:
        component.wait_ready()
        yield Operator(component, url)
    finally:
        component.stop(END_SECONDS)


def command(
    kubeconfig: Path, *arguments: str, value: bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, with a value on standard input."""
    # Disable colors, as in a pipe.
    env = {**os.environ, "KUBECONFIG": str(kubeconfig), "NO_COLOR": "1"}
    # Coverage makes a start 50 % slower, and unit tests run the same code, so only servers are measured.
    env.pop("COVERAGE_PROCESS_CONFIG", None)
    done = subprocess.run([COMMAND, *arguments], input=value, capture_output=True, env=env, cwd=cwd, check=False)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def seal(
    controlplane: ControlPlane, name: str, value: bytes, account: str, *options: str
) -> subprocess.CompletedProcess[str]:
    """Seal a value as a user does; the output is a manifest."""
    return command(controlplane.kubeconfig, "seal", name, f"--account={account}", *options, value=value)


def free_port() -> int:
    """Find a free port; only the program binds it."""
    with reserved_port() as port:
        return port


def is_ready(url: str, probe: str = "readyz") -> bool:
    try:
        with urllib.request.urlopen(f"{url}/{probe}", timeout=1) as answer:  # noqa: S310 - our own URL
            return bool(answer.status == 200)
    except OSError:
        return False
