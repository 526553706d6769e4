"""The users' roles of the chart: each right is used by something, and nothing more is needed.

The audit log shows which rights were used; the chart is installed without aggregation, so nobody has any but by these.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runloop_api_client import Runloop

from apiserver.account import Account
from apiserver.chart import CHART, NAMESPACE, Json, get, release, settle, until
from apiserver.gateway import gateway, new_account, token
from apiserver.product import command, operator
from apiserver.test_rights import ACCOUNTSECRETS, ROLES
from cluster.controlplane import ControlPlane

POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    resources: [{group: devbox-secrets.dev}]
  - level: None
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    with ControlPlane.start(audit_policy=POLICY) as it:
        release(it, "install", str(CHART), "--create-namespace", "--set=rbac.aggregate=false")
        settle(it)
        with operator(it):
            yield it


@pytest.fixture(scope="module")
def account(cluster: ControlPlane) -> Account:
    return Account.of(cluster, new_account(cluster))


def used(account: Account, user: str) -> set[str]:
    """The verbs that a ServiceAccount used, and was allowed to."""
    name = f"system:serviceaccount:{account.name}:{user}"
    events = [json.loads(line) for line in account.controlplane.audit_log.read_text().splitlines()]
    mine = [event for event in events if event["user"]["username"] == name]
    refused = [event["requestURI"] for event in mine if event["responseStatus"]["code"] in {401, 403}]
    assert refused == []
    return {event["verb"] for event in mine}


def _edit(account: Account, kubeconfig: Path, api: Runloop) -> None:
    made = api.secrets.create(name="TOKEN", value="1", extra_query={"wait": "true"})
    api.secrets.update_by_id(made.id, value="2")
    account.holds({"TOKEN": b"2"})
    api.secrets.delete("TOKEN")
    done = command(kubeconfig, "seal", "OTHER", "--apply", "-n", account.name, value=b"3")
    assert done.returncode == 0, done.stderr
    # As people do who don't apply.
    body: Json = get(account.controlplane, "accountsecret", "other", "-n", account.name)
    body["spec"]["description"] = "replaced"
    account.controlplane.kubectl("replace", "-f", "-", input=json.dumps(body), kubeconfig=kubeconfig)
    assert command(kubeconfig, "delete", "other", "--yes", "-n", account.name).returncode == 0


def _view(account: Account, kubeconfig: Path, api: Runloop) -> None:
    account.put("TOKEN", b"1")
    listed = api.secrets.list().secrets
    assert api.secrets.retrieve_by_id(listed[0].id) == listed[0]
    assert command(kubeconfig, "status", "--wait", "-n", account.name).returncode == 0
    watch = ("get", "accountsecrets", "-n", account.name, "--watch-only", "--request-timeout=1s")
    done = account.controlplane.kubectl(*watch, kubeconfig=kubeconfig, check=False)
    assert "forbidden" not in done.stderr
    account.delete("token")


USES: dict[str, Callable[[Account, Path, Runloop], None]] = {"editor": _edit, "viewer": _view}


@pytest.mark.parametrize("user", USES)
def test_each_right_of_a_role_is_used_and_it_lacks_none(user: str, account: Account) -> None:
    it = account.controlplane
    kubeconfig = it.service_account_kubeconfig(account.name, user)
    with gateway(it) as door, Runloop(base_url=door.url, bearer_token=token(it, account.name, user)) as api:
        USES[user](account, kubeconfig, api)
    rights = set(ROLES["devbox-secrets-edit" if user == "editor" else "devbox-secrets-view"].split())
    until(f"{user} used {rights}", lambda: used(account, user) == rights)


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_without_aggregation_kubernetes_own_roles_give_nothing(role: str, cluster: ControlPlane) -> None:
    user = f"someone-with-{role}"
    cluster.kubectl("create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", "-n", "default")
    may = ("auth", "can-i", "-n", "default", f"--as={user}")
    until("the binding holds", lambda: cluster.kubectl(*may, "get", "pods", check=False).returncode == 0)
    for verb in ("get", "list", "create", "share"):
        assert cluster.kubectl(*may, verb, ACCOUNTSECRETS, check=False).stdout == "no\n"


def test_then_an_admin_of_a_namespace_is_told_who_can_give_a_key(cluster: ControlPlane, account: Account) -> None:
    here = ("-n", account.name)
    cluster.kubectl("create", "rolebinding", "admin", "--clusterrole=admin", "--user=jane", *here)
    jane = cluster.user_kubeconfig("jane")
    may = ("auth", "can-i", "create", "rolebindings", *here)
    until("jane is admin", lambda: cluster.kubectl(*may, kubeconfig=jane, check=False).returncode == 0)
    refused = command(jane, "token", "ci", "--create", *here)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "a cluster administrator where the chart has rbac.aggregate=false" in refused.stderr
    assert command(cluster.kubeconfig, "token", "ci", "--create", *here).returncode == 0
    assert command(jane, "token", "ci", *here).stdout.startswith("ey")


def test_and_can_give_one_to_others_once_the_role_is_bound_to_them(cluster: ControlPlane, account: Account) -> None:
    here = ("-n", account.name)
    cluster.kubectl("create", "rolebinding", "joes", "--clusterrole=admin", "--user=joe", *here)
    cluster.kubectl("create", "rolebinding", "joes-too", "--clusterrole=devbox-secrets-edit", "--user=joe", *here)
    joe = cluster.user_kubeconfig("joe")
    until("he may", lambda: command(joe, "token", "deploy", "--create", *here).returncode == 0)


def test_the_public_key_is_everyone_s_also_without_aggregation(cluster: ControlPlane, account: Account) -> None:
    kubeconfig = cluster.service_account_kubeconfig(account.name, "viewer")
    done = command(kubeconfig, "seal", "TOKEN", "-n", account.name, f"--operator-namespace={NAMESPACE}", value=b"1")
    assert done.stdout.startswith("apiVersion: devbox-secrets.dev/")
