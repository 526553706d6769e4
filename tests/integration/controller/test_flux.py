"""A folder of AccountSecrets applied by Flux: readiness, drift, a reseal, and pruning.

The program is tests/harness/tools/flux-apply, which uses the library of Flux's kustomize-controller.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from devbox_secrets.api.names import account_secrets_path
from devbox_secrets.crypto.envelope import key_id_of
from harness.controlplane import ControlPlane
from harness.tools import tool
from integration.support.account import SECRET, Account
from integration.support.chart import Json, install
from integration.support.gateway import publish_key
from integration.support.processes import Operator, command, operator, seal


@dataclass(frozen=True)
class Repository:
    """A folder of manifests in Git that Flux applies."""

    account: Account
    folder: Path

    @property
    def kubeconfig(self) -> Path:
        return self.account.controlplane.kubeconfig

    def seal(self, name: str, value: bytes, account: str | None = None) -> None:
        """Write a value's manifest; if it is sealed for another account, it can't be decrypted in this one."""
        done = seal(self.account.controlplane, name, value, account or self.account.name)
        assert done.returncode == 0, done.stderr
        self.path(name).write_text(done.stdout.replace(f"namespace: {account}", f"namespace: {self.account.name}"))

    def path(self, name: str) -> Path:
        return self.folder / f"{name.lower()}.yaml"

    def reconcile(self, timeout: str = "60s") -> subprocess.CompletedProcess[str]:
        inventory = self.folder.with_name("inventory.yaml")
        program: list[str | Path] = [tool("flux-apply"), f"-timeout={timeout}", self.folder, inventory]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        return subprocess.run(program, env=environment, capture_output=True, text=True, check=False)

    def changes(self) -> dict[str, str]:
        """Reconcile until everything is ready, and return the action for each AccountSecret."""
        done = self.reconcile()
        assert done.returncode == 0, done.stderr
        words = (line.split() for line in done.stdout.splitlines())
        return {subject.removeprefix(f"AccountSecret/{self.account.name}/"): action for subject, action in words}

    def stored(self, name: str) -> Json:
        return self.account.controlplane.request("GET", account_secrets_path(self.account.name, name))

    def secret(self) -> Json:
        """Return the metadata of the account Secret."""
        path = f"/api/v1/namespaces/{self.account.name}/secrets/{SECRET}"
        found: Json = self.account.controlplane.request("GET", path)["metadata"]
        return found


@pytest.fixture(scope="module", autouse=True)
def _installed(controlplane: ControlPlane) -> None:
    install(controlplane)
    publish_key(controlplane)


@pytest.fixture
def repository(controlplane: ControlPlane, namespace: str, tmp_path: Path) -> Repository:
    """A folder with two sealed values."""
    it = Repository(Account.of(controlplane, namespace), tmp_path / "git")
    it.folder.mkdir()
    it.seal("TOKEN", b"first")
    it.seal("PASSWORD", b"other")
    return it


@pytest.fixture
def synced(repository: Repository, running: Operator) -> Repository:
    """The same folder, applied once while the operator runs."""
    assert repository.changes() == {"token": "created", "password": "created"}
    return repository


def test_flux_waits_for_unprocessed_accountsecrets(controlplane: ControlPlane, repository: Repository) -> None:
    done = repository.reconcile("1s")
    assert done.returncode == 1
    subject = f"AccountSecret/{repository.account.name}"
    assert f"{subject}/token status: 'InProgress'" in done.stderr
    assert f"{subject}/password status: 'InProgress'" in done.stderr
    with operator(controlplane):
        assert repository.changes() == {"token": "unchanged", "password": "unchanged"}


def test_values_are_synced_when_flux_is_done(synced: Repository) -> None:
    assert synced.account.data() == {"TOKEN": b"first", "PASSWORD": b"other"}
    synced.seal("TOKEN", b"second")
    assert synced.changes() == {"token": "configured", "password": "unchanged"}
    assert synced.account.data() == {"TOKEN": b"second", "PASSWORD": b"other"}


def test_flux_waits_until_the_timeout_for_a_value_that_cannot_be_opened(synced: Repository) -> None:
    synced.seal("TOKEN", b"first", account="elsewhere")
    done = synced.reconcile("2s")
    assert done.returncode == 1
    assert f"[AccountSecret/{synced.account.name}/token status: 'InProgress']" in done.stderr
    assert synced.account.is_ready("token", "CannotOpen")


def test_flux_reverts_a_manual_change(controlplane: ControlPlane, synced: Repository) -> None:
    other = json.dumps(synced.account.manifest("TOKEN", b"by hand"))
    controlplane.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", input=other)
    synced.account.holds({"TOKEN": b"by hand", "PASSWORD": b"other"})
    assert synced.changes() == {"token": "configured", "password": "unchanged"}
    assert synced.account.data() == {"TOKEN": b"first", "PASSWORD": b"other"}


def test_flux_does_not_consider_the_operators_writes_drift(synced: Repository) -> None:
    before = synced.stored("token"), synced.secret()
    assert synced.changes() == {"token": "unchanged", "password": "unchanged"}
    assert (synced.stored("token"), synced.secret()) == before


def test_a_reseal_changes_the_sealed_values_but_not_the_account_secret(
    controlplane: ControlPlane, synced: Repository
) -> None:
    before, secret = synced.stored("token"), synced.secret()
    for arguments in (["keys", "rotate"], ["reseal", str(synced.folder)]):
        done = command(controlplane.kubeconfig, *arguments)
        assert done.returncode == 0, done.stderr
    assert synced.changes() == {"token": "configured", "password": "configured"}
    after = synced.stored("token")
    assert key_id_of(after["spec"]["sealed"]) == after["status"]["keyId"] != before["status"]["keyId"]
    assert after["status"]["changedAt"] == before["status"]["changedAt"]
    assert synced.secret() == secret


def test_a_value_deleted_from_git_is_deleted_from_the_account_secret(synced: Repository) -> None:
    synced.path("PASSWORD").unlink()
    assert synced.changes() == {"token": "unchanged", "password": "deleted"}
    synced.account.holds({"TOKEN": b"first"})
    synced.path("TOKEN").unlink()
    assert synced.changes() == {"token": "deleted"}
    synced.account.holds(None)


def test_flux_does_not_own_the_account_secret(synced: Repository) -> None:
    assert "kustomize.toolkit.fluxcd.io/name" in synced.stored("token")["metadata"]["labels"]
    assert "fluxcd" not in json.dumps(synced.secret())
