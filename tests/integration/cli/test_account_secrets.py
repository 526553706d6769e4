"""The commands that write, list and delete AccountSecrets, on a real API server with the operator running."""

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import Json, get, until
from integration.support.processes import COMMAND, command


def run(account: Account, *arguments: str, value: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run a command for the account, as the cluster's administrator."""
    return command(account.controlplane.kubeconfig, *arguments, "-n", account.name, value=value)


def output(account: Account, *arguments: str, value: bytes = b"") -> str:
    """Run a command that succeeds, and return its output."""
    result = run(account, *arguments, value=value)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def error(account: Account, *arguments: str, value: bytes = b"") -> str:
    """Run a command that fails, and return its error message."""
    result = run(account, *arguments, value=value)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("devbox-secrets: ")
    return result.stderr.removeprefix("devbox-secrets: ").removesuffix("\n")


def stored(account: Account, name: str) -> Json:
    return get(account.controlplane, "accountsecret", name, "-n", account.name)


def kubeconfig_with_role(account: Account, role: str) -> Path:
    """Return the kubeconfig of a user with one of Kubernetes' default roles in the account's namespace."""
    user = f"{role}-of-{account.name}"
    binding = ("create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", f"--namespace={account.name}")
    account.controlplane.kubectl(*binding)
    kubeconfig = account.controlplane.user_kubeconfig(user)
    ask = ("auth", "can-i", "get", "accountsecrets", f"--namespace={account.name}", "--quiet")
    can_get = lambda: account.controlplane.kubectl(*ask, kubeconfig=kubeconfig, check=False).returncode == 0  # noqa: E731
    until(f"{user} has the permissions of {role}", can_get)
    return kubeconfig


# --- seal --apply


def test_a_sealed_and_applied_value_is_in_the_account_secret(account: Account) -> None:
    shown = output(account, "seal", "GITHUB_TOKEN", "--apply", value=b"ghp_1")
    assert shown == f"accountsecret.devbox-secrets.dev/github-token created in {account.name}: GITHUB_TOKEN\n"
    account.is_ready("github-token")
    assert account.data() == {"GITHUB_TOKEN": b"ghp_1"}
    managers = get(account.controlplane, "accountsecret", "github-token", "-n", account.name, "--show-managed-fields")
    assert managers["metadata"]["managedFields"][0]["manager"] == "devbox-secrets-cli"


@pytest.mark.parametrize("command", [("set",), ("seal", "--apply")])
def test_applying_again_shows_the_changes_and_keeps_other_fields(account: Account, command: tuple[str, ...]) -> None:
    again = (*command, "TOKEN")
    output(account, *again, "--description", "for CI", "--rotate-after", "90d", value=b"one")
    shown = output(account, *again, "--rotate-after", "30d", value=b"two").splitlines()
    assert shown[0] == f"accountsecret.devbox-secrets.dev/token changed in {account.name}: TOKEN"
    assert shown[1] == f"  sealed: new value, key {account.key.id} (was {account.key.id})"
    assert shown[2:] == ["  rotateAfter: '90d' → '30d'"]
    account.holds({"TOKEN": b"two"})
    shown = output(account, *again, "--description", "", "--rotate-after", "", value=b"three").splitlines()
    assert shown[2:] == ["  description: 'for CI' → none", "  rotateAfter: '30d' → none"]
    manifest = output(account, "seal", "TOKEN", "--description", "for CI", "-o", "json", value=b"four")
    account.controlplane.kubectl("apply", "-f", "-", input=manifest)
    shown = output(account, *again, "--description", "", value=b"five").splitlines()
    assert shown[2:] == ["  description: 'for CI' → none"]
    assert "description" not in stored(account, "token")["spec"]


def test_a_dry_run_shows_what_would_change_and_changes_nothing(account: Account) -> None:
    shown = output(account, "set", "TOKEN", "--dry-run", value=b"one")
    assert shown == f"accountsecret.devbox-secrets.dev/token would be created in {account.name}: TOKEN\n"
    assert output(account, "list", "-o", "name") == ""
    output(account, "set", "TOKEN", value=b"one")
    before = stored(account, "token")["spec"]
    shown = output(account, "set", "TOKEN", "--dry-run", "--description", "for CI", value=b"two")
    assert shown.startswith(f"accountsecret.devbox-secrets.dev/token would be changed in {account.name}: TOKEN\n")
    assert shown.endswith("  description: none → 'for CI'\n")
    assert stored(account, "token")["spec"] == before


def test_applying_keeps_the_name_of_the_existing_object(account: Account) -> None:
    account.put("TOKEN", b"one", name="an-older-name")
    shown = output(account, "seal", "TOKEN", "--apply", value=b"two")
    assert shown.startswith(f"accountsecret.devbox-secrets.dev/an-older-name changed in {account.name}: TOKEN\n")
    account.holds({"TOKEN": b"two"})


def test_an_output_format_prints_the_applied_manifest(account: Account) -> None:
    body = json.loads(output(account, "seal", "TOKEN", "--apply", "-o", "json", value=b"one"))
    assert body["spec"]["sealed"] == stored(account, "token")["spec"]["sealed"]


def test_the_callers_own_permissions_apply(account: Account) -> None:
    viewer, editor = kubeconfig_with_role(account, "view"), kubeconfig_with_role(account, "edit")
    arguments = ("seal", "TOKEN", "--apply", "-n", account.name)
    result = command(viewer, *arguments, value=b"one")
    assert (result.returncode, result.stdout) == (1, "")
    assert f'User "view-of-{account.name}" cannot patch resource "accountsecrets"' in result.stderr
    assert command(editor, *arguments, value=b"one").returncode == 0


def test_a_cluster_without_an_installation_is_reported_before_the_prompt() -> None:
    with ControlPlane.start() as other:
        result = command(other.kubeconfig, "seal", "TOKEN", "--apply", "-n", "default")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "devbox-secrets: the cluster has no AccountSecrets resource; install devbox-secrets,"
        " or select another context\n"
    )


