"""`import` of a .env file, on a real API server with the operator running."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from devbox_secrets.api.names import account_secrets_path
from devbox_secrets.kube.client import APPLY
from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import Json, get
from integration.support.processes import Operator, command

FILE = """\
# what the agents need
export GITHUB_TOKEN='canary-1'
DB = "canary\\n2"

PATH=/canary-3
canary.4=canary-4
TWICE=canary-5
TWICE=canary-6
"""
VALUES = {"GITHUB_TOKEN": b"canary-1", "DB": b"canary\n2", "TWICE": b"canary-6"}


@dataclass
class Workspace:
    """An account, and a folder with a .env file in which commands run."""

    account: Account
    folder: Path

    def run(self, *arguments: str, code: int = 3, kubeconfig: Path | None = None, value: bytes = b"") -> str:
        """Run import, and return its table; check that its output contains no value."""
        done = command(
            kubeconfig or self.account.controlplane.kubeconfig,
            *("import", *arguments, "-n", self.account.name),
            value=value,
            cwd=self.folder,
        )
        assert done.returncode == code, done.stderr
        assert "canary" not in done.stdout + done.stderr
        self.manifests = done.stdout
        return done.stderr if "-o" in arguments else done.stdout

    def lines(self, *arguments: str, code: int = 3) -> list[list[str]]:
        return [re.split(r" {3,}", line) for line in self.run(*arguments, code=code).splitlines() if line]

    def stored(self, name: str) -> Json:
        return get(self.account.controlplane, "accountsecret", name, "-n", self.account.name)

    def nothing_is_stored(self) -> bool:
        return not get(self.account.controlplane, "accountsecrets", "-n", self.account.name)["items"]


@pytest.fixture
def workspace(controlplane: ControlPlane, namespace: str, running: Operator, tmp_path: Path) -> Workspace:
    (tmp_path / ".env").write_text(FILE)
    return Workspace(Account.of(controlplane, namespace), tmp_path)


RESERVED = (
    "PATH is reserved because it could run code in every devbox or break it; choose another name, and set this one"
    " inside the devbox if a program needs it, or pass --allow-reserved if this cluster's operator allows it"
)
NO_NAME = (
    "invalid name of an environment variable: use letters, digits and _, not starting with a digit, such as"
    " GITHUB_TOKEN"
)
HEADER = ["LINE", "VARIABLE", "RESULT", "DETAILS"]
REJECTED = [
    ["5", "PATH", "rejected", RESERVED],
    ["6", "?", "rejected", NO_NAME],
    ["7", "TWICE", "rejected", "overridden by line 8"],
]


def table(what: str, *names: str) -> list[list[str]]:
    """Return the file's table; the valid lines have this result and these details."""
    github, db, twice = names
    return [
        HEADER,
        ["2", "GITHUB_TOKEN", what, github],
        ["3", "DB", what, db],
        *REJECTED,
        ["8", "TWICE", what, twice],
    ]


def test_every_line_is_applied_or_rejected_with_the_reason(workspace: Workspace) -> None:
    assert workspace.lines("--apply") == [
        *table("created", "github-token", "db", "twice"),
        [f"Account {workspace.account.name}: 3 created, 3 rejected."],
    ]
    workspace.account.holds(VALUES)


def test_without_options_the_import_is_a_dry_run(workspace: Workspace) -> None:
    assert workspace.lines() == [
        *table("create", "github-token", "db", "twice"),
        [f"Account {workspace.account.name}: 3 to create, 3 rejected."],
        ["Nothing was changed. To import, pass --apply, --output-dir DIR or -o yaml."],
    ]
    assert workspace.nothing_is_stored()


def test_an_existing_object_is_changed_and_keeps_other_fields(workspace: Workspace) -> None:
    body = workspace.account.manifest("DB", b"before", "my-db")
    body["spec"]["description"] = "the database"
    workspace.account.apply(body)
    assert ["3", "DB", "changed", "my-db"] in workspace.lines("--apply", "--force-conflicts")
    workspace.account.holds(VALUES)
    assert workspace.stored("my-db")["spec"]["description"] == "the database"


def test_rejections_by_the_api_server_are_listed_by_line_even_in_a_dry_run(workspace: Workspace) -> None:
    path = f"{account_secrets_path(workspace.account.name, 'my-db')}?fieldManager=argocd-controller"
    workspace.account.controlplane.request("PATCH", path, workspace.account.manifest("DB", b"before", "my-db"), APPLY)
    workspace.account.put("TWICE", b"x", "one")
    workspace.account.put("TWICE", b"x", "two")
    for words in ((), ("--apply",)):
        lines = workspace.lines(*words)
        assert lines[2][2] == "rejected"
        assert lines[2][3].startswith("Argo CD manages my-db (spec.sealed); change it")
        assert lines[6][2:] == ["rejected", "the variable has 2 AccountSecrets: one, two"]
    assert workspace.stored("github-token")


def test_without_permission_to_write_every_line_is_rejected(workspace: Workspace) -> None:
    role = ("create", "rolebinding", "reader", "--clusterrole=devbox-secrets-view", "--user=reader")
    workspace.account.controlplane.kubectl(*role, f"--namespace={workspace.account.name}")
    text = workspace.run(kubeconfig=workspace.account.controlplane.user_kubeconfig("reader"))
    assert text.count('User "reader" cannot patch resource "accountsecrets"') == 3


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_manifests_are_printed_for_kubectl_and_the_table_on_stderr(workspace: Workspace, form: str) -> None:
    assert workspace.run("-o", form).splitlines()[-1] == f"Account {workspace.account.name}: 3 to create, 3 rejected."
    assert workspace.nothing_is_stored()
    workspace.account.controlplane.kubectl("apply", "-f", "-", input=workspace.manifests)
    workspace.account.holds(VALUES)


