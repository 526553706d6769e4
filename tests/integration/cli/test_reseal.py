"""`reseal` of manifests in Git, on a real API server with two sealing keys."""

import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretBytes

from devbox_secrets.cli.formats.yaml_edit import find
from devbox_secrets.crypto.envelope import KeyPair, Keyring
from harness.controlplane import ControlPlane
from integration.support.chart import NAMESPACE, Json, get, install
from integration.support.processes import command
from integration.support.sealing_keys import create

OLD, NEW, LOST = (
    KeyPair(SecretBytes(bytes([number]) * 32), datetime(2026, number, 1, tzinfo=UTC)) for number in (1, 2, 3)
)
KEYRING = Keyring([OLD, NEW])
FILE = """\
# The tokens of our agents. {canary}
apiVersion: devbox-secrets.dev/v1beta1
kind: AccountSecret
metadata: {{namespace: team, name: token}}
spec:
    sealed: "{old}"   # change me with reseal
    name: TOKEN
---
kind: AccountSecret
apiVersion: devbox-secrets.dev/v1beta1
metadata: {{name: token}}
spec: {{name: HOMELESS, sealed: {new}}}
"""


@pytest.fixture(scope="module", autouse=True)
def _keys(controlplane: ControlPlane) -> Iterator[None]:
    install(controlplane)
    create(controlplane)
    ours = {key.public.id: base64.b64encode(key.dump()).decode() for key in (OLD, NEW)}
    before = get(controlplane, "secret", "devbox-secrets-keys", "-n", NAMESPACE).get("data") or {}

    def patch(data: Json) -> None:
        what = ("secret", "devbox-secrets-keys", "-n", NAMESPACE, "--type=merge")
        controlplane.kubectl("patch", *what, "-p", json.dumps({"data": data}))

    patch({**dict.fromkeys(before), **ours})
    yield
    # The ConfigMap still names these.
    patch({**dict.fromkeys(ours), **before})


def sealed(key: KeyPair, name: str = "TOKEN", value: bytes = b"canary") -> str:
    return key.public.seal(SecretBytes(value), account="team", name=name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = FILE.format(canary="🙂", old=sealed(OLD), new=sealed(NEW, "HOMELESS"))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "secrets.yaml").write_text(text)
    (tmp_path / "deep" / "secrets.yaml").chmod(0o640)
    (tmp_path / "other.yaml").write_text("kind: ConfigMap\n")
    return tmp_path


def run(controlplane: ControlPlane, folder: Path, *arguments: str, code: int = 0) -> tuple[list[list[str]], str]:
    """Run reseal in a folder, and return its table and its messages."""
    done = command(controlplane.kubeconfig, "reseal", *arguments, cwd=folder)
    assert done.returncode == code, done.stderr
    assert "canary" not in done.stdout + done.stderr
    return [re.split(r" {3,}", line) for line in done.stdout.splitlines()], done.stderr


def test_an_older_key_is_replaced_and_the_rest_of_the_file_is_unchanged(
    controlplane: ControlPlane, folder: Path
) -> None:
    path = folder / "deep" / "secrets.yaml"
    before = path.read_text()
    table, message = run(controlplane, folder, ".")
    after = path.read_text()
    old, new = find(before)[0], find(after)[0]
    assert after == before.replace(old.sealed, new.sealed)
    assert new.sealed.startswith(f"dbs1.{NEW.public.id}.")
    assert KEYRING.open(new.sealed, account="team", name="TOKEN") == SecretBytes(b"canary")
    assert table[1] == ["deep/secrets.yaml:6", "TOKEN", "resealed", f"{OLD.public.id} → {NEW.public.id}"]
    assert message == f"devbox-secrets: 1 resealed, 1 already used the newest key {NEW.public.id}\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert {each.name for each in folder.rglob("*")} == {"deep", "secrets.yaml", "other.yaml"}
    assert all(b"canary" not in each.read_bytes() for each in folder.rglob("*.yaml"))


def test_a_second_run_changes_nothing(controlplane: ControlPlane, folder: Path) -> None:
    run(controlplane, folder, ".")
    before = (folder / "deep" / "secrets.yaml").stat()
    table, message = run(controlplane, folder, ".")
    assert (table, message) == ([], f"devbox-secrets: 0 resealed, 2 already used the newest key {NEW.public.id}\n")
    assert (folder / "deep" / "secrets.yaml").stat().st_ino == before.st_ino


def test_a_dry_run_shows_the_difference_and_changes_nothing(controlplane: ControlPlane, folder: Path) -> None:
    path = folder / "deep" / "secrets.yaml"
    before = path.read_bytes()
    done = command(controlplane.kubeconfig, "reseal", "deep", "--dry-run", cwd=folder)
    assert done.returncode == 0
    assert path.read_bytes() == before
    lines = done.stdout.splitlines()
    assert lines[:2] == ["--- a/deep/secrets.yaml", "+++ b/deep/secrets.yaml"]
    assert [line[:11] for line in lines if line.startswith(("-  ", "+  "))] == ["-    sealed", "+    sealed"]
    assert "1 would be resealed" in done.stderr


