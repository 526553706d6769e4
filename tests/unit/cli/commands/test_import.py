"""`devbox-secrets import` offline: which lines are sealed, and what happens to existing files."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from pydantic import SecretBytes
from typer.testing import CliRunner, Result

from devbox_secrets.cli import app
from devbox_secrets.crypto.envelope import KeyPair, Keyring

KEY = KeyPair(SecretBytes(b"s" * 32), datetime(2026, 1, 1, tzinfo=UTC))
HELD_BACK = (
    "devbox-secrets: nothing was imported, because damaged lines may hide others; fix them, or pass --keep-going to"
    " import the other lines\n"
)
HEAD = "LINE   VARIABLE   RESULT    DETAILS"
DAMAGED = """\
A=canary
KEY=-----BEGIN PRIVATE KEY-----
canary
canary=
-----END PRIVATE KEY-----
B=canary
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("key").write_text(f"{KEY.public}\n")


def run(*args: str, file: str | bytes | None = None, given: bytes = b"") -> Result:
    if file is not None:
        Path(".env").write_bytes(file.encode() if isinstance(file, str) else file)
    result = CliRunner().invoke(app, ["import", "--public-key", "key", "-n", "team", *args], input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "canary" not in result.output
    return result


def opened(text: str) -> dict[str, str]:
    ring, found = Keyring([KEY]), {}
    for body in yaml.safe_load_all(text):
        name = body["spec"]["name"]
        found[name] = ring.open(body["spec"]["sealed"], account="team", name=name).get_secret_value().decode()
    return found


@pytest.mark.parametrize("options", [[], ["-o", "yaml"], ["--output-dir", "out"], ["--dry-run"]])
def test_a_damaged_line_prevents_the_whole_import(options: list[str]) -> None:
    result = run(*options, file=DAMAGED)
    assert result.exit_code == 1
    table = result.stderr.removesuffix(HELD_BACK) if "-o" in options else result.stdout
    assert result.stderr.endswith(HELD_BACK)
    assert table.splitlines() == [
        HEAD,
        "1      A          skipped   other lines are damaged",
        "2-5    KEY        damaged   BEGIN without END; put multi-line values in quotes",
        "6      B          skipped   other lines are damaged",
        "",
        "Account team: 2 skipped, 1 damaged.",
    ]
    assert sorted(map(str, Path().iterdir())) == [".env", "key"]
    assert "-o" not in options or result.stdout == ""


def test_the_other_lines_can_be_imported() -> None:
    result = run("--keep-going", "-o", "yaml", file=DAMAGED)
    assert result.exit_code == 3
    assert opened(result.stdout) == {"A": "canary", "B": "canary"}
    assert "2-5    KEY        damaged   BEGIN without END" in result.stderr


def test_a_rejected_line_does_not_affect_other_lines() -> None:
    result = run("-o", "yaml", file="a.b=canary\nPATH=canary\nE=\nR=${X}\nA=canary\n")
    assert result.exit_code == 3
    assert opened(result.stdout) == {"A": "canary"}
    assert [line.split()[:3] for line in result.stderr.splitlines()[1:6]] == [
        ["1", "?", "rejected"],
        ["2", "PATH", "rejected"],
        ["3", "E", "rejected"],
        ["4", "R", "rejected"],
        ["5", "A", "sealed"],
    ]


def test_rejected_lines_can_be_allowed() -> None:
    options = ("--allow-empty", "--allow-reserved", "--literal", "-o", "yaml")
    result = run(*options, file="PATH=canary\nE=\nR=${X}\n")
    assert result.exit_code == 0
    assert opened(result.stdout) == {"PATH": "canary", "E": "", "R": "${X}"}


def test_manifests_are_printed_as_documents_or_a_list() -> None:
    text = run("-o", "yaml", file="A=1\nB=2\n").stdout
    assert text.startswith("---\n")
    assert text.count("\n---\n") == 1
    body = json.loads(run("-o", "json").stdout)
    assert [item["spec"]["name"] for item in body["items"]] == ["A", "B"]


@pytest.mark.parametrize("source", [".env", "-"])
def test_a_byte_order_mark_is_removed_with_a_message(source: str) -> None:
    raw = "A=1\r\nB=2\r\n".encode("utf-8-sig")
    result = run(source, "-o", "yaml", file=raw, given=raw)
    assert opened(result.stdout) == {"A": "1", "B": "2"}
    where = "standard input" if source == "-" else source
    assert result.stderr.startswith(f"devbox-secrets: removed the byte order mark from the start of {where}\n")


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("A=canary\r\n".encode("utf-16"), ".env: the text is UTF-16, which PowerShell's > writes; save it as UTF-8"),
        (b"A=canary\xff", ".env: not UTF-8 text: byte 9 is invalid"),
    ],
)
def test_a_file_in_another_encoding_is_reported(raw: bytes, sentence: str) -> None:
    result = run("-o", "yaml", file=raw)
    assert (result.exit_code, result.stdout) == (1, "")
    assert sentence in result.stderr


