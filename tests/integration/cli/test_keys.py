"""`devbox-secrets keys` on a real API server, including the restore of a lost cluster."""

import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from harness.controlplane import ControlPlane
from harness.terminal import Terminal
from integration.support.account import Account
from integration.support.chart import NAMESPACE, Json, get, install, until
from integration.support.processes import COMMAND, Operator, operator
from integration.support.sealing_keys import (
    SECRET,
    damage,
    is_published,
    new_key,
    newest,
    published,
    put_sealed,
    seed_forms,
    store,
    store_and_publish,
    stored,
)

PASSPHRASE = "correct horse battery staple"  # noqa: S105 - of tests


@pytest.fixture(scope="module")
def controlplane() -> Iterator[ControlPlane]:
    """A separate control plane, because these tests remove its keys."""
    with ControlPlane.start() as it:
        install(it)
        yield it


@pytest.fixture(scope="module")
def running(controlplane: ControlPlane) -> Iterator[Operator]:
    with operator(controlplane, keys_refresh_seconds="0.1") as it:
        yield it


@pytest.fixture
def account(controlplane: ControlPlane, namespace: str) -> Account:
    """A namespace; each test chooses the keys that seal its values."""
    return Account(controlplane, new_key().public, namespace)


@pytest.fixture
def passphrase(tmp_path: Path) -> str:
    """The option that passes a passphrase without a terminal."""
    path = tmp_path / "passphrase"
    path.write_text(f"{PASSPHRASE}\n")
    return f"--passphrase-file={path}"


