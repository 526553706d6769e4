"""The chart's roles for users contain exactly the rights that the command line and the gateway use.

The audit log shows which rights were used. The chart is installed without aggregation, so only its own roles grant
rights.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from runloop_api_client import APIStatusError, Runloop

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import ACCOUNT, CHART, NAMESPACE, Json, get, release, settle, until
from integration.support.gateway import bind, gateway, new_account, token
from integration.support.processes import command, operator
from integration.support.rights import ACCOUNTSECRETS, ROLES

POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    resources: [{group: devbox-secrets.dev}, {group: "", resources: [namespaces]}]
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


@pytest.fixture(scope="module")
def guest(account: Account) -> Account:
    """A member namespace in which the account's ServiceAccounts have the same roles."""
    it = account.member(**{ACCOUNT: account.name})
    for user, role in (("editor", "edit"), ("viewer", "view")):
        bind(it.controlplane, it.name, f"{account.name}:{user}", role)
        may = ("auth", "can-i", "list", ACCOUNTSECRETS, f"-n={it.name}")
        who = f"--as=system:serviceaccount:{account.name}:{user}"
        until("the binding takes effect", partial(_succeeds, it.controlplane, *may, who))
    return it


def _succeeds(controlplane: ControlPlane, *command: str) -> bool:
    return controlplane.kubectl(*command, check=False).returncode == 0


def used(account: Account, user: str) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return the rights that a ServiceAccount used and those that it lacked, as resources and verbs."""
    name = f"system:serviceaccount:{account.name}:{user}"
    events = [json.loads(line) for line in account.controlplane.audit_log.read_text().splitlines()]
    rights: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
    for event in events:
        if event["user"]["username"] == name:
            allowed = event["responseStatus"]["code"] not in {401, 403}
            rights[allowed].add((event["objectRef"]["resource"], event["verb"]))
    return rights[True], rights[False]


def _gets_the_home(account: Account, guest: Account, api: Runloop) -> None:
    """Make the gateway look up why nothing can be created in a member namespace."""

    def message() -> str:
        with pytest.raises(APIStatusError) as caught:
            api.secrets.create(name="TOKEN", value="1", extra_headers={"X-Devbox-Secrets-Account": guest.name})
        return str(caught.value)

    until("the message names the home", lambda: f"the account {account.name}" in message())


def _edit(account: Account, guest: Account, kubeconfig: Path, api: Runloop) -> None:
    _gets_the_home(account, guest, api)
    made = api.secrets.create(name="TOKEN", value="1", extra_query={"wait": "true"})
    api.secrets.update_by_id(made.id, value="2")
    account.holds({"TOKEN": b"2"})
    api.secrets.delete("TOKEN")
    done = command(kubeconfig, "seal", "OTHER", "--apply", "-n", account.name, value=b"3")
    assert done.returncode == 0, done.stderr
    account.is_ready("other")  # or the status would change before the replacement
    # Some users replace objects instead of applying them.
    body: Json = get(account.controlplane, "accountsecret", "other", "-n", account.name)
    body["spec"]["description"] = "replaced"
    account.controlplane.kubectl("replace", "-f", "-", input=json.dumps(body), kubeconfig=kubeconfig)
    assert command(kubeconfig, "delete", "other", "--yes", "-n", account.name).returncode == 0


def _view(account: Account, _: Account, kubeconfig: Path, api: Runloop) -> None:
    account.put("TOKEN", b"1")
    listed = api.secrets.list().secrets
    assert api.secrets.retrieve_by_id(listed[0].id) == listed[0]
    assert command(kubeconfig, "status", "--wait", "-n", account.name).returncode == 0
    watch = ("get", "accountsecrets", "-n", account.name, "--watch-only", "--request-timeout=1s")
    done = account.controlplane.kubectl(*watch, kubeconfig=kubeconfig, check=False)
    assert "forbidden" not in done.stderr
    account.delete("token")


USES: dict[str, Callable[[Account, Account, Path, Runloop], None]] = {"editor": _edit, "viewer": _view}


#: `status` tries to list namespaces, but works without.
LACKED: dict[str, set[tuple[str, str]]] = {
    "editor": set(),
    "viewer": {("namespaces", "list")},
}


@pytest.mark.parametrize("user", USES)
def test_each_role_has_exactly_the_rights_that_are_used(user: str, account: Account, guest: Account) -> None:
    it = account.controlplane
    kubeconfig = it.service_account_kubeconfig(account.name, user)
    with gateway(it) as process, Runloop(base_url=process.url, bearer_token=token(it, account.name, user)) as api:
        USES[user](account, guest, kubeconfig, api)
    verbs = ROLES["devbox-secrets-edit" if user == "editor" else "devbox-secrets-view"].split()
    rights = {("accountsecrets", verb) for verb in verbs} | ({("namespaces", "get")} if user == "editor" else set())
    until(f"{user} used {rights}", lambda: used(account, user) == (rights, LACKED[user]))


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_without_aggregation_kubernetes_own_roles_grant_nothing(role: str, cluster: ControlPlane) -> None:
    user = f"someone-with-{role}"
    cluster.kubectl("create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", "-n", "default")
    may = ("auth", "can-i", "-n", "default", f"--as={user}")
    until("the binding takes effect", lambda: cluster.kubectl(*may, "get", "pods", check=False).returncode == 0)
    for verb in ("get", "list", "create", "share"):
        assert cluster.kubectl(*may, verb, ACCOUNTSECRETS, check=False).stdout == "no\n"


def test_without_aggregation_an_admin_cannot_create_a_key_and_the_error_says_who_can(
    cluster: ControlPlane, account: Account
) -> None:
    here = ("-n", account.name)
    cluster.kubectl("create", "rolebinding", "admin", "--clusterrole=admin", "--user=jane", *here)
    jane = cluster.user_kubeconfig("jane")
    may = ("auth", "can-i", "create", "rolebindings", *here)
    until("Jane is an admin", lambda: cluster.kubectl(*may, kubeconfig=jane, check=False).returncode == 0)
    refused = command(jane, "apikey", "create", "ci", *here)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "a cluster administrator if the chart has rbac.aggregate=false" in refused.stderr
    assert command(cluster.kubeconfig, "apikey", "create", "ci", *here).returncode == 0
    assert command(jane, "apikey", "create", "ci", *here).stdout.startswith("ey")


def test_an_admin_with_the_edit_role_can_create_keys(cluster: ControlPlane, account: Account) -> None:
    here = ("-n", account.name)
    cluster.kubectl("create", "rolebinding", "joes", "--clusterrole=admin", "--user=joe", *here)
    cluster.kubectl("create", "rolebinding", "joes-too", "--clusterrole=devbox-secrets-edit", "--user=joe", *here)
    joe = cluster.user_kubeconfig("joe")
    until("Joe can create a key", lambda: command(joe, "apikey", "create", "deploy", *here).returncode == 0)


def test_everyone_can_read_the_public_key_without_aggregation(cluster: ControlPlane, account: Account) -> None:
    kubeconfig = cluster.service_account_kubeconfig(account.name, "viewer")
    done = command(kubeconfig, "seal", "TOKEN", "-n", account.name, f"--operator-namespace={NAMESPACE}", value=b"1")
    assert done.stdout.startswith("---\napiVersion: devbox-secrets.dev/")
