"""The output of `status` and `usage`, on a real API server. The tests act as the kubelet."""

import json
import re
import subprocess
import time
from datetime import timedelta
from pathlib import Path

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import ACCOUNT, DEVBOX, Json, container, created, get, install, pod
from integration.support.kubelet import run_devbox
from integration.support.processes import command, operator

OLD, NEW = timedelta(hours=-1), timedelta(hours=1)


def run(account: Account, *arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    return command(kubeconfig or account.controlplane.kubeconfig, *arguments, "-n", account.name)


def cells(account: Account, *arguments: str, code: int = 0) -> list[list[str]]:
    """Return the cells of the lines that a command prints."""
    result = run(account, *arguments)
    assert (result.returncode, result.stderr) == (code, "")
    return [re.split(r" {3,}", line) for line in result.stdout.splitlines()]


def data(account: Account, *arguments: str) -> Json:
    found: Json = json.loads(run(account, *arguments, "-o", "json").stdout)
    return found


def devbox(account: Account, name: str, started: timedelta, annotations: dict[str, str] | None = None) -> None:
    run_devbox(account.controlplane, account.name, name, started, annotations)


def await_next_second() -> None:
    """Wait until the next second, because the API server's timestamps have no fractions."""
    time.sleep(1 - time.time() % 1)


def update(account: Account, name: str, value: bytes) -> None:
    """Change a secret's value, in a later second than all changes before it."""
    body = get(account.controlplane, "accountsecret", name, "-n", account.name)
    await_next_second()
    account.put(body["spec"]["name"], value, name)
    account.is_ready(name)


def test_status_counts_devboxes_by_the_value_that_they_have(account: Account) -> None:
    for variable in ("ONE", "TWO"):
        account.is_ready(account.put(variable, b"1"))
    devbox(account, "old", OLD)
    devbox(account, "new", NEW)
    devbox(account, "new-and-only-one", NEW, {"devbox-secrets.dev/env": "ONE"})
    lines = cells(account, "status")
    assert lines[0] == ["VARIABLE", "SYNCED", "CHANGED", "CURRENT", "OLDER", "NONE"]
    assert [[*line[:2], *line[3:]] for line in lines[1:3]] == [
        ["ONE", "yes", "2", "0", "1"],
        ["TWO", "yes", "1", "0", "1"],
    ]


def test_status_of_one_secret_names_the_devboxes_with_an_older_value(account: Account) -> None:
    account.is_ready(account.put("TOKEN", b"1"))
    await_next_second()
    devbox(account, "between", timedelta())
    update(account, "token", b"2")
    devbox(account, "new", NEW)
    shown = data(account, "status", "TOKEN")
    assert shown["devboxes"] == {"current": 1, "older": 1, "none": 0, "starting": 0}
    assert [(each["namespace"], each["name"], each["value"]) for each in shown["behind"]] == [
        (account.name, "between", "older")
    ]
    lines = cells(account, "status", "TOKEN")
    assert ["variable", "TOKEN"] in lines
    assert ["devboxes", "1 current, 1 older"] in lines
    assert [line[:2] for line in lines if line[0].endswith("/between")] == [[f"{account.name}/between", "older"]]


def test_a_devbox_that_has_not_started_will_have_the_current_value(account: Account) -> None:
    account.is_ready(account.put("TOKEN", b"1"))
    created(account.controlplane, pod({"containers": [container("agent")]}, DEVBOX), account.name)
    assert data(account, "status", "TOKEN")["devboxes"] == {"current": 0, "older": 0, "none": 0, "starting": 1}


def test_devboxes_in_the_accounts_other_namespaces_count(account: Account) -> None:
    member = account.member(**{ACCOUNT: account.name})
    account.controlplane.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={member.name}")
    account.is_ready(account.put("TOKEN", b"1"))
    devbox(member, "box", NEW)
    assert data(account, "status", "TOKEN")["devboxes"]["current"] == 1


def test_missing_permissions_are_reported(account: Account) -> None:
    account.is_ready(account.put("TOKEN", b"1"))
    role = ("create", "rolebinding", "reader", "--clusterrole=devbox-secrets-view", "--user=reader")
    account.controlplane.kubectl(*role, f"--namespace={account.name}")
    result = run(account, "status", kubeconfig=account.controlplane.user_kubeconfig("reader"))
    assert result.returncode == 0
    assert result.stderr == (
        f"devbox-secrets: only devboxes in the namespace {account.name} are shown: you don't have permission to list"
        " namespaces\n"
        f"devbox-secrets: devboxes in the namespace {account.name} aren't shown: you don't have permission to list pods"
        " there\n"
    )


def test_a_secret_that_is_not_ready_is_shown_with_the_reason_and_an_exit_code(account: Account) -> None:
    account.is_ready(account.put("GOOD", b"1"))
    account.is_ready(account.put("PATH", b"1"), "ReservedName")
    assert cells(account, "status", "GOOD")
    lines = cells(account, "status", code=3)
    assert ["PATH", "no: ReservedName"] in [line[:2] for line in lines]
    (synced,) = (line[1] for line in cells(account, "status", "PATH", code=3) if line[0] == "synced")
    assert synced.startswith("no: ReservedName, PATH is reserved")


def test_waiting_ends_when_the_operator_has_processed_the_value(account: Account) -> None:
    account.put("TOKEN", b"1")
    assert cells(account, "status", "TOKEN", "--wait", "--timeout", "20s")
    account.put("PATH", b"1")
    assert cells(account, "status", "PATH", "--wait", "--timeout=20s", code=3)


def test_a_value_that_the_operator_has_not_processed_is_not_synced(controlplane: ControlPlane) -> None:
    with ControlPlane.start() as alone:
        install(alone)
        with operator(alone):
            account = Account.of(alone, "default")
            account.is_ready(account.put("TOKEN", b"1"))
        account.put("TOKEN", b"2")
        assert cells(account, "status", code=3)[1][:2] == ["TOKEN", "not yet"]
        result = run(account, "status", "TOKEN", "--wait", "--timeout=1s")
    assert result.returncode == 4
    assert result.stderr == (
        "devbox-secrets: the operator hasn't processed the values within 1s; check its pods:"
        " kubectl get pods -n devbox-secrets\n"
    )


def test_an_account_without_secrets(account: Account) -> None:
    assert cells(account, "status") == [[f"The account {account.name} has no secrets."]]


def test_usage_shows_the_secrets_of_devboxes_and_unused_secrets(account: Account) -> None:
    devbox(account, "empty", OLD)
    for variable in ("ONE", "TWO", "THREE"):
        account.is_ready(account.put(variable, b"1"))
    devbox(account, "some", NEW, {"devbox-secrets.dev/env": "ONE, SECOND=TWO"})
    lines = cells(account, "usage")
    assert lines[0] == ["DEVBOX", "COUNT", "SECRETS"]
    assert lines[1:3] == [
        [f"{account.name}/empty", "0", "none"],
        [f"{account.name}/some", "2", "all but THREE"],
    ]
    assert lines[-1] == ["Secrets that no running devbox has: THREE"]
    devbox(account, "one", NEW, {"devbox-secrets.dev/env": "FIRST=ONE", "devbox-secrets.dev/mount": "/run/secrets/x"})
    lines = cells(account, "usage")
    assert [f"{account.name}/one", "3", "all (also as files)"] in lines
    assert all(not line[0].startswith("Secrets that no") for line in lines)
    assert data(account, "usage")["devboxes"][1] == {
        "namespace": account.name, "name": "one", "secrets": ["ONE", "THREE", "TWO"], "files": True,
    }  # fmt: skip


def test_usage_without_devboxes(account: Account) -> None:
    account.is_ready(account.put("TOKEN", b"1"))
    assert cells(account, "usage")[0] == [f"The account {account.name} has no running devboxes."]
    assert cells(account, "usage")[-1] == ["Secrets that no running devbox has: TOKEN"]


def test_a_completed_pod_is_not_a_running_devbox(account: Account) -> None:
    devbox(account, "ended", NEW)
    patch = ("patch", "pod", "ended", "--subresource=status", f"--namespace={account.name}")
    account.controlplane.kubectl(*patch, "--patch", json.dumps({"status": {"phase": "Succeeded"}}))
    assert cells(account, "usage") == [[f"The account {account.name} has no running devboxes."]]