def keys(
    controlplane: ControlPlane, *arguments: str, kubeconfig: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `devbox-secrets keys` as the administrator, unless another kubeconfig is given."""
    return subprocess.run(
        [COMMAND, "keys", *arguments, f"--kubeconfig={kubeconfig or controlplane.kubeconfig}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def user_with_verbs(controlplane: ControlPlane, name: str, *verbs: str) -> Path:
    """Return the kubeconfig of a new user with only these permissions for the keys' Secret."""
    path = controlplane.user_kubeconfig(name)
    role = ("create", "role", name, f"-n={NAMESPACE}", "--resource=secrets", "--resource-name=devbox-secrets-keys")
    if verbs:
        controlplane.kubectl(*role, *(f"--verb={verb}" for verb in verbs))
        controlplane.kubectl("create", "rolebinding", name, f"-n={NAMESPACE}", f"--role={name}", f"--user={name}")
    return path


# --- list


def test_keys_are_listed_newest_first_with_their_use(controlplane: ControlPlane, account: Account) -> None:
    new, old, damaged = new_key(days=1), new_key(days=2), new_key(days=3)
    store(controlplane, new, old)
    damage(controlplane, damaged)
    for variable in ("ONE", "TWO"):
        put_sealed(account, old, variable, b"x")
    gone = new_key(days=9)
    put_sealed(account, gone, "THREE", b"x")
    done = keys(controlplane, "list", "--output=json")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert f"cannot read the sealing key {damaged.public.id}" in done.stderr
    rows = json.loads(done.stdout)
    assert rows[:2] == [
        {"id": new.public.id, "state": "newest", "created": _second(new.created), "accountSecrets": 0},
        {"id": old.public.id, "state": "older", "created": _second(old.created), "accountSecrets": 2},
    ]
    assert sorted(rows[2:], key=str) == sorted(
        [
            {"id": damaged.public.id, "state": "damaged", "created": None, "accountSecrets": 0},
            {"id": gone.public.id, "state": "missing", "created": None, "accountSecrets": 1},
        ],
        key=str,
    )
    assert yaml.safe_load(keys(controlplane, "list", "-o", "yaml").stdout) == rows
    lines = keys(controlplane, "list").stdout.splitlines()
    assert lines[0].split() == ["KEY", "STATE", "CREATED", "ACCOUNTSECRETS"]
    assert lines[2].split() == [old.public.id, "older", _second(old.created), "2"]


def _second(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_without_permission_to_read_the_secret_the_public_keys_are_listed(
    controlplane: ControlPlane, running: Operator
) -> None:
    new, old = new_key(days=1), new_key(days=2)
    store_and_publish(controlplane, new, old)
    done = keys(controlplane, "list", "--output=json", kubeconfig=user_with_verbs(controlplane, "nobody"))
    assert json.loads(done.stdout) == [
        {"id": new.public.id, "state": "newest", "created": None, "accountSecrets": None},
        {"id": old.public.id, "state": "older", "created": None, "accountSecrets": None},
    ]
    assert done.returncode == 0
    assert "you don't have permission to list AccountSecrets in all namespaces" in done.stderr
    assert "you don't have permission to get the Secret devbox-secrets-keys in devbox-secrets" in done.stderr


# --- rotate


def test_permission_to_patch_the_secret_is_enough_to_rotate(controlplane: ControlPlane, running: Operator) -> None:
    old = new_key(days=1)
    store_and_publish(controlplane, old)
    done = keys(controlplane, "rotate", kubeconfig=user_with_verbs(controlplane, "rotator", "patch"))
    assert (done.returncode, done.stderr) == (0, "")
    new = done.stdout.strip()
    assert newest(controlplane) == new
    assert stored(controlplane).keys() == {old.public.id, new}


def test_missing_permissions_for_keys_are_reported(controlplane: ControlPlane) -> None:
    done = keys(controlplane, "rotate", kubeconfig=user_with_verbs(controlplane, "someone"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "you need permission to patch the Secret devbox-secrets-keys in devbox-secrets" in done.stderr


def test_without_an_installation_the_message_names_the_namespace_option(controlplane: ControlPlane) -> None:
    for command in (["rotate"], ["list"], ["backup", "-"], ["prune", "--yes"]):
        done = keys(controlplane, *command, "--operator-namespace=elsewhere")
        assert (done.returncode, done.stdout) == (1, "")
        assert "devbox-secrets isn't installed in the namespace elsewhere; install it, or pass" in done.stderr


def test_waiting_for_a_rotation_has_a_timeout(controlplane: ControlPlane, running: Operator) -> None:
    old = new_key(days=1)
    store_and_publish(controlplane, old)
    running.component.stop()
    try:
        done = keys(controlplane, "rotate", "--timeout=0.5s")
        assert (done.returncode, done.stdout) == (4, "")
        assert "no new key within 0.5s; the request remains pending" in done.stderr
        assert keys(controlplane, "rotate", "--no-wait").returncode == 0
        assert stored(controlplane).keys() == {old.public.id}
    finally:
        running.component.start()
        running.component.wait_ready()
    until("the request is done", lambda: len(published(controlplane)) == 3)


# --- backup and restore


def test_a_backup_is_only_readable_by_its_owner_and_never_overwrites_a_file(
    controlplane: ControlPlane, passphrase: str, tmp_path: Path
) -> None:
    store(controlplane, new_key(days=1), new_key(days=2))
    path = tmp_path / "backup"
    done = keys(controlplane, "backup", str(path), passphrase)
    assert (done.returncode, done.stdout) == (0, "")
    assert "backed up 2 keys" in done.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    again = keys(controlplane, "backup", str(path), passphrase)
    assert again.returncode == 1
    assert f"{path} already exists" in again.stderr
    assert path.read_text() == before
    to_stdout = keys(controlplane, "backup", "-", passphrase)
    assert json.loads(to_stdout.stdout)["header"]["keys"] == json.loads(before)["header"]["keys"]


def test_a_backup_needs_a_long_enough_passphrase(controlplane: ControlPlane, tmp_path: Path) -> None:
    store(controlplane, new_key(days=1))
    path = tmp_path / "backup"
    done = keys(controlplane, "backup", str(path))
    assert done.returncode == 1
    assert "pass the passphrase with --passphrase-file" in done.stderr
    weak = tmp_path / "weak"
    weak.write_text("password")
    done = keys(controlplane, "backup", str(path), f"--passphrase-file={weak}")
    assert done.returncode == 1
    assert "fewer than 12 characters" in done.stderr
    assert not path.exists()


def test_a_backup_needs_a_key(controlplane: ControlPlane, passphrase: str) -> None:
    with ControlPlane.start() as other:
        install(other)
        done = keys(other, "backup", "-", passphrase)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no sealing key in the namespace devbox-secrets. The operator creates one" in done.stderr


def test_a_passphrase_is_typed_twice_to_back_up_and_once_to_restore(controlplane: ControlPlane, tmp_path: Path) -> None:
    only = new_key(days=1)
    store(controlplane, only)
    path = tmp_path / "backup"
    where = f"--kubeconfig={controlplane.kubeconfig}"
    typed = f"{PASSPHRASE}\n".encode()
    backing = Terminal([COMMAND, "keys", "backup", str(path), where])
    backing.answer(b"Backup passphrase", typed)
    backing.answer(b"Repeat for confirmation", typed)
    assert backing.end() == (0, b"")
    assert PASSPHRASE.encode() not in backing.shown
    backing.close()
    restoring = Terminal([COMMAND, "keys", "restore", str(path), where])
    restoring.answer(b"Backup passphrase", typed)
    code, shown = restoring.end()
    restoring.close()
    assert (code, shown.decode()) == (0, f"{only.public.id} already exists, created {_second(only.created)}\n")


def test_a_restore_adds_missing_keys_and_removes_nothing(
    controlplane: ControlPlane, running: Operator, account: Account, passphrase: str, tmp_path: Path
) -> None:
    lost, kept = new_key(days=3), new_key(days=2)
    store(controlplane, lost, kept)
    path = str(tmp_path / "backup")
    assert keys(controlplane, "backup", path, passphrase).returncode == 0
    new = new_key(days=1)
    store_and_publish(controlplane, kept, new)
    name = put_sealed(account, lost, "TOKEN", b"x")
    account.is_ready(name, "UnknownKey")
    done = keys(controlplane, "restore", path, passphrase)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"{kept.public.id} already exists, created {_second(kept.created)}",
        f"{lost.public.id} restored, created {_second(lost.created)}",
    ]
    assert stored(controlplane) == {key.public.id: key for key in (lost, kept, new)}
    account.is_ready(name)
    # With the operator's field manager: a GitOps tool reverts what kubectl wrote.
    managers = get(controlplane, *SECRET, "--show-managed-fields")["metadata"]["managedFields"]
    assert [one["manager"] for one in managers if f"f:{lost.public.id}" in one["fieldsV1"].get("f:data", {})] == [
        "devbox-secrets"
    ]


def test_a_restore_replaces_a_damaged_key(controlplane: ControlPlane, passphrase: str, tmp_path: Path) -> None:
    new, old = new_key(days=1), new_key(days=2)
    store(controlplane, new, old)
    path = str(tmp_path / "backup")
    keys(controlplane, "backup", path, passphrase)
    damage(controlplane, old)
    done = keys(controlplane, "restore", path, passphrase)
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        [new.public.id, "already"],
        [old.public.id, "restored,"],
    ]
    assert stored(controlplane) == {key.public.id: key for key in (new, old)}


def test_a_backup_that_cannot_be_decrypted_changes_nothing(
    controlplane: ControlPlane, passphrase: str, tmp_path: Path
) -> None:
    store(controlplane, new_key(days=1))
    path = tmp_path / "backup"
    keys(controlplane, "backup", str(path), passphrase)
    before = get(controlplane, *SECRET)["metadata"]["resourceVersion"]
    other = tmp_path / "other"
    other.write_text("another passphrase")
    done = keys(controlplane, "restore", str(path), f"--passphrase-file={other}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "devbox-secrets: cannot decrypt the backup: the passphrase is wrong, or the file is damaged\n"
    )
    path.write_text("{}")
    done = keys(controlplane, "restore", str(path), passphrase)
    assert done.returncode == 1
    assert "isn't a backup that this version of devbox-secrets can read" in done.stderr
    assert get(controlplane, *SECRET)["metadata"]["resourceVersion"] == before


# --- prune


def test_a_key_in_use_is_not_pruned_until_its_values_are_sealed_again(
    controlplane: ControlPlane, running: Operator, account: Account
) -> None:
    new, old = new_key(days=1), new_key(days=2)
    store(controlplane, new, old)
    name = put_sealed(account, old, "TOKEN", b"before")
    account.is_ready(name)
    done = keys(controlplane, "prune", old.public.id, "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{old.public.id} is in use by 1 AccountSecret: {account.name}/{name}; reseal" in done.stderr
    assert stored(controlplane).keys() == {new.public.id, old.public.id}
    put_sealed(account, new, "TOKEN", b"after")
    done = keys(controlplane, "prune", old.public.id, "--yes")
    assert (done.returncode, done.stdout) == (0, f"{old.public.id} will be removed, created {_second(old.created)}\n")
    is_published(controlplane, [new.public.id])
    assert stored(controlplane).keys() == {new.public.id}
    account.is_ready(name)
    account.holds({"TOKEN": b"after"})


def test_pruning_without_names_removes_all_unused_keys(controlplane: ControlPlane, account: Account) -> None:
    new, needed, one, two = (new_key(days=days) for days in (1, 2, 3, 4))
    store(controlplane, new, needed, one, two)
    put_sealed(account, needed, "TOKEN", b"x")
    dry_run = keys(controlplane, "prune", "--dry-run")
    assert dry_run.returncode == 0
    assert [line.split()[0] for line in dry_run.stdout.splitlines()] == [one.public.id, two.public.id]
    assert len(stored(controlplane)) == 4
    assert keys(controlplane, "prune", "--yes").returncode == 0
    assert stored(controlplane).keys() == {new.public.id, needed.public.id}
    nothing = keys(controlplane, "prune", "--yes")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "there are no unused keys" in nothing.stderr


@pytest.mark.parametrize("answer", ["y", "n"])
def test_pruning_prompts_and_names_the_consequence(controlplane: ControlPlane, answer: str) -> None:
    new, old = new_key(days=1), new_key(days=2)
    store(controlplane, new, old)
    no_terminal = keys(controlplane, "prune")
    assert no_terminal.returncode == 1
    assert "check with --dry-run, then pass --yes" in no_terminal.stderr
    terminal = Terminal([COMMAND, "keys", "prune", f"--kubeconfig={controlplane.kubeconfig}"])
    question = b"Remove 1 key? Values in Git that are sealed with them can no longer be decrypted. [y/N]"
    terminal.answer(question, f"{answer}\n".encode())
    code, _ = terminal.end()
    terminal.close()
    assert code == (0 if answer == "y" else 1)
    assert (old.public.id in stored(controlplane)) is (answer == "n")


def test_the_newest_key_and_an_unknown_one_are_rejected_together(controlplane: ControlPlane) -> None:
    new, old = new_key(days=1), new_key(days=2)
    store(controlplane, new, old)
    done = keys(controlplane, "prune", "--yes", old.public.id, new.public.id, "0123456789abcdef")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{new.public.id} is the newest key" in done.stderr
    assert "there is no sealing key 0123456789abcdef" in done.stderr
    assert len(stored(controlplane)) == 2


# --- Several clusters


def test_a_lost_cluster_is_restored_from_its_backup_and_its_manifests(passphrase: str, tmp_path: Path) -> None:
    values = {"one": {"TOKEN": b"1", "OTHER": b"two\nlines"}, "two": {"TOKEN": b"2"}}
    outputs: list[str] = []
    backup = tmp_path / "backup"

    def run(controlplane: ControlPlane, *arguments: str) -> str:
        done = keys(controlplane, *arguments)
        assert done.returncode == 0, done.stderr
        outputs.extend((done.stdout, done.stderr))
        return done.stdout.strip()

    with ControlPlane.start() as lost:
        install(lost)
        with operator(lost, tmp_path, keys_refresh_seconds="0.1") as it:
            for name in values:
                lost.kubectl("create", "namespace", name)
            is_published(lost, until("a key exists", lambda: stored(lost)))
            manifests = [_put(lost, "one", "TOKEN", b"1")]
            run(lost, "rotate")
            manifests.append(_put(lost, "one", "OTHER", b"two\nlines"))
            run(lost, "rotate")
            manifests.append(_put(lost, "two", "TOKEN", b"2"))
            for name, held in values.items():
                Account.of(lost, name).holds(held)
            run(lost, "backup", str(backup), passphrase)
            run(lost, "list")
            before = stored(lost)
            it.component.stop()
        assert len({body["spec"]["sealed"].split(".")[1] for body in manifests}) == len(before) == 3

    with ControlPlane.start() as new:
        install(new)
        for name in values:
            new.kubectl("create", "namespace", name)
        for body in manifests:
            new.kubectl("apply", "-f", "-", input=json.dumps(body))
        run(new, "restore", str(backup), passphrase)
        with operator(new, tmp_path, keys_refresh_seconds="0.1") as it:
            for body in manifests:
                Account.of(new, body["metadata"]["namespace"]).is_ready(body["metadata"]["name"])
            for name, held in values.items():
                Account.of(new, name).holds(held)
            is_published(new, before)
            assert stored(new) == before
            run(new, "prune", "--dry-run")
            run(new, "list")
            log = it.log

    assert log.count("created the first sealing key") == 1
    texts = [log, backup.read_text(), *outputs]
    assert all(key_id in text for key_id in before for text in texts[:2])
    assert [form for key in before.values() for form in seed_forms(key) if any(form in text for text in texts)] == []


def _put(controlplane: ControlPlane, account: str, variable: str, value: bytes) -> Json:
    at = Account.of(controlplane, account)
    body = at.manifest(variable, value)
    at.is_ready(at.apply(body))
    return body


def test_one_cluster_of_a_fleet_rotates_and_the_others_restore(
    controlplane: ControlPlane, running: Operator, passphrase: str, tmp_path: Path
) -> None:
    """As in docs/operations/keys.md, every cluster can open the same manifest."""
    store(controlplane, new_key(days=1))
    with ControlPlane.start() as other:
        install(other)
        _copy_keys(controlplane, other, tmp_path / "first", passphrase)
        with operator(other, tmp_path, keys_refresh_seconds="0.1", rotate_keys="never"):
            is_published(other, stored(controlplane))
            done = keys(controlplane, "rotate")
            assert done.returncode == 0, done.stderr
            body = Account.of(controlplane, "default").manifest("TOKEN", b"everywhere")
            here, there = Account.of(controlplane, "default"), Account.of(other, "default")
            here.is_ready(here.apply(body))
            there.is_ready(there.apply(body), "UnknownKey")
            _copy_keys(controlplane, other, tmp_path / "second", passphrase)
            there.is_ready(body["metadata"]["name"])
            there.holds(here.data())
            until("both seal with the same key", lambda: newest(other) == newest(controlplane))


def _copy_keys(controlplane: ControlPlane, other: ControlPlane, file: Path, passphrase: str) -> None:
    for at, what in ((controlplane, "backup"), (other, "restore")):
        done = keys(at, what, str(file), passphrase)
        assert done.returncode == 0, done.stderr
