"""`devbox-secrets apikey` on a real API server, run by users with different permissions."""

import base64
import json
import os
import pty
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from devbox_secrets.api.names import GROUP
from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import ACCOUNT, CHART, NAMESPACE, Json, get, helm, until
from integration.support.gateway import Gateway, new_account, token
from integration.support.gateway_requests import create, error_message
from integration.support.processes import COMMAND, command
from integration.support.users import Role, bind, wait_until_allowed

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def account(controlplane: ControlPlane, rest: Gateway) -> Account:
    return Account.of(controlplane, new_account(controlplane))


def run(account: Account, *arguments: str, kubeconfig: Path | None = None) -> Done:
    return command(kubeconfig or account.controlplane.kubeconfig, "apikey", *arguments, "-n", account.name)


def key_of(done: Done) -> str:
    """Return the key that a successful command printed as its only output."""
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", done.stdout)
    assert done.stdout.strip() not in done.stderr
    return done.stdout.strip()


def claims(key: str) -> Json:
    part = key.split(".")[1]
    found: Json = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def failure(done: Done) -> str:
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    return done.stderr.removeprefix("devbox-secrets: ").removesuffix("\n")


def user_with_role(account: Account, role: str) -> Path:
    """Return the kubeconfig of a user with a role in the account's namespace, once the role applies."""
    user = f"{role}-{uuid4().hex[:8]}"
    it = account.controlplane
    bind(it, user, Role(role, account.name, "list"))
    wait_until_allowed(it, user, verb="list", group=GROUP, resource="accountsecrets", namespace=account.name)
    return it.user_kubeconfig(user)


def test_an_admin_of_the_namespace_creates_a_working_key(account: Account, rest: Gateway) -> None:
    done = run(account, "create", "ci", kubeconfig=user_with_role(account, "admin"))
    key = key_of(done)
    assert done.stderr.splitlines()[:2] == [
        f"devbox-secrets: bound devbox-secrets-edit to serviceaccount/ci in {account.name}",
        f"devbox-secrets: created serviceaccount/ci in {account.name}",
    ]
    with rest.client(key) as api:
        until("the binding applies", lambda: api.get("/v1/secrets").is_success)
        create(api, "TOKEN")


def test_later_runs_only_create_a_key(account: Account) -> None:
    key_of(run(account, "create", "ci"))
    before = get(account.controlplane, "serviceaccounts,rolebindings", "-n", account.name)["items"]
    for arguments in (("create", "ci"), ("create", "ci", "--role", "edit")):
        done = run(account, *arguments)
        key_of(done)
        (message,) = done.stderr.splitlines()
        assert message.startswith(f"devbox-secrets: created an API key for {account.name}/ci; it expires at 20")
    assert get(account.controlplane, "serviceaccounts,rolebindings", "-n", account.name)["items"] == before


def test_objects_that_kubectl_created_are_not_changed(account: Account, rest: Gateway) -> None:
    with rest.client(key_of(run(account, "create", "editor"))) as api:
        create(api, "TOKEN")
    names = {
        each["metadata"]["name"] for each in get(account.controlplane, "rolebindings", "-n", account.name)["items"]
    }
    assert names == {f"{account.name}.editor-edit", f"{account.name}.viewer-view"}


def test_a_key_with_the_role_view_only_reads(account: Account, rest: Gateway) -> None:
    with rest.client(key_of(run(account, "create", "watcher", "--role", "view"))) as api:
        until("the key can read secrets", lambda: api.get("/v1/secrets").is_success)
        error_message(api.post("/v1/secrets", json={"name": "TOKEN", "value": "v"}), 403, "Forbidden")


def test_an_edit_key_is_never_issued_as_a_view_key(account: Account) -> None:
    key_of(run(account, "create", "ci"))
    assert failure(run(account, "create", "ci", "--role", "view")) == (
        f"ci in {account.name} can edit secrets because of the RoleBinding ci-devbox-secrets-edit; use another"
        " name for a view-only key, or delete that RoleBinding"
    )


DURATIONS = [("10m", timedelta(minutes=10)), ("2h", timedelta(hours=2)), (None, timedelta(hours=24))]


@pytest.mark.parametrize(("asked", "given"), DURATIONS)
def test_a_key_expires_after_the_requested_duration(account: Account, asked: str | None, given: timedelta) -> None:
    found = claims(key_of(run(account, "create", "editor", *(["--duration", asked] if asked else []))))
    assert found["exp"] - found["iat"] == given.total_seconds()
    assert found["sub"] == f"system:serviceaccount:{account.name}:editor"


