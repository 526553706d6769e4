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
class Desk:
    """An account, and a folder with a .env file beside which commands are called."""

    account: Account
    folder: Path

    def run(self, *arguments: str, code: int = 3, kubeconfig: Path | None = None, value: bytes = b"") -> str:
        """Run import, and give its table; what it prints never holds a value."""
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
def desk(controlplane: ControlPlane, namespace: str, running: Operator, tmp_path: Path) -> Desk:
    (tmp_path / ".env").write_text(FILE)
    return Desk(Account.of(controlplane, namespace), tmp_path)


RESERVED = (
    "PATH is reserved because it could run code in every devbox or break it; choose another name, and set this one"
    " inside the devbox if a program needs it, or pass --allow-reserved if this cluster's operator allows it"
)
NO_NAME = (
    "invalid name of an environment variable: use letters, digits and _, not starting with a digit, such as"
    " GITHUB_TOKEN"
)
HEADS = ["LINE", "VARIABLE", "RESULT", "DETAILS"]
REJECTED = [
    ["5", "PATH", "rejected", RESERVED],
    ["6", "?", "rejected", NO_NAME],
    ["7", "TWICE", "rejected", "overridden by line 8"],
]


def table(what: str, *names: str) -> list[list[str]]:
    """The table of the file, where what can be sealed goes by these names."""
    github, db, twice = names
    return [
        HEADS,
        ["2", "GITHUB_TOKEN", what, github],
        ["3", "DB", what, db],
        *REJECTED,
        ["8", "TWICE", what, twice],
    ]


def test_every_line_is_applied_or_rejected_with_the_reason(desk: Desk) -> None:
    assert desk.lines("--apply") == [
        *table("created", "github-token", "db", "twice"),
        [f"Account {desk.account.name}: 3 created, 3 rejected."],
    ]
    desk.account.holds(VALUES)


def test_without_options_the_import_is_a_dry_run(desk: Desk) -> None:
    assert desk.lines() == [
        *table("create", "github-token", "db", "twice"),
        [f"Account {desk.account.name}: 3 to create, 3 rejected."],
        ["Nothing was changed. To import, pass --apply, --output-dir DIR or -o yaml."],
    ]
    assert desk.nothing_is_stored()


def test_an_existing_object_is_changed_and_keeps_other_fields(desk: Desk) -> None:
    body = desk.account.manifest("DB", b"before", "my-db")
    body["spec"]["description"] = "the database"
    desk.account.apply(body)
    assert ["3", "DB", "changed", "my-db"] in desk.lines("--apply", "--force-conflicts")
    desk.account.holds(VALUES)
    assert desk.stored("my-db")["spec"]["description"] == "the database"


def test_rejections_by_the_api_server_are_listed_by_line_even_in_a_dry_run(desk: Desk) -> None:
    path = f"{account_secrets_path(desk.account.name, 'my-db')}?fieldManager=argocd-controller"
    desk.account.controlplane.request("PATCH", path, desk.account.manifest("DB", b"before", "my-db"), APPLY)
    desk.account.put("TWICE", b"x", "one")
    desk.account.put("TWICE", b"x", "two")
    for words in ((), ("--apply",)):
        lines = desk.lines(*words)
        assert lines[2][2] == "rejected"
        assert lines[2][3].startswith("Argo CD manages my-db (spec.sealed); change it")
        assert lines[6][2:] == ["rejected", "the variable has 2 AccountSecrets: one, two"]
    assert desk.stored("github-token")


def test_without_permission_to_write_every_line_is_rejected(desk: Desk) -> None:
    role = ("create", "rolebinding", "reader", "--clusterrole=devbox-secrets-view", "--user=reader")
    desk.account.controlplane.kubectl(*role, f"--namespace={desk.account.name}")
    text = desk.run(kubeconfig=desk.account.controlplane.user_kubeconfig("reader"))
    assert text.count('User "reader" cannot patch resource "accountsecrets"') == 3


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_manifests_are_printed_for_kubectl_and_the_table_beside_them(desk: Desk, form: str) -> None:
    assert desk.run("-o", form).splitlines()[-1] == f"Account {desk.account.name}: 3 to create, 3 rejected."
    assert desk.nothing_is_stored()
    desk.account.controlplane.kubectl("apply", "-f", "-", input=desk.manifests)
    desk.account.holds(VALUES)


def test_a_dry_run_asks_the_api_server_and_stores_nothing(desk: Desk) -> None:
    assert desk.lines("--apply", "--dry-run") == [
        *table("create", "github-token", "db", "twice"),
        [f"Account {desk.account.name}: 3 to create, 3 rejected."],
        ["Nothing was changed."],
    ]
    assert desk.nothing_is_stored()