def test_a_kubeconfig_without_a_current_context_needs_the_option_context(account: Account, tmp_path: Path) -> None:
    config = json.loads(account.controlplane.kubeconfig.read_text())
    del config["current-context"]
    config["contexts"][0]["context"]["namespace"] = account.name
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    kubeconfig.chmod(0o600)
    assert command(kubeconfig, "seal", "TOKEN", "--apply", "--context=test", value=b"one").returncode == 0
    assert stored(account, "token")["spec"]["name"] == "TOKEN"


# --- list, get, update, delete


def test_list_shows_the_accounts_variables_and_whether_devboxes_get_them(account: Account) -> None:
    account.is_ready(account.put("GITHUB_TOKEN", b"one"))
    account.is_ready(account.put("PATH", b"two", "my-path"), "ReservedName")
    lines = [re.split(r" {3,}", line) for line in output(account, "list").splitlines()]
    assert lines[0] == ["VARIABLE", "READY", "CHANGED", "NAME", "DESCRIPTION"]
    assert lines[1][:2] == ["GITHUB_TOKEN", "yes"]
    assert re.fullmatch(r"\d+s", lines[1][2])
    assert [line for line in lines[2] if line] == ["PATH", "no: ReservedName", "my-path"]


def test_an_account_without_secrets_gets_a_hint(account: Account) -> None:
    assert output(account, "list") == (
        f"The account {account.name} has no secrets. Create one: devbox-secrets set NAME -n {account.name}\n"
    )
    assert json.loads(output(account, "list", "-o", "json")) == []


@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "github-token"])
def test_get_finds_a_secret_by_its_variable_or_name(account: Account, name: str) -> None:
    output(account, "seal", "GITHUB_TOKEN", "--apply", "--description=for CI", value=b"one")
    account.is_ready("github-token")
    shown = json.loads(output(account, "get", name, "-o", "json"))
    expected = {
        "variable": "GITHUB_TOKEN", "name": "github-token", "account": account.name, "ready": True,
        "reason": "Synced", "description": "for CI", "rotateAfter": None, "keyId": account.key.id,
    }  # fmt: skip
    assert {field: shown[field] for field in expected} == expected
    assert "for CI" in output(account, "get", name)


@pytest.mark.parametrize("words", [("get",), ("update",), ("delete", "--yes")], ids=lambda words: words[0])
@pytest.mark.parametrize("name", ["NOTHING", "nothing", "no thing", "../x"])
def test_a_missing_secret_is_reported_with_the_command_that_lists_secrets(
    account: Account, words: tuple[str, ...], name: str
) -> None:
    assert error(account, *words, name, value=b"one") == (
        f"the account {account.name} has no such secret; list its secrets with: devbox-secrets list -n {account.name}"
    )


