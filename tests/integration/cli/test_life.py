"""An AccountSecret that both kubectl and the command change, as the documents say, on a real API server."""

import json
import re
import shlex
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
MIGRATION = DOCS / "how-to" / "migrate-from-sealed-secrets.md"


def set_value(account: Account, *arguments: str, value: bytes) -> str:
    """Run a command that takes a value, and give the sentence with which it fails; nothing where it doesn't."""
    result = command(account.controlplane.kubeconfig, *arguments, "-n", account.name, value=value)
    assert result.returncode in {0, 1}
    return result.stderr


def kubectl(account: Account, *arguments: str, body: Json, check: bool = True) -> str:
    """Run kubectl with a manifest, and give what it says on standard error."""
    done = account.controlplane.kubectl(*arguments, "--filename=-", input=json.dumps(body), check=check)
    return done.stderr


def stored(account: Account) -> Json:
    return account.controlplane.read(account_secrets_path(account.name, "token")) or {}


def sealed(account: Account) -> str:
    return str(stored(account)["spec"]["sealed"])


def by(manager: str, media_type: str = MERGE, **metadata: Json) -> Callable[[Account, Json], None]:
    """Give what writes a manifest as another field manager does."""

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


def kubectl_does(*arguments: str) -> Callable[[Account, Json], object]:
    return lambda account, body: kubectl(account, *arguments, body=body)


def edit(account: Account, body: Json) -> None:
    """Change a value as a person does in the editor that kubectl starts."""
    by("kubectl")(account, body)
    account.controlplane.request(
        "PATCH",
        f"{account_secrets_path(account.name, 'token')}?fieldManager=kubectl-edit",
        {"spec": body["spec"]},
        MERGE,
    )


GIVEN_UP: dict[str, Callable[[Account, Json], object]] = {
    "kubectl apply": kubectl_does("apply"),
    "kubectl apply --server-side": kubectl_does("apply", "--server-side"),
    "kubectl create": kubectl_does("create"),
    "kubectl edit": edit,
    "kubectl patch": by("kubectl-patch"),
    "kubectl replace": by("kubectl-replace"),
    "the gateway": by("devbox-secrets-gateway"),
    "the operator after a rotation": by("devbox-secrets"),
}


@pytest.mark.parametrize("writer", GIVEN_UP)
def test_the_command_takes_over_from_a_person_s_kubectl_and_the_gateway(account: Account, writer: str) -> None:
    GIVEN_UP[writer](account, account.manifest("TOKEN", b"one"))
    assert set_value(account, "update", "TOKEN", value=b"two") == ""
    account.holds({"TOKEN": b"two"})


