"""A user's chart with an AccountSecret, applied by `helm upgrade --wait`."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import helm, install
from integration.support.gateway import publish_key
from integration.support.processes import Operator, operator


@dataclass(frozen=True)
class Chart:
    """A chart whose only template is an AccountSecret."""

    account: Account
    folder: Path

    def upgrade(self, value: bytes, timeout: str, sealed_for: str | None = None) -> subprocess.CompletedProcess[str]:
        body = self.account.manifest("TOKEN", value, sealed_for=sealed_for)
        (self.folder / "templates" / "token.yaml").write_text(yaml.safe_dump(body))
        options = ("--install", "--wait", f"--timeout={timeout}", f"--namespace={self.account.name}")
        kubeconfig = self.account.controlplane.kubeconfig
        return helm("upgrade", "team", str(self.folder), *options, kubeconfig=kubeconfig)


@pytest.fixture(scope="module", autouse=True)
def _installed(controlplane: ControlPlane) -> None:
    install(controlplane)
    publish_key(controlplane)


@pytest.fixture
def chart(controlplane: ControlPlane, namespace: str, tmp_path: Path) -> Chart:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: team, version: 0.1.0}\n")
    return Chart(Account.of(controlplane, namespace), tmp_path)


def test_helm_waits_for_an_unprocessed_accountsecret(controlplane: ControlPlane, chart: Chart) -> None:
    done = chart.upgrade(b"first", "1s")
    assert done.returncode == 1
    assert f"AccountSecret/{chart.account.name}/token not ready. status: InProgress" in done.stderr
    with operator(controlplane):
        assert chart.upgrade(b"first", "60s").returncode == 0


def test_the_value_is_synced_when_helm_is_done(chart: Chart, running: Operator) -> None:
    for value in (b"first", b"second"):
        done = chart.upgrade(value, "60s")
        assert done.returncode == 0, done.stderr
        assert chart.account.data() == {"TOKEN": value}


def test_a_value_that_cannot_be_opened_fails_the_release_at_the_timeout(chart: Chart, running: Operator) -> None:
    done = chart.upgrade(b"first", "2s", sealed_for="elsewhere")
    assert done.returncode == 1
    assert f"AccountSecret/{chart.account.name}/token not ready. status: InProgress" in done.stderr
    assert chart.account.is_ready("token", "CannotOpen")