def test_with_two_secrets_for_a_variable_the_objects_name_is_needed(account: Account) -> None:
    account.put("TOKEN", b"one", name="older")
    account.put("TOKEN", b"two", name="younger")
    assert error(account, "delete", "TOKEN", "--yes") == (
        f"TOKEN has 2 AccountSecrets in the account {account.name}: older, younger; pass one of these names"
    )
    output(account, "delete", "older", "--yes")
    account.holds({"TOKEN": b"two"})


@pytest.mark.parametrize("name", ["TOKEN", "mine"])
def test_update_seals_a_new_value_and_keeps_the_rest(account: Account, name: str) -> None:
    body = account.manifest("TOKEN", b"one", "mine")
    body["spec"] |= {"description": "for CI", "rotateAfter": "90d"}
    account.apply(body)
    shown = output(account, "update", name, value=b"two").splitlines()
    assert shown[0] == f"accountsecret.devbox-secrets.dev/mine changed in {account.name}: TOKEN"
    assert len(shown) == 2
    account.holds({"TOKEN": b"two"})
    spec = stored(account, "mine")["spec"]
    assert (spec["description"], spec["rotateAfter"]) == ("for CI", "90d")


def test_a_second_update_needs_no_force(account: Account) -> None:
    output(account, "seal", "TOKEN", "--apply", "--description=for CI", value=b"one")
    output(account, "update", "TOKEN", value=b"two")
    output(account, "update", "TOKEN", value=b"three")
    account.holds({"TOKEN": b"three"})
    assert stored(account, "token")["spec"]["description"] == "for CI"


def test_delete_removes_the_variable(account: Account) -> None:
    account.put("ONE", b"1")
    account.put("TWO", b"2")
    shown = output(account, "delete", "TWO", "--yes")
    assert shown == f"accountsecret.devbox-secrets.dev/two deleted in {account.name}: TWO\n"
    account.holds({"ONE": b"1"})


def test_nothing_is_deleted_without_a_terminal(account: Account) -> None:
    account.put("TOKEN", b"one")
    message = error(account, "delete", "TOKEN")
    assert message == "stdin is not a terminal; pass --yes to delete TOKEN"
    assert stored(account, "token")


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1)])
def test_delete_prompts_at_a_terminal(account: Account, answer: bytes, code: int) -> None:
    account.put("TOKEN", b"one")
    master, slave = pty.openpty()
    os.write(master, answer)
    result = subprocess.run(
        [COMMAND, "delete", "TOKEN", "-n", account.name, "--kubeconfig", account.controlplane.kubeconfig],
        stdin=slave, capture_output=True, check=False,
    )  # fmt: skip
    os.close(slave)
    os.close(master)
    assert result.returncode == code
    assert result.stderr.startswith(f"Delete TOKEN (token) from the account {account.name}? [y/N]:".encode())
    if code:
        assert stored(account, "token")
    else:
        account.holds(None)


@pytest.mark.parametrize("word", ["get", "status"])
def test_a_shell_can_complete_the_accounts_variables(account: Account, word: str) -> None:
    for variable in ("GITHUB_TOKEN", "GITLAB_TOKEN", "OTHER"):
        account.put(variable, b"1")
    line = f"devbox-secrets {word} -n {account.name} GIT"
    env = {
        **os.environ, "KUBECONFIG": str(account.controlplane.kubeconfig), "_DEVBOX_SECRETS_COMPLETE": "complete_bash",
        "COMP_WORDS": line, "COMP_CWORD": "4",
    }  # fmt: skip
    done = subprocess.run([COMMAND], capture_output=True, env=env, text=True, check=False)
    assert done.stdout.split() == ["GITHUB_TOKEN", "GITLAB_TOKEN"]
    nowhere = {**env, "KUBECONFIG": os.devnull}
    assert subprocess.run([COMMAND], capture_output=True, env=nowhere, text=True, check=False).stdout.strip() == ""


def test_an_expired_login_is_reported(account: Account, tmp_path: Path) -> None:
    config = json.loads(account.controlplane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": "nobody-s"}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    result = command(tmp_path / "kubeconfig", "list", "-n", account.name)
    assert result.returncode == 1
    assert result.stderr.endswith(": 401 Unauthorized; log in to the cluster again\n")