TOOLS: dict[str, tuple[Callable[[Account, Json], None], str]] = {
    "Argo CD": (by("argocd-controller", APPLY), "Argo CD manages token (spec.sealed); change it in Git"),
    "Flux": (by("kustomize-controller", APPLY), "Flux manages token (spec.sealed); change it in Git"),
    "Helm": (by("helm"), "Helm manages token (spec.sealed); change it in the release's chart or values"),
    "marked by Argo CD": (
        by("kubectl", APPLY, annotations={"argocd.argoproj.io/tracking-id": "x"}),
        "Argo CD manages token (spec.sealed); change it in Git",
    ),
    "an unknown field manager": (by("k9s"), "the field manager k9s manages token (spec.sealed); change it there"),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_manages_is_its_own(account: Account, tool: str) -> None:
    write, sentence = TOOLS[tool]
    write(account, account.manifest("TOKEN", b"one"))
    before = sealed(account)
    said = set_value(account, "update", "TOKEN", value=b"two")
    assert said == f"devbox-secrets: {sentence}, or pass --force-conflicts\n"
    assert sealed(account) == before


def test_conflicts_can_be_forced(account: Account) -> None:
    by("argocd-controller", APPLY)(account, account.manifest("TOKEN", b"one"))
    assert set_value(account, "update", "TOKEN", "--force-conflicts", value=b"two") == ""
    account.holds({"TOKEN": b"two"})


def test_a_deletion_names_the_tool_that_may_create_it_again(account: Account) -> None:
    by("argocd-controller", APPLY)(account, account.manifest("TOKEN", b"one"))
    said = set_value(account, "delete", "TOKEN", "--yes", value=b"")
    assert said == "devbox-secrets: Argo CD manages token and may create it again; remove it in Git, too\n"
    assert stored(account) == {}


@pytest.mark.parametrize("first", [("apply",), ("apply", "--server-side")], ids=" ".join)
def test_the_old_file_applied_again_counts_and_can_be_taken_over_again(
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
def test_the_old_file_applied_again_on_the_server_s_side_conflicts_until_it_is_forced(
    account: Account, first: tuple[str, ...]
) -> None:
    old = account.manifest("TOKEN", b"one")
    kubectl(account, *first, body=old)
    set_value(account, "update", "TOKEN", value=b"two")
    said = kubectl(account, "apply", "--server-side", body=old, check=False)
    assert 'conflict with "devbox-secrets-cli": .spec.sealed' in said
    assert sealed(account) != old["spec"]["sealed"]
    kubectl(account, "apply", "--server-side", "--force-conflicts", body=old)
    account.holds({"TOKEN": b"one"})


def test_kubectl_applies_over_what_the_command_created(account: Account) -> None:
    set_value(account, "seal", "TOKEN", "--apply", "--description=mine", value=b"one")
    body = account.manifest("TOKEN", b"two")
    assert "The missing annotation will be patched automatically" in kubectl(account, "apply", body=body)
    assert kubectl(account, "apply", body=body) == ""
    account.holds({"TOKEN": b"two"})
    assert stored(account)["spec"]["description"] == "mine"


def test_kubectl_creates_again_what_the_command_deleted(account: Account) -> None:
    body = account.manifest("TOKEN", b"one")
    kubectl(account, "apply", body=body)
    assert set_value(account, "delete", "TOKEN", "--yes", value=b"") == ""
    assert stored(account) == {}
    kubectl(account, "apply", body=body)
    account.holds({"TOKEN": b"one"})


def test_a_status_write_in_the_meantime_does_not_prevent_an_update(account: Account) -> None:
    # The operator writes the status at the moment in which the command reads, seals and applies.
    for number in range(3):
        body = account.manifest("TOKEN", f"{number}".encode())
        account.controlplane.request(
            "PATCH", f"{account_secrets_path(account.name, 'token')}?fieldManager=kubectl&force=true", body, APPLY
        )
        assert set_value(account, "update", "TOKEN", value=b"new") == ""


# --- The sequences of the documents


def quick_start(heading: str) -> list[list[str]]:
    """Give the commands of each block in a section of the quick start."""
    _, _, rest = QUICK_START.read_text().partition(f"\n## {heading}\n")
    return [[step.command for step in block] for block in shell.sessions(rest.partition("\n## ")[0])]


def shell_of(account: Account, folder: Path) -> Callable[[str], str]:
    """Give what runs a command in a folder as the account's owner, and gives what it prints."""
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


def test_a_migration_works_as_written(account: Account, tmp_path: Path) -> None:
    run = shell_of(account, tmp_path)
    values = {"GITHUB_TOKEN": "ghp_1", "token": "with a newline\n"}
    literals = shlex.join(f"--from-literal={name}={value}" for name, value in values.items())
    run(f"kubectl create secret generic api-keys {literals}")
    text = MIGRATION.read_text().replace("team-a", account.name)
    (script,) = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    run(script)
    (apply,) = (steps for steps in shell.sessions(text) if "apply" in steps[0].command)
    for step in apply:
        run(step.command)
    account.holds({"GITHUB_TOKEN": b"ghp_1", "API_TOKEN": b"with a newline\n"})