def test_structured_output_has_additional_fields(account: Account) -> None:
    done = run(account, "create", "editor", "-o", "json")
    found = json.loads(done.stdout)
    assert {name: found[name] for name in ("account", "serviceAccount", "baseUrl")} == {
        "account": account.name, "serviceAccount": "editor", "baseUrl": None,
    }  # fmt: skip
    end = datetime.fromisoformat(found["expires"])
    assert timedelta(hours=23) < end - datetime.now(UTC) < timedelta(hours=25)
    assert claims(found["token"])["exp"] == pytest.approx(end.timestamp(), abs=2)
    assert "token: ey" in run(account, "create", "editor", "-o", "yaml").stdout


SERVICES = {
    "gateway.enabled=true": f"http://devbox-secrets-gateway.{NAMESPACE}.svc",
    "gateway.enabled=true,gateway.service.port=8080": f"http://devbox-secrets-gateway.{NAMESPACE}.svc:8080",
    "gateway.enabled=true,gateway.tls.secretName=a,gateway.service.port=443": (
        f"https://devbox-secrets-gateway.{NAMESPACE}.svc"
    ),
}


@pytest.mark.parametrize("values", SERVICES)
def test_the_base_url_is_that_of_the_charts_service(account: Account, values: str) -> None:
    rendered = helm(
        "template", NAMESPACE, str(CHART), "-n", NAMESPACE, f"--set={values}", "--show-only=templates/gateway.yaml"
    ).stdout
    (service,) = [each for each in rendered.split("\n---\n") if "\nkind: Service\n" in each]
    account.controlplane.kubectl("apply", "-f", "-", "-n", NAMESPACE, input=service)
    try:
        assert json.loads(run(account, "create", "editor", "-o", "json").stdout)["baseUrl"] == SERVICES[values]
        # A user who can't read the Service gets a key without a base URL.
        restricted = run(account, "create", "editor", "-o", "json", kubeconfig=user_with_role(account, "edit"))
        assert json.loads(restricted.stdout)["baseUrl"] is None
    finally:
        account.controlplane.kubectl("delete", "service", "devbox-secrets-gateway", "-n", NAMESPACE)