HEAD = "apiVersion: devbox-secrets.dev/v1beta1\nkind: AccountSecret\nmetadata: {namespace: team}\n"


def test_a_value_that_cannot_be_resealed_is_listed_and_does_not_affect_others(
    controlplane: ControlPlane, folder: Path
) -> None:
    old = sealed(OLD)
    utf_16 = f"{HEAD}spec: {{name: TOKEN, sealed: {old}}}\n".encode("utf-16")
    (folder / "lost.yaml").write_text(f"{HEAD}spec: {{name: TOKEN, sealed: {sealed(LOST)}}}\n")
    (folder / "moved.yaml").write_text(f"{HEAD}spec: {{name: TOKEN, sealed: {sealed(OLD, 'OTHER')}}}\n")
    (folder / "plain.yaml").write_text(f"{HEAD}spec: {{name: TOKEN, sealed: canary}}\n")
    (folder / "broken.yaml").write_text(f"{HEAD}spec: {{name: TOKEN, sealed: '{old[:99]}\n  {old[99:]}'}}\n")
    (folder / "twice.yaml").write_text(f"{HEAD}spec: {{name: TOKEN, sealed: {sealed(NEW)}}}\n" * 2)
    (folder / "template.tpl").write_text(f"{HEAD}spec: {{{{ .Values.canary }}}}: {{\n# {old}\n")
    (folder / "values.yaml").write_text(f"canary:\n  token: {old}\n")
    (folder / "utf-16.yaml").write_bytes(utf_16)
    table, message = run(controlplane, folder, ".", code=3)
    results = {row[0]: tuple(row[-2:]) for row in table}
    assert results.pop("deep/secrets.yaml:6")[0] == "resealed"
    assert results.pop("lost.yaml:4")[1].startswith(
        f"the value is sealed with the key {LOST.public.id}, which this clus"
    )
    assert results.pop("moved.yaml:4")[1].startswith(
        "cannot decrypt the sealed value for the account team and the name T"
    )
    problems = {
        "plain.yaml:4": "not a sealed value: it doesn't start with dbs1. and a key id",
        "broken.yaml:4": (
            "the sealed value contains whitespace or a line break; write it on one line without whitespace"
        ),
        "twice.yaml": "lines 1 and 5 set the same key in one mapping; separate manifests with a line ---",
        "template.tpl:5": "line 4 isn't YAML, possibly a template; seal the value again",
        "values.yaml:2": (
            "the value isn't in an AccountSecret with a spec.name, so its account and variable are unknown; seal it"
            " again"
        ),
        "utf-16.yaml": (
            "the text is UTF-16, which PowerShell's > writes; save it as UTF-8, for example with Set-Content -Encoding"
            " utf8"
        ),
    }
    assert results == {"FILE": ("RESULT", "DETAILS"), **{where: ("failed", why) for where, why in problems.items()}}
    assert message.splitlines()[1] == (
        "devbox-secrets: don't prune the older keys yet; the values that failed may need them"
    )
    assert (folder / "utf-16.yaml").read_bytes() == utf_16


def test_bytes_around_a_value_are_not_changed(controlplane: ControlPlane, folder: Path) -> None:
    old = sealed(OLD)
    wrapped = f'"{old[:50]}\\\r\n      {old[50:]}"'
    text = f"\ufeff{HEAD}# canary é 🙂 \t\nspec:\n  name: TOKEN\n  sealed: {wrapped}  # end".replace("\n", "\r\n", 2)
    (folder / "deep" / "secrets.yaml").write_bytes(text.encode())
    run(controlplane, folder, "deep")
    after = (folder / "deep" / "secrets.yaml").read_bytes().decode()
    (found,) = find(after)
    assert after == text.replace(wrapped, f'"{found.sealed}"')
    assert KEYRING.open(found.sealed, account="team", name="TOKEN") == SecretBytes(b"canary")


def test_a_manifest_without_a_namespace_belongs_to_the_account(controlplane: ControlPlane, folder: Path) -> None:
    head = "apiVersion: devbox-secrets.dev/v1beta1\nkind: AccountSecret\n"
    (folder / "one.json").write_text(f"{head}spec: {{name: TOKEN, sealed: {sealed(OLD)}}}\n")
    assert run(controlplane, folder, "one.json", code=3)[0][1][2] == "failed"
    assert run(controlplane, folder, "one.json", "-n", "team")[0][1][2] == "resealed"


def test_it_needs_permission_to_read_the_keys(controlplane: ControlPlane, folder: Path) -> None:
    done = command(controlplane.user_kubeconfig("someone"), "reseal", ".", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert 'User "someone" cannot get resource "secrets"' in done.stderr


def test_a_link_to_a_manifest_stays_a_link(controlplane: ControlPlane, folder: Path) -> None:
    (folder / "link.yaml").symlink_to("deep/secrets.yaml")
    run(controlplane, folder, "link.yaml")
    assert (folder / "link.yaml").is_symlink()
    assert find((folder / "deep" / "secrets.yaml").read_text())[0].sealed.startswith(f"dbs1.{NEW.public.id}.")
