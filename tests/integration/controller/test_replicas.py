"""Two replicas, one writer: whatever ends the one, the other goes on, and no older value comes back."""

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
        return until("one of them writes", lambda: [it for it in (self.one, self.two) if it.leads()])[0]

    def other(self, leader: Operator) -> Operator:
        return self.two if leader is self.one else self.one


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane of our own: these tests restart it."""
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


def test_a_killed_leader_is_followed_soon(replicas: Replicas, account: Account) -> None:
    leader = replicas.leader()
    leader.component.kill()
    started = time.monotonic()
    account.put("TOKEN", b"second")
    account.holds({"TOKEN": b"second"})
    assert time.monotonic() - started < TAKEOVER_SECONDS
    assert replicas.other(leader).leads()


def test_a_leader_that_ends_well_is_followed_at_once(replicas: Replicas, account: Account) -> None:
    leader = replicas.leader()
    assert leader.component.stop() == 0
    started = time.monotonic()
    account.put("TOKEN", b"second")
    account.holds({"TOKEN": b"second"})
    assert time.monotonic() - started < TAKEOVER_SECONDS / 2


def test_the_follower_writes_nothing_again(replicas: Replicas, account: Account) -> None:
    leader = replicas.leader()
    leader.component.kill()
    other = replicas.other(leader)
    until("the other took over", other.leads)
    until("it looked at everything", lambda: other.metric("devbox_secrets_reconcile_duration_seconds_count") >= 1)
    until("it's through", lambda: other.metric("devbox_secrets_workqueue_depth") == 0)
    assert other.metric('devbox_secrets_writes_total{resource="secret"}') == 0
    assert other.metric('devbox_secrets_writes_total{resource="status"}') == 0


def test_a_frozen_leader_that_wakes_up_brings_no_older_value_back(
    replicas: Replicas, account: Account, tmp_path: Path
) -> None:
    leader = replicas.leader()
    other = replicas.other(leader)
    with history(account, tmp_path / "history") as seen:
        with frozen(leader):
            # The first value is all that the frozen one knows; it wakes up with this in its queue.
            account.put("TOKEN", b"second")
            until("the other took over", other.leads)
            account.holds({"TOKEN": b"second"})
        until("it knows that it's the leader no more", lambda: "lost the lease" in leader.log)
        account.put("TOKEN", b"third")
        account.holds({"TOKEN": b"third"})
        until("all was seen", lambda: seen()[-1:] == [b"third"])
    assert seen() == [b"first", b"second", b"third"]
    assert leader.metric('devbox_secrets_writes_total{resource="secret"}') == 1


@contextmanager
def history(account: Account, path: Path) -> Iterator[Callable[[], list[bytes]]]:
    """Watch the account Secret, and give every value of TOKEN that it ever held, in order."""
    kubeconfig = f"--kubeconfig={account.controlplane.kubeconfig}"
    watch: list[str | Path] = [tool("kubectl"), kubeconfig, "get", "secret", SECRET]
    watch += ["-n", account.name, "--watch", '-o=jsonpath={.data.TOKEN}{"\\n"}']
    with path.open("w") as file, subprocess.Popen(watch, stdout=file) as process:
        try:
            until("the watch began", path.read_text)
            yield lambda: [value for value, _ in groupby(map(base64.b64decode, path.read_text().split()))]
        finally:
            process.kill()


def test_a_restarted_api_server_changes_nothing(plane: ControlPlane, replicas: Replicas, account: Account) -> None:
    plane.apiserver.restart()
    account.put("TOKEN", b"second")
    account.holds({"TOKEN": b"second"})


def test_a_restarted_etcd_changes_nothing(plane: ControlPlane, replicas: Replicas, account: Account) -> None:
    plane.etcd.kill()
    plane.etcd.start()
    plane.etcd.wait_ready()
    plane.apiserver.wait_ready()
    account.put("TOKEN", b"second")
    account.holds({"TOKEN": b"second"})


def test_what_was_deleted_while_a_watch_was_lost_and_history_compacted_is_gone(
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
