"""The product as its users run it: the operator's process and the command, from the wheel. Imports cluster."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.components import reserved_port
from harness.controlplane import ControlPlane
from harness.process import Component
from integration.support.chart import NAMESPACE

COMMAND = Path(sys.executable).with_name("devbox-secrets")
END_SECONDS = 5
"""How long a program may take to end before it's killed; one that is killed doesn't tell what of it was run."""


@dataclass(frozen=True)
class Process:
    """One of the product's programs as a child process, and where it answers probes."""

    component: Component
    url: str

    @property
    def log(self) -> str:
        return self.component.log.read_text()

    def get(self, path: str) -> str:
        """Give what it answers at /metrics, /readyz or /healthz."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:  # noqa: S310 - our own
            text: str = answer.read().decode()
            return text

    def metric(self, line: str) -> float:
        """Give a metric's value by its name and labels, 0 where it hasn't been counted yet."""
        for each in self.get("/metrics").splitlines():
            name, _, value = each.rpartition(" ")
            if name == line:
                return float(value)
        return 0.0


class Operator(Process):
    """The operator, with the rights that the chart gives it."""

    def unready(self) -> str:
        """Say why it isn't ready, nothing when it is."""
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
    **settings: str,
) -> Iterator[Operator]:
    """Run the operator on a control plane where the chart is installed, and end it; its log goes into the folder.

    The probe is waited for: `healthz` for one that can't get ready.
    """
    kubeconfig = controlplane.service_account_kubeconfig(NAMESPACE, "devbox-secrets", server=server)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "DEVBOX_SECRETS_PORT": str(port),
        "DEVBOX_SECRETS_LOG_LEVEL": "DEBUG",
        "DEVBOX_SECRETS_KEYS_REFRESH_SECONDS": "0.5",
        **{f"DEVBOX_SECRETS_{name.upper()}": value for name, value in settings.items()},
    }
    component = Component(COMMAND, ["operator"], folder or controlplane.folder, lambda: is_ready(url, probe), env)
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
    # A pipe has no colors; neither has a test's terminal.
    env = {**os.environ, "KUBECONFIG": str(kubeconfig), "NO_COLOR": "1"}
    # Measuring makes a start half as slow again, and unit tests run the same code: servers alone are measured.
    env.pop("COVERAGE_PROCESS_CONFIG", None)
    done = subprocess.run([COMMAND, *arguments], input=value, capture_output=True, env=env, cwd=cwd, check=False)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def seal(
    controlplane: ControlPlane, name: str, value: bytes, account: str, *options: str
) -> subprocess.CompletedProcess[str]:
    """Seal a value as a user does; what is printed is a manifest."""
    return command(controlplane.kubeconfig, "seal", name, f"--account={account}", *options, value=value)


def free_port() -> int:
    """Find a free port; the program binds it alone."""
    with reserved_port() as port:
        return port


def is_ready(url: str, probe: str = "readyz") -> bool:
    try:
        with urllib.request.urlopen(f"{url}/{probe}", timeout=1) as answer:  # noqa: S310 - our own
            return bool(answer.status == 200)
    except OSError:
        return False
