"""What is deleted while the operator hears nothing: no value stays, and none reaches another team."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from harness.watch_proxy import WatchProxy
from integration.support.account import Account
from integration.support.chart import ACCOUNT, install
from integration.support.processes import operator

VARIABLES = [f"TOKEN_{number}" for number in range(10)]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane of our own: these tests kill its API server."""
    with ControlPlane.start() as it:
        install(it)
        yield it


@dataclass(frozen=True)
class Team:
    """An account, and what stands between its operator and the API server."""

    account: Account
    proxy: WatchProxy


@pytest.fixture
def team(plane: ControlPlane, tmp_path: Path) -> Iterator[Team]:
    """A team whose operator lists everything only when something makes it."""
    with (
        WatchProxy.start(plane) as proxy,
        operator(plane, tmp_path, server=proxy.url, resync_seconds="3600"),
    ):
        yield Team(Account.of(plane, "default").member(), proxy)


def test_what_is_deleted_while_the_watches_are_cut_is_gone(team: Team) -> None:
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


def test_the_last_one_that_is_deleted_while_the_watches_are_cut_is_gone(team: Team) -> None:
    account = team.account
    account.put("TOKEN", b"x")
    account.holds({"TOKEN": b"x"})
    with team.proxy.cut():
        account.delete("token")
    account.holds(None)


def test_a_namespace_that_is_created_again_gets_nothing_of_the_former_one(team: Team) -> None:
    account, kubectl = team.account, team.account.controlplane.kubectl
    account.put("TOKEN", b"the former team's")
    account.holds({"TOKEN": b"the former team's"})
    with team.proxy.cut():
        kubectl("delete", "namespace", account.name)
        kubectl("create", "namespace", account.name)
    other = account.put("OTHER", b"the new team's")
    account.is_ready(other)
    assert account.data() == {"OTHER": b"the new team's"}


def test_what_is_deleted_right_after_the_api_server_crashed_is_gone(team: Team) -> None:
    account, apiserver = team.account, team.account.controlplane.apiserver
    for variable in VARIABLES:
        account.put(variable, b"x")
    account.holds(dict.fromkeys(VARIABLES, b"x"))
    apiserver.kill()
    apiserver.start()
    apiserver.wait_ready()
    account.controlplane.kubectl("delete", "accountsecrets", "--all", "-n", account.name)
    account.holds(None)
