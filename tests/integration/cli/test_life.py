"""An AccountSecret that both kubectl and the command change, as documented, on a real API server."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from devbox_secrets.api.names import account_secrets_path
from devbox_secrets.kube.client import APPLY, MERGE
from harness import shell
from integration.support.account import Account
from integration.support.chart import Json
from integration.support.processes import command

DOCS = Path(__file__).parents[3] / "docs"
QUICK_START = DOCS / "quick-start.md"


def set_value(account: Account, *arguments: str, value: bytes) -> str:
    """Run a command that takes a value, and return its error message; empty if it succeeds."""
    result = command(account.controlplane.kubeconfig, *arguments, "-n", account.name, value=value)
    assert result.returncode in {0, 1}
    return result.stderr


def kubectl(account: Account, *arguments: str, body: Json, check: bool = True) -> str:
    """Run kubectl with a manifest, and return its standard error."""
    done = account.controlplane.kubectl(*arguments, "--filename=-", input=json.dumps(body), check=check)
    return done.stderr


def stored(account: Account) -> Json:
    return account.controlplane.read(account_secrets_path(account.name, "token")) or {}


def sealed(account: Account) -> str:
    return str(stored(account)["spec"]["sealed"])


def as_manager(manager: str, media_type: str = MERGE, **metadata: Json) -> Callable[[Account, Json], None]:
    """Return a function that writes a manifest as another field manager does."""

    def write(account: Account, body: Json) -> None:
        path = account_secrets_path(account.name, "token")
        if stored(account) and media_type == MERGE:
            account.controlplane.request("PATCH", f"{path}?fieldManager={manager}", {"spec": body["spec"]}, MERGE)
        elif media_type == MERGE:
            account.controlplane.request("POST", f"{account_secrets_path(account.name)}?fieldManager={manager}", body)
        else:
            body = {**body, "metadata": {**body["metadata"], **metadata}}
            account.controlplane.request("PATCH", f"{path}?fieldManager={manager}&force=true", body, APPLY)

    return write


def with_kubectl(*arguments: str) -> Callable[[Account, Json], object]:
    return lambda account, body: kubectl(account, *arguments, body=body)


def edit(account: Account, body: Json) -> None:
    """Change a value as `kubectl edit` does."""
    as_manager("kubectl")(account, body)
    account.controlplane.request(
        "PATCH",
        f"{account_secrets_path(account.name, 'token')}?fieldManager=kubectl-edit",
        {"spec": body["spec"]},
        MERGE,
    )


TAKEN_OVER: dict[str, Callable[[Account, Json], object]] = {
    "kubectl apply": with_kubectl("apply"),
    "kubectl apply --server-side": with_kubectl("apply", "--server-side"),
    "kubectl create": with_kubectl("create"),
    "kubectl edit": edit,
    "kubectl patch": as_manager("kubectl-patch"),
    "kubectl replace": as_manager("kubectl-replace"),
    "the gateway": as_manager("devbox-secrets-gateway"),
    "the operator after a rotation": as_manager("devbox-secrets"),
}


@pytest.mark.parametrize("writer", TAKEN_OVER)
def test_the_command_takes_over_from_kubectl_and_the_gateway(account: Account, writer: str) -> None:
    TAKEN_OVER[writer](account, account.manifest("TOKEN", b"one"))
    assert set_value(account, "update", "TOKEN", value=b"two") == ""
    account.holds({"TOKEN": b"two"})


TOOLS: dict[str, tuple[Callable[[Account, Json], None], str]] = {
    "Argo CD": (as_manager("argocd-controller", APPLY), "Argo CD manages token (spec.sealed); change it in Git"),
    "Flux": (as_manager("kustomize-controller", APPLY), "Flux manages token (spec.sealed); change it in Git"),
    "Helm": (as_manager("helm"), "Helm manages token (spec.sealed); change it in the release's chart or values"),
    "marked by Argo CD": (
        as_manager("kubectl", APPLY, annotations={"argocd.argoproj.io/tracking-id": "x"}),
        "Argo CD manages token (spec.sealed); change it in Git",
    ),
    "an unknown field manager": (
        as_manager("k9s"),
        "the field manager k9s manages token (spec.sealed); change it there",
    ),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_value_that_a_tool_manages_is_not_changed(account: Account, tool: str) -> None:
    write, message = TOOLS[tool]
    write(account, account.manifest("TOKEN", b"one"))
    before = sealed(account)
    shown = set_value(account, "update", "TOKEN", value=b"two")
    assert shown == f"devbox-secrets: {message}, or pass --force-conflicts\n"
    assert sealed(account) == before


def test_conflicts_can_be_forced(account: Account) -> None:
    as_manager("argocd-controller", APPLY)(account, account.manifest("TOKEN", b"one"))
    assert set_value(account, "update", "TOKEN", "--force-conflicts", value=b"two") == ""
    account.holds({"TOKEN": b"two"})


def test_a_deletion_names_the_tool_that_may_create_it_again(account: Account) -> None:
    as_manager("argocd-controller", APPLY)(account, account.manifest("TOKEN", b"one"))
    message = set_value(account, "delete", "TOKEN", "--yes", value=b"")
    assert message == "devbox-secrets: Argo CD manages token and may create it again; remove it in Git, too\n"
    assert stored(account) == {}


@pytest.mark.parametrize("first", [("apply",), ("apply", "--server-side")], ids=" ".join)
def test_reapplying_the_old_file_takes_effect_and_can_be_taken_over_again(
    account: Account, first: tuple[str, ...]
) -> None:
    old = account.manifest("TOKEN", b"one")
    kubectl(account, *first, body=old)
    set_value(account, "update", "TOKEN", value=b"two")
    kubectl(account, "apply", body=old)
    assert sealed(account) == old["spec"]["sealed"]
    assert set_value(account, "update", "TOKEN", value=b"three") == ""
    account.holds({"TOKEN": b"three"})


@pytest.mark.parametrize("first", [("apply",), ("apply", "--server-side")], ids=" ".join)
def test_reapplying_the_old_file_server_side_conflicts_unless_forced(account: Account, first: tuple[str, ...]) -> None:
    old = account.manifest("TOKEN", b"one")
    kubectl(account, *first, body=old)
    set_value(account, "update", "TOKEN", value=b"two")
    message = kubectl(account, "apply", "--server-side", body=old, check=False)
    assert 'conflict with "devbox-secrets-cli": .spec.sealed' in message
    assert sealed(account) != old["spec"]["sealed"]
    kubectl(account, "apply", "--server-side", "--force-conflicts", body=old)
    account.holds({"TOKEN": b"one"})


def test_kubectl_can_apply_over_what_the_command_created(account: Account) -> None:
    set_value(account, "seal", "TOKEN", "--apply", "--description=mine", value=b"one")
    body = account.manifest("TOKEN", b"two")
    assert "The missing annotation will be patched automatically" in kubectl(account, "apply", body=body)
    assert kubectl(account, "apply", body=body) == ""
    account.holds({"TOKEN": b"two"})
    assert stored(account)["spec"]["description"] == "mine"


def test_kubectl_can_recreate_what_the_command_deleted(account: Account) -> None:
    body = account.manifest("TOKEN", b"one")
    kubectl(account, "apply", body=body)
    assert set_value(account, "delete", "TOKEN", "--yes", value=b"") == ""
    assert stored(account) == {}
    kubectl(account, "apply", body=body)
    account.holds({"TOKEN": b"one"})


def test_a_status_write_in_the_meantime_does_not_prevent_an_update(account: Account) -> None:
    # The operator writes the status while the command reads, seals and applies.
    for number in range(3):
        body = account.manifest("TOKEN", f"{number}".encode())
        account.controlplane.request(
            "PATCH", f"{account_secrets_path(account.name, 'token')}?fieldManager=kubectl&force=true", body, APPLY
        )
        assert set_value(account, "update", "TOKEN", value=b"new") == ""


# --- Commands from the documentation


def quick_start(heading: str) -> list[list[str]]:
    """Return the commands of each block in a section of the quick start."""
    _, _, rest = QUICK_START.read_text().partition(f"\n## {heading}\n")
    return [[step.command for step in block] for block in shell.sessions(rest.partition("\n## ")[0])]


def shell_of(account: Account, folder: Path) -> Callable[[str], str]:
    """Return a function that runs commands in a folder as the account's owner and returns their output."""
    env = shell.environment(folder, account.controlplane.kubeconfig)
    set_context = f"kubectl config set-context --current --namespace {account.name}"

    def run(script: str) -> str:
        *_, ran = shell.run([set_context, script], folder, env)
        assert ran.code == 0, f"{script}: {ran.output}"
        return ran.output

    return run


@pytest.mark.parametrize("way", [0, 1], ids=["seal and apply again", "update"])
def test_the_quick_start_works_as_written(account: Account, tmp_path: Path, way: int) -> None:
    run = shell_of(account, tmp_path)
    (tmp_path / "token").write_text("one")
    for step in chain(*quick_start("Seal and apply a value")):
        run(step)
    account.holds({"GITHUB_TOKEN": b"one"})
    (tmp_path / "token").write_text("two")
    for step in quick_start("Change the value")[way]:
        run(step)
    account.holds({"GITHUB_TOKEN": b"two"})
    for step in chain(*quick_start("Delete the value")):
        run(step)
    account.holds(None)
