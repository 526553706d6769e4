"""Cut and stalled watches, and an API server that crashes, is slow or rejects requests: no stale values remain."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from harness.controlplane import ControlPlane
from harness.watch_proxy import WatchProxy
from integration.support.account import Account
from integration.support.chart import ACCOUNT, install, until
from integration.support.processes import Operator, operator

VARIABLES = [f"TOKEN_{number}" for number in range(10)]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A separate control plane, because these tests kill its API server."""
    with ControlPlane.start() as it:
        install(it)
        yield it


@dataclass(frozen=True)
class Team:
    """An account, the operator, and the proxy between the operator and the API server."""

    account: Account
    operator: Operator
    proxy: WatchProxy

    def unready(self) -> str:
        """Return the readiness probe's error; empty if the operator is ready."""
        answer = httpx.get(f"{self.operator.url}/readyz", trust_env=False)
        return "" if answer.is_success else answer.text


@pytest.fixture
def team(plane: ControlPlane, tmp_path: Path) -> Iterator[Team]:
    """A team whose operator doesn't list everything periodically."""
    with (
        WatchProxy.start(plane) as proxy,
        operator(plane, tmp_path, server=proxy.url, resync_seconds="3600") as it,
    ):
        yield Team(Account.of(plane, "default").member(), it, proxy)


def test_deletions_while_the_watches_are_cut_take_effect(team: Team) -> None:
    account = team.account
    guest = account.member(**{ACCOUNT: account.name})
    for variable in [*VARIABLES, "STAYS"]:
        account.put(variable, b"x")
    account.holds(dict.fromkeys([*VARIABLES, "STAYS"], b"x"), guest.name)
    with team.proxy.cut():
        names = [variable.lower().replace("_", "-") for variable in VARIABLES]
        account.controlplane.kubectl("delete", "accountsecret", *names, "-n", account.name)
    account.holds({"STAYS": b"x"})
    account.holds({"STAYS": b"x"}, guest.name)


def test_deleting_an_accounts_last_secret_while_the_watches_are_cut_takes_effect(team: Team) -> None:
    account = team.account
    account.put("TOKEN", b"x")
    account.holds({"TOKEN": b"x"})
    with team.proxy.cut():
        account.delete("token")
    account.holds(None)


def test_deleting_the_clusters_last_secret_while_only_its_watch_is_cut_takes_effect(team: Team) -> None:
    account, kubectl = team.account, team.account.controlplane.kubectl
    kubectl("delete", "accountsecrets", "--all", "--all-namespaces")
    account.put("TOKEN", b"x")
    account.holds({"TOKEN": b"x"})
    with team.proxy.cut("accountsecrets"):
        account.delete("token")
    account.holds(None)


def test_stalled_watches_are_abandoned(team: Team) -> None:
    account = team.account
    account.put("TOKEN", b"x")
    account.holds({"TOKEN": b"x"})
    team.proxy.freeze()
    account.put("OTHER", b"y")
    until("the new value is synced", lambda: account.data() == {"TOKEN": b"x", "OTHER": b"y"}, seconds=60)


def test_it_keeps_working_if_each_response_takes_three_seconds(team: Team) -> None:
    team.proxy.delay_seconds = 3
    team.account.put("TOKEN", b"x")
    until("the value is synced", lambda: team.account.data() == {"TOKEN": b"x"}, seconds=60)
    until("the operator is ready", lambda: team.unready() == "", seconds=60)
    assert team.operator.metric("devbox_secrets_leader") == 1
    assert "lost the lease" not in team.operator.log


def test_a_missing_permission_is_reported_until_it_is_granted(team: Team) -> None:
    kubectl = team.account.controlplane.kubectl
    kubectl("delete", "clusterrolebinding", "devbox-secrets")
    try:
        until("it isn't ready", lambda: "cannot list secrets: GET /api/v1/secrets: 403" in team.unready(), 60)
    finally:
        install(team.account.controlplane)
    until("it's ready", lambda: not team.unready())
    team.account.put("TOKEN", b"x")
    team.account.holds({"TOKEN": b"x"})
    assert sum("cannot list secrets" in line for line in team.operator.log.splitlines()) == 1


def test_a_deleted_crd_is_reported_until_it_is_reinstalled(team: Team) -> None:
    account, kubectl = team.account, team.account.controlplane.kubectl
    account.put("TOKEN", b"x")
    account.holds({"TOKEN": b"x"})
    kubectl("delete", "crd", "accountsecrets.devbox-secrets.dev")
    account.holds(None)
    until("it isn't ready", lambda: "cannot list accountsecrets: GET" in team.unready(), seconds=60)
    install(account.controlplane)
    until("it's ready", lambda: not team.unready(), seconds=60)
    account.put("TOKEN", b"y")
    account.holds({"TOKEN": b"y"})
    assert team.operator.component.is_running()
    assert "Traceback" not in team.operator.log


def test_after_a_restore_of_etcd_secrets_match_the_restored_state(team: Team) -> None:
    account = team.account
    account.put("TOKEN", b"before")
    account.holds({"TOKEN": b"before"})
    with account.controlplane.restored():
        until("the API server is used again", lambda: not team.unready(), seconds=60)
        account.put("TOKEN", b"after")
        account.put("OTHER", b"after")
        account.holds({"TOKEN": b"after", "OTHER": b"after"})
    until("it starts over", lambda: "starting over" in team.operator.log, seconds=60)
    account.holds({"TOKEN": b"before"})
    account.put("OTHER", b"again")
    account.holds({"TOKEN": b"before", "OTHER": b"again"})


def test_a_recreated_namespace_gets_nothing_from_the_previous_one(team: Team) -> None:
    account, kubectl = team.account, team.account.controlplane.kubectl
    account.put("TOKEN", b"the previous team's")
    account.holds({"TOKEN": b"the previous team's"})
    with team.proxy.cut():
        kubectl("delete", "namespace", account.name)
        kubectl("create", "namespace", account.name)
    other = account.put("OTHER", b"the new team's")
    account.is_ready(other)
    assert account.data() == {"OTHER": b"the new team's"}


def test_deletions_right_after_an_api_server_crash_take_effect(team: Team) -> None:
    account, apiserver = team.account, team.account.controlplane.apiserver
    for variable in VARIABLES:
        account.put(variable, b"x")
    account.holds(dict.fromkeys(VARIABLES, b"x"))
    apiserver.kill()
    apiserver.start()
    apiserver.wait_ready()
    account.controlplane.kubectl("delete", "accountsecrets", "--all", "-n", account.name)
    account.holds(None)
