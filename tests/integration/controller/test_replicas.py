"""Two replicas, of which one writes: when it fails, the other takes over, and no older value is restored."""

import base64
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from uuid import uuid4

import pytest

from harness.controlplane import ControlPlane
from harness.tools import tool
from integration.support.account import SECRET, Account
from integration.support.chart import NAMESPACE, get, install, until
from integration.support.processes import Operator, operator

TAKEOVER_SECONDS = 15.0


@dataclass(frozen=True)
class Replicas:
    """Two operators side by side."""

    one: Operator
    two: Operator

    def leader(self) -> Operator:
        return until("one of them is the leader", lambda: [it for it in (self.one, self.two) if it.leads()])[0]

    def other(self, leader: Operator) -> Operator:
        return self.two if leader is self.one else self.one


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A separate control plane, because these tests restart it."""
    with ControlPlane.start() as it:
        install(it)
        yield it


@pytest.fixture
def replicas(plane: ControlPlane, tmp_path: Path) -> Iterator[Replicas]:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with operator(plane, tmp_path / "one") as one, operator(plane, tmp_path / "two") as two:
        yield Replicas(one, two)


@pytest.fixture
def account(plane: ControlPlane, replicas: Replicas) -> Iterator[Account]:
    replicas.leader()
    name = f"test-{uuid4().hex[:8]}"
    plane.kubectl("create", "namespace", name)
    it = Account.of(plane, name)
    it.is_ready(it.put("TOKEN", b"first"))
    yield it
    plane.kubectl("delete", "namespace", name, "--wait=false")


@contextmanager
def frozen(it: Operator) -> Iterator[None]:
    os.kill(it.component.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(it.component.pid, signal.SIGCONT)


def test_one_writes_and_both_are_ready(replicas: Replicas, account: Account) -> None:
    leader = replicas.leader()
    other = replicas.other(leader)
    assert not other.leads()
    for it in (leader, other):
        assert it.get("/readyz") == it.get("/healthz") == "ok"
    assert leader.metric('devbox_secrets_writes_total{resource="secret"}') >= 1
    assert other.metric('devbox_secrets_writes_total{resource="secret"}') == 0


def test_a_killed_leader_is_replaced_soon(replicas: Replicas, account: Account) -> None:
    leader = replicas.leader()
    leader.component.kill()
    started = time.monotonic()
    account.put("TOKEN", b"second")
    account.holds({"TOKEN": b"second"})
    assert time.monotonic() - started < TAKEOVER_SECONDS
    assert replicas.other(leader).leads()


def test_a_leader_that_shuts_down_is_replaced_immediately(replicas: Replicas, account: Account) -> None:
    leader = replicas.leader()
    assert leader.component.stop() == 0
    started = time.monotonic()
    account.put("TOKEN", b"second")
    account.holds({"TOKEN": b"second"})
    assert time.monotonic() - started < TAKEOVER_SECONDS / 2


def test_a_new_leader_repeats_no_writes(replicas: Replicas, account: Account) -> None:
    leader = replicas.leader()
    leader.component.kill()
    other = replicas.other(leader)
    until("the other one is the leader", other.leads)
    until("it has reconciled the account", lambda: other.metric("devbox_secrets_reconcile_duration_seconds_count") >= 1)
    until("its queue is empty", lambda: other.metric("devbox_secrets_workqueue_depth") == 0)
    assert other.metric('devbox_secrets_writes_total{resource="secret"}') == 0
    assert other.metric('devbox_secrets_writes_total{resource="status"}') == 0


def test_a_frozen_leader_that_resumes_restores_no_older_value(
    replicas: Replicas, account: Account, tmp_path: Path
) -> None:
    leader = replicas.leader()
    other = replicas.other(leader)
    with history(account, tmp_path / "history") as seen:
        with frozen(leader):
            # The frozen leader knows only the first value, and resumes with it in its queue.
            account.put("TOKEN", b"second")
            until("the other one is the leader", other.leads)
            account.holds({"TOKEN": b"second"})
        until("it knows that it lost the lease", lambda: "lost the lease" in leader.log)
        account.put("TOKEN", b"third")
        account.holds({"TOKEN": b"third"})
        until("the watch has shown all values", lambda: seen()[-1:] == [b"third"])
    assert seen() == [b"first", b"second", b"third"]
    assert leader.metric('devbox_secrets_writes_total{resource="secret"}') == 1


@contextmanager
def history(account: Account, path: Path) -> Iterator[Callable[[], list[bytes]]]:
    """Watch the account Secret, and yield a function that returns all values of TOKEN so far, in order."""
    kubeconfig = f"--kubeconfig={account.controlplane.kubeconfig}"
    watch: list[str | Path] = [tool("kubectl"), kubeconfig, "get", "secret", SECRET]
    watch += ["-n", account.name, "--watch", '-o=jsonpath={.data.TOKEN}{"\\n"}']
    with path.open("w") as file, subprocess.Popen(watch, stdout=file) as process:
        try:
            until("the watch has started", path.read_text)
            yield lambda: [value for value, _ in groupby(map(base64.b64decode, path.read_text().split()))]
        finally:
            process.kill()


def test_updates_work_after_a_restart_of_the_api_server(
    plane: ControlPlane, replicas: Replicas, account: Account
) -> None:
    plane.apiserver.restart()
    account.put("TOKEN", b"second")
    account.holds({"TOKEN": b"second"})


def test_updates_work_after_a_restart_of_etcd(plane: ControlPlane, replicas: Replicas, account: Account) -> None:
    plane.etcd.kill()
    plane.etcd.start()
    plane.etcd.wait_ready()
    plane.apiserver.wait_ready()
    account.put("TOKEN", b"second")
    account.holds({"TOKEN": b"second"})


def test_a_deletion_that_was_compacted_away_takes_effect(
    plane: ControlPlane, replicas: Replicas, account: Account
) -> None:
    one = account.put("ONE", b"1")
    account.is_ready(one)
    leader = replicas.leader()
    other = replicas.other(leader)
    with frozen(leader), frozen(other):
        account.delete(one)
        plane.compact()
        plane.apiserver.restart()
    account.holds({"TOKEN": b"first"})


def test_the_lease_names_its_holder(plane: ControlPlane, replicas: Replicas, account: Account) -> None:
    spec = get(plane, "lease", "devbox-secrets", "-n", NAMESPACE)["spec"]
    assert spec["holderIdentity"]
    assert spec["leaseDurationSeconds"] < TAKEOVER_SECONDS
