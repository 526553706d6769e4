"""What Helm and kubectl do to the Secret of the sealing keys, with two running replicas, one and none."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import CHART, NAMESPACE, get, release, settle, until
from integration.support.processes import Operator, command, operator
from integration.support.sealing_keys import (
    CONFIGMAP,
    SECRET,
    is_published,
    new_key,
    put_sealed,
    requested,
    store,
    stored,
)

FORCE = ("--force-replace", "--server-side=false")
#: The manifest in older charts, whose operator couldn't create the Secret.
OLD_MANIFEST = """apiVersion: v1
kind: Secret
metadata:
  name: devbox-secrets-keys
  namespace: devbox-secrets
  labels:
    app.kubernetes.io/name: devbox-secrets
    app.kubernetes.io/version: "0.1.0"
  annotations:
    helm.sh/resource-policy: keep
type: Opaque
"""


def _replace_by_force(it: ControlPlane) -> None:
    # It deletes the Secret and creates another one, unless the operator was faster.
    done = it.kubectl("replace", "--force", "--filename=-", input=OLD_MANIFEST, check=False)
    assert done.returncode == 0 or "already exists" in done.stderr, done.stderr


WAYS: dict[str, Callable[[ControlPlane], object]] = {
    "helm upgrade": lambda it: release(it, "upgrade", str(CHART), *FORCE),
    "kubectl replace --force": _replace_by_force,
    "kubectl delete": lambda it: it.kubectl("delete", *SECRET),
    "an empty replacement": lambda it: it.kubectl("replace", "--filename=-", input=OLD_MANIFEST),
}
NEW, OLD = KEYS = new_key(days=1), new_key(days=2)
ALL = {key.public.id: key for key in KEYS}


@pytest.fixture(scope="module")
def old_chart(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a chart like older ones: it contains the Secret, and the operator can't create one."""
    chart = tmp_path_factory.mktemp("former") / "devbox-secrets"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "old-keys.yaml").write_text(OLD_MANIFEST)
    rbac = chart / "templates" / "rbac.yaml"
    current, old = "resourceNames: [devbox-secrets-keys]\n    verbs: [get, create, patch]", "[get, patch]"
    assert current in rbac.read_text()
    rbac.write_text(rbac.read_text().replace(current, current.replace("[get, create, patch]", old)))
    return str(chart)


@pytest.fixture(scope="module")
def controlplane(old_chart: str) -> Iterator[ControlPlane]:
    with ControlPlane.start() as it:
        release(it, "install", old_chart, "--create-namespace")
        settle(it)
        yield it


@pytest.fixture(scope="module")
def upgraded(controlplane: ControlPlane) -> ControlPlane:
    """The control plane, upgraded to the current chart."""
    release(controlplane, "upgrade", str(CHART))
    return controlplane


@pytest.fixture
def account(upgraded: ControlPlane, namespace: str) -> Account:
    """An account with a value that is sealed with the older of the two keys."""
    store(upgraded, *KEYS)
    it = Account(upgraded, NEW.public, namespace)
    put_sealed(it, OLD, "TOKEN", b"x")
    return it


@pytest.fixture
def backup(account: Account, tmp_path: Path) -> list[str]:
    """Back up the keys, and return the arguments of the command that restores them."""
    (tmp_path / "passphrase").write_text("correct horse battery staple")
    arguments = [str(tmp_path / "backup"), f"--passphrase-file={tmp_path / 'passphrase'}"]
    assert command(account.controlplane.kubeconfig, "keys", "backup", *arguments).returncode == 0
    return arguments