def test_at_a_terminal_it_warns_that_the_key_is_visible(account: Account) -> None:
    master, slave = pty.openpty()
    done = subprocess.run(
        [COMMAND, "apikey", "create", "editor", "-n", account.name, "--kubeconfig", account.controlplane.kubeconfig],
        stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    shown = os.read(master, 65536).decode()
    os.close(slave)
    os.close(master)
    assert done.returncode == 0
    assert claims(shown.strip())
    assert b"the key is visible in this terminal" in done.stderr
    assert shown.strip().encode() not in done.stderr


# --- Errors


def test_without_permission_to_create_tokens_the_message_says_who_has_it(account: Account) -> None:
    message = failure(run(account, "create", "editor", kubeconfig=user_with_role(account, "view")))
    assert message == (
        f"you don't have permission to create ServiceAccount tokens in {account.name}; ask someone with the"
        " ClusterRole edit or admin there"
    )
    key_of(run(account, "create", "editor", kubeconfig=user_with_role(account, "edit")))


def test_without_permission_to_bind_roles_nothing_is_created(account: Account) -> None:
    message = failure(run(account, "create", "ci", kubeconfig=user_with_role(account, "edit")))
    assert message.startswith(
        f"you don't have permission to read or create RoleBindings in {account.name}; ask an admin"
    )
    assert account.controlplane.kubectl("get", "serviceaccount", "ci", "-n", account.name, check=False).returncode


def test_a_missing_cluster_role_is_reported_to_all_users(tmp_path: Path) -> None:
    with ControlPlane.start() as it:
        it.kubectl("create", "rolebinding", "admin", "--clusterrole=admin", "--user=jane", "-n", "default")
        for kubeconfig in (it.kubeconfig, it.user_kubeconfig("jane")):
            message = command(kubeconfig, "apikey", "create", "ci", "-n", "default")
            assert failure(message) == (
                "the ClusterRole devbox-secrets-edit doesn't exist; install the chart, which creates it"
            )
        assert it.kubectl("get", "rolebinding", "-n", "default", "-o", "name").stdout.split() == [
            "rolebinding.rbac.authorization.k8s.io/admin"
        ]


def test_a_missing_namespace_is_reported(account: Account) -> None:
    done = command(account.controlplane.kubeconfig, "apikey", "create", "ci", "-n", "nowhere")
    assert failure(done) == "the namespace nowhere doesn't exist; create it, or pass another account with -n"


def test_a_foreign_binding_with_the_same_name_is_not_changed(account: Account) -> None:
    binding = ("create", "rolebinding", "ci-devbox-secrets-edit", "--clusterrole=view", "--user=jane")
    account.controlplane.kubectl(*binding, "-n", account.name)
    assert failure(run(account, "create", "ci")) == (
        f"the RoleBinding ci-devbox-secrets-edit in {account.name} is already in use; choose another name for the key"
    )


def test_a_key_with_a_shorter_lifetime_than_requested_is_reported(account: Account) -> None:
    with ControlPlane.start(apiserver_args=["--service-account-max-token-expiration=2h"]) as it:
        it.kubectl("create", "serviceaccount", "ci", "-n", "default")
        it.kubectl("create", "rolebinding", "edit", "--clusterrole=edit", "--user=jane", "-n", "default")
        done = command(it.user_kubeconfig("jane"), "apikey", "create", "ci", "-n", "default", "--duration=90d")
    found = claims(key_of(done))
    assert found["exp"] - found["iat"] == 7200
    assert done.stderr.endswith("Z (the API server's maximum)\n")


def test_a_member_namespace_is_reported(account: Account) -> None:
    member = account.member(**{ACCOUNT: account.name})
    done = run(member, "create", "ci")
    key_of(done)
    assert f"the namespace {member.name} belongs to the account {account.name}" in done.stderr


WRONG = {
    "too short": (["create", "ci", "--duration", "9m"], 1, "9m is too short; the minimum is 10m"),
    "not a duration": (["create", "ci", "--duration", "soon"], 1, "'soon' isn't a number of days, hours or minutes"),
    "longer than the API server allows": (
        ["create", "editor", "--duration", "99999d"],
        1,
        "may not specify a duration larger",
    ),
    "not a name of a ServiceAccount": (["create", "ghp_0123"], 1, "invalid ServiceAccount name"),
    "another path": (["create", "../secrets"], 1, "invalid ServiceAccount name"),
    "another role": (["create", "ci", "--role", "admin"], 2, "admin"),
}


@pytest.mark.parametrize("what", WRONG)
def test_invalid_arguments_are_rejected(what: str, account: Account) -> None:
    arguments, code, message = WRONG[what]
    done = run(account, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "ghp_0123" not in done.stderr


# --- list and revoke


def test_service_accounts_are_listed_with_their_roles(account: Account) -> None:
    assert run(account, "list").stdout.startswith(f"The account {account.name} has no API keys. Create one: ")
    key_of(run(account, "create", "ci"))
    key_of(run(account, "create", "watcher", "--role", "view"))
    lines = [line.split() for line in run(account, "list").stdout.splitlines()]
    assert [line[:2] for line in lines] == [["NAME", "ROLE"], ["ci", "edit"], ["watcher", "view"]]
    restricted = json.loads(run(account, "list", "-o", "json", kubeconfig=user_with_role(account, "edit")).stdout)
    assert [(each["serviceAccount"], each["role"]) for each in restricted] == [("ci", None), ("watcher", None)]


def test_revoked_keys_are_invalid_and_the_created_objects_are_deleted(account: Account, rest: Gateway) -> None:
    key = key_of(run(account, "create", "ci"))
    with rest.client(key) as api:
        until("the key can read secrets", lambda: api.get("/v1/secrets").is_success)
        done = run(account, "revoke", "ci", "--yes")
        assert (done.returncode, done.stdout, done.stderr) == (
            0, "", f"devbox-secrets: revoked all keys of {account.name}/ci\n",
        )  # fmt: skip

        def refused() -> httpx.Response | None:
            answer = api.get("/v1/secrets")
            return None if answer.is_success or answer.status_code == 403 else answer

        error_message(until("the key is invalid", refused), 401, "Unauthorized")  # type: ignore[arg-type]
    names = account.controlplane.kubectl("get", "serviceaccounts,rolebindings", "-n", account.name, "-o", "name").stdout
    assert "/ci" not in names
    assert "has no ServiceAccount ci" in failure(run(account, "revoke", "ci", "--yes"))


def test_objects_that_others_created_are_not_deleted(account: Account) -> None:
    assert "wasn't created by apikey create" in failure(run(account, "revoke", "editor", "--yes"))
    assert token(account.controlplane, account.name)


def test_nothing_is_revoked_without_confirmation(account: Account) -> None:
    key_of(run(account, "create", "ci"))
    message = failure(run(account, "revoke", "ci"))
    assert message == "stdin is not a terminal; pass --yes to revoke the keys of ci"
    assert token(account.controlplane, account.name, "ci")