def test_manifests_are_written_into_a_folder_and_kept_the_next_time(desk: Desk) -> None:
    folder = desk.folder / "secrets"
    assert desk.lines("--output-dir=secrets")[2] == ["3", "DB", "written", "secrets/db.yaml"]
    assert {path.name for path in folder.iterdir()} == {"db.yaml", "github-token.yaml", "twice.yaml"}
    desk.account.controlplane.kubectl("apply", "-f", str(folder))
    desk.account.holds(VALUES)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert desk.lines("--output-dir=secrets")[2] == ["3", "DB", "kept", "secrets/db.yaml"]
    (desk.folder / ".env").write_text("DB=canary-7\n")
    assert desk.lines("--output-dir=secrets", "--overwrite", code=0)[1] == ["1", "DB", "overwritten", "secrets/db.yaml"]
    assert [name for name, content in before.items() if (folder / name).read_bytes() != content] == ["db.yaml"]
    desk.account.controlplane.kubectl("apply", "-f", str(folder))
    desk.account.holds({**VALUES, "DB": b"canary-7"})


@pytest.mark.parametrize("options", [["--apply"], ["--output-dir=secrets"], ["-o", "yaml"], []])
def test_while_a_line_is_damaged_nothing_is_done(desk: Desk, options: list[str]) -> None:
    (desk.folder / ".env").write_text("A=canary\nKEY=-----BEGIN KEY-----\ncanary\ncanary=\n-----END KEY-----\n")
    text = desk.run(*options, code=1)
    assert "2-5    KEY        damaged   BEGIN without END" in text
    assert desk.nothing_is_stored()
    assert not (desk.folder / "secrets").exists()


def test_the_other_lines_of_a_damaged_file_can_be_applied(desk: Desk) -> None:
    (desk.folder / ".env").write_text("A=canary\nB='canary\nC=canary\n")
    assert desk.lines("--apply", "--keep-going")[1:4] == [
        ["1", "A", "created", "a"],
        ["2", "B", "damaged", "not NAME=value, or a quote is missing"],
        ["3", "C", "created", "c"],
    ]
    desk.account.holds({"A": b"canary", "C": b"canary"})


def test_manifests_of_seal_can_be_appended_to_one_file(desk: Desk) -> None:
    kubeconfig, file = desk.account.controlplane.kubeconfig, desk.folder / "both.yaml"
    for name in ("A", "B"):
        with file.open("a") as both:
            both.write(command(kubeconfig, "seal", name, "-n", desk.account.name, value=name.encode()).stdout)
    desk.account.controlplane.kubectl("apply", "-f", str(file))
    desk.account.holds({"A": b"A", "B": b"B"})


@pytest.mark.parametrize("arguments", [["seal", "A", "--apply"], ["update", "A"]])
def test_an_empty_value_is_not_stored_without_the_option(desk: Desk, arguments: list[str]) -> None:
    desk.account.put("A", b"before", "a")
    before = desk.stored("a")["spec"]
    kubeconfig, call = desk.account.controlplane.kubeconfig, [*arguments, "-n", desk.account.name]
    done = command(kubeconfig, *call, value=b"")
    assert done.returncode == 1
    assert "the value of A is empty; pass --allow-empty" in done.stderr
    assert desk.stored("a")["spec"] == before
    assert command(kubeconfig, *call, "--allow-empty", value=b"").returncode == 0
    desk.account.holds({"A": b""})


def test_offline_it_seals_with_a_key_from_a_file(desk: Desk) -> None:
    (desk.folder / "key").write_text(str(desk.account.key))
    nowhere = desk.folder / "nowhere"
    text = desk.run("--public-key=key", "-o", "json", kubeconfig=nowhere)
    assert "GITHUB_TOKEN   sealed" in text
    assert len(json.loads(desk.manifests)["items"]) == 3


def test_a_file_without_a_broken_line_ends_with_0(desk: Desk) -> None:
    (desk.folder / ".env").write_text("A=1\n")
    assert desk.lines("--apply", code=0)[1] == ["1", "A", "created", "a"]
    (desk.folder / ".env").write_text("# nothing\n")
    assert desk.lines("--apply", code=0) == [[f"Account {desk.account.name}: no variables in the file."]]


def test_standard_input_is_a_file_too(desk: Desk) -> None:
    desk.run("-", "--apply", value=b"A=1\n", code=0)
    desk.account.holds({"A": b"1"})


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nowhere"], 1, "nowhere: No such file or directory"),
        (["--apply", "-o", "yaml"], 1, "pass only one of --apply, --output-dir and --output"),
        (["--apply", "--public-key=.env"], 1, ".env: not a public sealing key"),
        (["binary"], 1, "binary: not UTF-8 text: byte 3 is invalid"),
    ],
)
def test_an_invalid_call_is_reported(desk: Desk, arguments: list[str], code: int, sentence: str) -> None:
    (desk.folder / "binary").write_bytes(b"A=\xff")
    done = command(desk.account.controlplane.kubeconfig, "import", *arguments, cwd=desk.folder)
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in " ".join(done.stderr.replace("│", " ").split())
    assert desk.nothing_is_stored()