def restore(controlplane: ControlPlane, backup: list[str]) -> list[str]:
    """Restore the keys, and return the result for each."""
    done = command(controlplane.kubeconfig, "keys", "restore", *backup)
    assert done.returncode == 0, done.stderr
    return [line.split(",")[0].split(" ", 1)[1] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("options", [(), FORCE], ids=["upgrade", "upgrade with replacement"])
def test_upgrades_from_a_chart_with_the_secret_keep_it(
    controlplane: ControlPlane, old_chart: str, options: tuple[str, ...]
) -> None:
    controlplane.kubectl("delete", *SECRET, "--ignore-not-found")
    release(controlplane, "upgrade", old_chart)
    store(controlplane, *KEYS)
    # As documented for tools that prune.
    unpruned = ("argocd.argoproj.io/sync-options=Prune=false", "kustomize.toolkit.fluxcd.io/prune=disabled")
    controlplane.kubectl("annotate", *SECRET, *unpruned)
    for _ in range(2):
        release(controlplane, "upgrade", str(CHART), *options)
        assert stored(controlplane) == ALL


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_running_operator_preserves_the_keys(
    account: Account, backup: list[str], tmp_path: Path, replicas: int
) -> None:
    controlplane = account.controlplane
    with ExitStack() as stack:
        for number in range(replicas):
            (tmp_path / str(number)).mkdir()
            stack.enter_context(operator(controlplane, tmp_path / str(number), keys_refresh_seconds="0.1"))
        account.is_ready("token")
        for way, destroy in WAYS.items():
            is_published(controlplane, ALL)
            before = get(controlplane, *SECRET)["metadata"]["resourceVersion"]
            destroy(controlplane)
            until(f"the keys exist after {way}", lambda: stored(controlplane) == ALL)
            written = get(controlplane, *SECRET)["metadata"]["resourceVersion"] != before
            assert written is (way != "helm upgrade"), way
            assert restore(controlplane, backup) == ["already exists"] * 2, way
            is_published(controlplane, ALL)
        account.is_ready(put_sealed(account, OLD, "OTHER", b"y"))
        account.holds({"TOKEN": b"x", "OTHER": b"y"})


def test_an_operator_that_exits_writes_the_keys_back(account: Account, tmp_path: Path) -> None:
    controlplane = account.controlplane
    with operator(controlplane, tmp_path, keys_refresh_seconds="3600") as it:
        is_published(controlplane, ALL)
        controlplane.kubectl("delete", *SECRET)
        assert it.component.stop(timeout=10) == 0
        assert "wrote back lost sealing keys from memory" in it.log
    assert stored(controlplane) == ALL


def test_keys_lost_without_an_operator_are_reported_until_they_are_restored(
    account: Account, backup: list[str], tmp_path: Path
) -> None:
    controlplane = account.controlplane
    with operator(controlplane, tmp_path) as it:
        account.is_ready("token")
        it.component.stop()
    for way, destroy in WAYS.items():
        destroy(controlplane)
        if way == "helm upgrade":
            assert stored(controlplane) == ALL
            continue
        (tmp_path / way).mkdir()
        with operator(controlplane, tmp_path / way, probe="healthz", keys_refresh_seconds="0.1") as it:
            _check_that_lost_keys_are_reported(it, controlplane)
            assert stored(controlplane) == {}
            account.is_ready("token", "UnknownKey")
            assert account.data() == {"TOKEN": b"x"}
            assert restore(controlplane, backup) == ["restored"] * 2
            until("it's ready", lambda: not it.unready())
            is_published(controlplane, ALL)
            account.is_ready("token")
            account.holds({"TOKEN": b"x"})
            it.component.stop()  # so that it releases the Lease, and the next one needn't wait
        assert stored(controlplane) == ALL


def test_without_a_backup_rotate_creates_a_new_key(account: Account, tmp_path: Path) -> None:
    controlplane = account.controlplane
    controlplane.kubectl("delete", *SECRET)
    with operator(controlplane, tmp_path, probe="healthz", keys_refresh_seconds="0.1") as it:
        _check_that_lost_keys_are_reported(it, controlplane)
        done = command(controlplane.kubeconfig, "keys", "rotate")
        assert (done.returncode, list(stored(controlplane))) == (0, [done.stdout.strip()])
        assert not requested(controlplane)
        until("it's ready", lambda: not it.unready())
        account.is_ready("token", "UnknownKey")


def _check_that_lost_keys_are_reported(it: Operator, controlplane: ControlPlane) -> None:
    until("it isn't ready", lambda: "all sealing keys are lost" in it.unready())
    until("no key is published", lambda: not get(controlplane, *CONFIGMAP).get("data"))
    assert it.metric("devbox_secrets_sealing_keys_lost") == 1
    assert it.log.count(" ERROR ") == 1
    events = get(controlplane, "events.events.k8s.io", f"--namespace={NAMESPACE}")["items"]
    assert ("devbox-secrets-keys", "SealingKeysLost") in {
        (event["regarding"]["name"], event["reason"]) for event in events
    }
    checked = json.loads(command(controlplane.kubeconfig, "check", "--output=json").stdout)
    (found,) = (line for line in checked if line["check"] == "sealing key")
    assert found["level"] == "error"
    assert "devbox-secrets keys restore FILE" in found["text"]