def test_a_dry_run_sends_requests_but_stores_nothing(workspace: Workspace) -> None:
    assert workspace.lines("--apply", "--dry-run") == [
        *table("create", "github-token", "db", "twice"),
        [f"Account {workspace.account.name}: 3 to create, 3 rejected."],
        ["Nothing was changed."],
    ]
    assert workspace.nothing_is_stored()


def test_manifests_are_written_into_a_folder_and_kept_the_next_time(workspace: Workspace) -> None:
    folder = workspace.folder / "secrets"
    assert workspace.lines("--output-dir=secrets")[2] == ["3", "DB", "written", "secrets/db.yaml"]
    assert {path.name for path in folder.iterdir()} == {"db.yaml", "github-token.yaml", "twice.yaml"}
    workspace.account.controlplane.kubectl("apply", "-f", str(folder))
    workspace.account.holds(VALUES)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert workspace.lines("--output-dir=secrets")[2] == ["3", "DB", "kept", "secrets/db.yaml"]
    (workspace.folder / ".env").write_text("DB=canary-7\n")
    assert workspace.lines("--output-dir=secrets", "--overwrite", code=0)[1] == [
        "1",
        "DB",
        "overwritten",
        "secrets/db.yaml",
    ]
    assert [name for name, content in before.items() if (folder / name).read_bytes() != content] == ["db.yaml"]
    workspace.account.controlplane.kubectl("apply", "-f", str(folder))
    workspace.account.holds({**VALUES, "DB": b"canary-7"})


@pytest.mark.parametrize("options", [["--apply"], ["--output-dir=secrets"], ["-o", "yaml"], []])
def test_nothing_is_imported_if_a_line_is_damaged(workspace: Workspace, options: list[str]) -> None:
    (workspace.folder / ".env").write_text("A=canary\nKEY=-----BEGIN KEY-----\ncanary\ncanary=\n-----END KEY-----\n")
    text = workspace.run(*options, code=1)
    assert "2-5    KEY        damaged   BEGIN without END" in text
    assert workspace.nothing_is_stored()
    assert not (workspace.folder / "secrets").exists()


def test_the_other_lines_of_a_damaged_file_can_be_applied(workspace: Workspace) -> None:
    (workspace.folder / ".env").write_text("A=canary\nB='canary\nC=canary\n")
    assert workspace.lines("--apply", "--keep-going")[1:4] == [
        ["1", "A", "created", "a"],
        ["2", "B", "damaged", "not NAME=value, or a quote is missing"],
        ["3", "C", "created", "c"],
    ]
    workspace.account.holds({"A": b"canary", "C": b"canary"})


def test_manifests_of_seal_can_be_appended_to_one_file(workspace: Workspace) -> None:
    kubeconfig, file = workspace.account.controlplane.kubeconfig, workspace.folder / "both.yaml"
    for name in ("A", "B"):
        with file.open("a") as both:
            both.write(command(kubeconfig, "seal", name, "-n", workspace.account.name, value=name.encode()).stdout)
    workspace.account.controlplane.kubectl("apply", "-f", str(file))
    workspace.account.holds({"A": b"A", "B": b"B"})


@pytest.mark.parametrize("arguments", [["seal", "A", "--apply"], ["update", "A"]])
def test_an_empty_value_is_not_stored_without_allow_empty(workspace: Workspace, arguments: list[str]) -> None:
    workspace.account.put("A", b"before", "a")
    before = workspace.stored("a")["spec"]
    kubeconfig, call = workspace.account.controlplane.kubeconfig, [*arguments, "-n", workspace.account.name]
    done = command(kubeconfig, *call, value=b"")
    assert done.returncode == 1
    assert "the value of A is empty; pass --allow-empty" in done.stderr
    assert workspace.stored("a")["spec"] == before
    assert command(kubeconfig, *call, "--allow-empty", value=b"").returncode == 0
    workspace.account.holds({"A": b""})


def test_it_seals_offline_with_a_key_from_a_file(workspace: Workspace) -> None:
    (workspace.folder / "key").write_text(str(workspace.account.key))
    nowhere = workspace.folder / "nowhere"
    text = workspace.run("--public-key=key", "-o", "json", kubeconfig=nowhere)
    assert "GITHUB_TOKEN   sealed" in text
    assert len(json.loads(workspace.manifests)["items"]) == 3


def test_a_file_without_invalid_lines_exits_with_0(workspace: Workspace) -> None:
    (workspace.folder / ".env").write_text("A=1\n")
    assert workspace.lines("--apply", code=0)[1] == ["1", "A", "created", "a"]
    (workspace.folder / ".env").write_text("# nothing\n")
    assert workspace.lines("--apply", code=0) == [[f"Account {workspace.account.name}: no variables in the file."]]


def test_the_file_can_be_standard_input(workspace: Workspace) -> None:
    workspace.run("-", "--apply", value=b"A=1\n", code=0)
    workspace.account.holds({"A": b"1"})


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "nowhere: No such file or directory"),
        (["--apply", "-o", "yaml"], 1, "pass only one of --apply, --output-dir and --output"),
        (["--apply", "--public-key=.env"], 1, ".env: not a public sealing key"),
        (["binary"], 1, "binary: not UTF-8 text: byte 3 is invalid"),
    ],
)
def test_an_invalid_call_is_reported(workspace: Workspace, arguments: list[str], code: int, message: str) -> None:
    (workspace.folder / "binary").write_bytes(b"A=\xff")
    done = command(workspace.account.controlplane.kubeconfig, "import", *arguments, cwd=workspace.folder)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert workspace.nothing_is_stored()