def test_existing_manifests_are_kept() -> None:
    run("--output-dir", "out", file="A=1\nB=2\n")
    before = Path("out/a.yaml").read_bytes()
    result = run("--output-dir", "out", file="A=canary\nB=2\nC=3\n")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "LINE   VARIABLE   RESULT    DETAILS",
        "1      A          kept      out/a.yaml",
        "2      B          kept      out/b.yaml",
        "3      C          written   out/c.yaml",
        "",
        "Account team: 2 kept, 1 written.",
        "Kept manifests may have an older value. To replace their values, pass --overwrite.",
    ]
    assert Path("out/a.yaml").read_bytes() == before
    assert opened(Path("out/c.yaml").read_text()) == {"C": "3"}


def test_overwriting_a_manifest_only_changes_the_sealed_value() -> None:
    run("--output-dir", "out", file="A=1\nB=2\n")
    mine = Path("out/mine.yml")
    Path("out/a.yaml").rename(mine)
    text = "\ufeff" + mine.read_text().replace("spec:", "spec: # mine\n  description: for CI").replace("\n", "\r\n")
    mine.write_bytes(text.encode())
    mine.chmod(0o640)
    result = run("-", "--output-dir", "out", "--overwrite", given=b"A=canary\n")
    assert result.exit_code == 0
    assert "1      A          overwritten   out/mine.yml" in result.stdout
    after = mine.read_bytes().decode()
    assert opened(after) == {"A": "canary"}
    old, new = yaml.safe_load(text)["spec"]["sealed"], yaml.safe_load(after)["spec"]["sealed"]
    assert after == text.replace(old, new)
    assert stat.S_IMODE(mine.stat().st_mode) == 0o640
    assert {path.name for path in Path("out").iterdir()} == {"mine.yml", "b.yaml"}


@pytest.mark.parametrize(
    "content",
    ["mine", "a: [", "{{ template }} AccountSecret", "\xff AccountSecret", "kind: AccountSecret\nspec: {name: B}\n"],
)
def test_a_file_with_other_content_is_not_changed(content: str) -> None:
    Path("out").mkdir()
    Path("out/a.yaml").write_text(content, encoding="latin-1")
    result = run("--output-dir", "out", "--overwrite", file="A=1\n")
    assert result.exit_code == 3
    assert (
        "1      A          rejected   out/a.yaml already exists and isn't the variable's manifest;"
        " move it, or use another folder\n" in result.stdout
    )
    assert Path("out/a.yaml").read_text(encoding="latin-1") == content


def test_another_account_s_manifest_is_not_changed() -> None:
    run("--output-dir", "out", file="A=1\n")
    before = Path("out/a.yaml").read_bytes()
    result = run("--output-dir", "out", "--overwrite", "-n", "other")
    assert result.exit_code == 3
    assert Path("out/a.yaml").read_bytes() == before


def test_a_dry_run_writes_nothing() -> None:
    run("--output-dir", "out", file="A=1\n")
    before = Path("out/a.yaml").read_bytes()
    result = run("--output-dir", "out", "--overwrite", "--dry-run", file="A=2\nB=3\n")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1:] == [
        "1      A          overwrite   out/a.yaml",
        "2      B          write       out/b.yaml",
        "",
        "Account team: 1 to overwrite, 1 to write.",
        "Nothing was changed.",
    ]
    assert [path.name for path in Path("out").iterdir()] == ["a.yaml"]
    assert Path("out/a.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--output-dir", "out", "-o", "yaml"], "pass only one of --apply, --output-dir and --output"),
        (["--overwrite"], "--overwrite requires --output-dir"),
        (["nowhere"], "nowhere: No such file or directory"),
        (["."], ".: Is a directory"),
    ],
)
def test_an_invalid_call_is_reported(options: list[str], sentence: str) -> None:
    result = run(*options, file="A=1\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"devbox-secrets: {sentence}\n"
