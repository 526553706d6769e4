"""How the operator syncs AccountSecrets, on a real API server and with only the chart's permissions."""

import base64
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from pydantic import SecretBytes

from devbox_secrets.crypto.envelope import KeyPair
from harness.controlplane import ControlPlane
from integration.support.account import SECRET, Account
from integration.support.chart import ACCOUNT, NAMESPACE, Json, deny_policy, get, until
from integration.support.processes import Operator, seal

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def test_a_value_sealed_by_the_command_line_is_opened(account: Account) -> None:
    done = seal(account.controlplane, "GITHUB_TOKEN", b"ghp_1\n", account.name)
    assert "removed the trailing newline" in done.stderr
    account.controlplane.kubectl("apply", "-f", "-", input=done.stdout)
    account.is_ready("github-token")
    assert account.data() == {"GITHUB_TOKEN": b"ghp_1"}


def test_an_applied_value_is_in_the_account_secret(account: Account) -> None:
    name = account.put("GITHUB_TOKEN", b"ghp_1")
    assert account.is_ready(name)["status"] == "True"
    assert account.data() == {"GITHUB_TOKEN": b"ghp_1"}


@pytest.mark.parametrize("value", [b"", b"two\nlines\n\n", "grüße 世界".encode(), b" spaces ", b"x" * 100_000])
def test_a_value_is_preserved_byte_for_byte(account: Account, value: bytes) -> None:
    account.is_ready(account.put("VALUE", value))
    assert account.data() == {"VALUE": value}


def test_an_update_replaces_the_value_and_records_the_time(account: Account) -> None:
    name = account.put("TOKEN", b"one")
    account.is_ready(name)
    before = get(account.controlplane, "accountsecret", name, "-n", account.name)["status"]["changedAt"]
    until("a second passed", lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) > before)
    account.put("TOKEN", b"two")
    account.holds({"TOKEN": b"two"})
    account.is_ready(name)
    status = get(account.controlplane, "accountsecret", name, "-n", account.name)["status"]
    assert status["changedAt"] > before
    assert status["observedGeneration"] == 2


def test_a_deletion_removes_the_value_and_the_last_one_the_secret(account: Account) -> None:
    one, two = account.put("ONE", b"1"), account.put("TWO", b"2")
    account.holds({"ONE": b"1", "TWO": b"2"})
    account.delete(one)
    account.holds({"TWO": b"2"})
    account.delete(two)
    account.holds(None)


def test_a_value_that_cannot_be_opened_blocks_no_other_and_says_what_to_do(account: Account) -> None:
    copied = account.apply(account.manifest("COPIED", b"x", sealed_for="another-account"))
    good = account.put("GOOD", b"1")
    account.is_ready(good)
    condition = account.is_ready(copied, "CannotOpen")
    assert condition["status"] == "False"
    assert f"seal it again: devbox-secrets seal COPIED --account {account.name}" in condition["message"]
    assert account.data() == {"GOOD": b"1"}


def test_the_condition_names_an_unknown_key(account: Account) -> None:
    strange = KeyPair.generate(LONG_AGO).public
    body = account.manifest("TOKEN", b"x")
    body["spec"]["sealed"] = strange.seal(SecretBytes(b"x"), account=account.name, name="TOKEN")
    condition = account.is_ready(account.apply(body), "UnknownKey")
    assert strange.id in condition["message"]
    assert "seal it again: devbox-secrets seal TOKEN" in condition["message"]


def test_an_update_that_cannot_be_opened_keeps_the_previous_value(account: Account) -> None:
    name = account.put("TOKEN", b"before")
    account.is_ready(name)
    account.apply(account.manifest("TOKEN", b"x", name, sealed_for="another-account"))
    assert "devboxes keep the value of" in account.is_ready(name, "CannotOpen")["message"]
    assert account.data() == {"TOKEN": b"before"}


def test_a_binary_value_that_another_program_sealed_is_rejected(account: Account) -> None:
    body = account.manifest("TOKEN", b"x")
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    raw = suite.encrypt(b"\xff\x00", account.key.hpke, b"\0".join([b"dbs1", account.name.encode(), b"TOKEN"]))
    text = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    body["spec"]["sealed"] = f"dbs1.{account.key.id}.{text}"
    assert "base64" in account.is_ready(account.apply(body), "InvalidValue")["message"]
    account.holds(None)


def test_the_older_of_two_keeps_a_name_until_it_is_deleted(account: Account) -> None:
    older = account.put("TOKEN", b"old", "older")
    account.is_ready(older)
    until("a second passed", _second_has_passed())
    newer = account.put("TOKEN", b"new", "newer")
    assert "older" in account.is_ready(newer, "NameConflict")["message"]
    assert account.data() == {"TOKEN": b"old"}
    account.delete(older)
    account.is_ready(newer)
    assert account.data() == {"TOKEN": b"new"}


def test_a_reserved_name_never_reaches_a_devbox(account: Account) -> None:
    account.is_ready(account.put("LD_PRELOAD", b"/evil.so"), "ReservedName")
    account.holds(None)


def test_a_value_that_does_not_fit_is_reported_and_the_others_are_kept(account: Account) -> None:
    names = [account.put(f"PART_{number}", b"x" * 130_000) for number in range(8)]
    for name in names:
        account.is_ready(name)
    until("a second passed", _second_has_passed())
    last = account.put("PART_8", b"x" * 130_000)
    assert "1,048,576" in account.is_ready(last, "TooLarge")["message"]
    assert sorted(account.data() or {}) == [f"PART_{number}" for number in range(8)]


def test_someone_elses_secret_is_not_changed(account: Account) -> None:
    kubectl = account.controlplane.kubectl
    kubectl("create", "secret", "generic", SECRET, "-n", account.name, "--from-literal=THEIRS=1")
    before = get(account.controlplane, "secret", SECRET, "-n", account.name)
    name = account.put("TOKEN", b"x")
    condition = account.is_ready(name, "NotOwned")
    assert account.name in condition["message"]
    assert "delete it" in condition["message"]
    assert get(account.controlplane, "secret", SECRET, "-n", account.name) == before
    kubectl("delete", "secret", SECRET, "-n", account.name)
    account.is_ready(name)
    assert account.data() == {"TOKEN": b"x"}


_POLICIES = "admissionregistration.k8s.io/v1"
UNREACHABLE_WEBHOOK: Json = {
    "apiVersion": _POLICIES,
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "no-answer"},
    "webhooks": [
        {
            "name": "no-answer.example.com",
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"], "operations": ["*"]}],
            "namespaceSelector": {"matchLabels": {"unanswered": "true"}},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
    ],
}

DRIFT: dict[str, list[Json]] = {
    "a value changed": [{"op": "replace", "path": "/data/ONE", "value": "aGFuZA=="}],
    "a key removed": [{"op": "remove", "path": "/data/TWO"}],
    "a key added": [{"op": "add", "path": "/data/STRAY", "value": "eA=="}],
    "everything removed": [{"op": "remove", "path": "/data"}],
    "our label removed": [{"op": "remove", "path": "/metadata/labels"}],
    "made immutable with a stray key": [
        {"op": "add", "path": "/data/STRAY", "value": "eA=="},
        {"op": "add", "path": "/immutable", "value": True},
    ],
}


@pytest.mark.parametrize("patch", DRIFT.values(), ids=DRIFT)
def test_drift_is_repaired_within_two_seconds(account: Account, patch: list[Json]) -> None:
    wanted = {"ONE": b"1", "TWO": b"2"}
    for variable, value in wanted.items():
        account.is_ready(account.put(variable, value))
    account.holds(wanted)
    account.controlplane.kubectl("patch", "secret", SECRET, "-n", account.name, "--type=json", "-p", json.dumps(patch))
    started = time.monotonic()
    until("the Secret is restored", lambda: account.data() == wanted and _is_labeled(account))
    assert time.monotonic() - started < 2


def test_a_deleted_secret_is_recreated_within_two_seconds(account: Account) -> None:
    account.is_ready(account.put("TOKEN", b"x"))
    account.controlplane.kubectl("delete", "secret", SECRET, "-n", account.name)
    started = time.monotonic()
    account.holds({"TOKEN": b"x"})
    assert time.monotonic() - started < 2


def test_member_namespaces_have_the_secret_and_keep_an_empty_one(account: Account) -> None:
    member = account.member(**{ACCOUNT: account.name})
    member.holds({})
    name = account.put("TOKEN", b"x")
    account.is_ready(name)
    assert member.data() == {"TOKEN": b"x"}
    account.delete(name)
    account.holds(None)
    member.holds({})


def test_a_namespace_that_moves_to_another_account_has_only_its_secrets(account: Account) -> None:
    other = account.member()
    account.is_ready(account.put("MINE", b"1"))
    other.is_ready(other.put("THEIRS", b"2"))
    moving = account.member(**{ACCOUNT: account.name})
    moving.holds({"MINE": b"1"})
    moving.join(other.name)
    moving.holds({"THEIRS": b"2"})


def test_a_namespace_that_leaves_loses_the_accounts_secrets(account: Account) -> None:
    account.is_ready(account.put("TOKEN", b"x"))
    leaving = account.member(**{ACCOUNT: account.name})
    leaving.holds({"TOKEN": b"x"})
    account.controlplane.kubectl("label", "namespace", leaving.name, f"{ACCOUNT}-")
    leaving.holds(None)


def test_deleting_a_home_removes_its_secrets_from_every_member(account: Account) -> None:
    home = account.member()
    home.is_ready(home.put("TOKEN", b"x"))
    member = account.member(**{ACCOUNT: home.name})
    member.holds({"TOKEN": b"x"})
    account.controlplane.kubectl("delete", "namespace", home.name)
    member.holds({})


def test_an_accountsecret_in_the_wrong_namespace_names_the_right_one(account: Account) -> None:
    guest = account.member()
    account.is_ready(account.put("TOKEN", b"x"))
    lost = guest.put("OTHER", b"y")  # with the label, the API server would reject it
    guest.join(account.name)
    assert f"in the namespace {account.name}" in guest.is_ready(lost, "WrongNamespace")["message"]
    guest.holds({"TOKEN": b"x"})


def test_a_member_with_someone_elses_secret_blocks_no_other(account: Account) -> None:
    guest = account.member()
    account.controlplane.kubectl("create", "secret", "generic", SECRET, "-n", guest.name)
    guest.join(account.name)
    name = account.put("TOKEN", b"x")
    assert guest.name in account.is_ready(name, "NotOwned")["message"]
    account.holds({"TOKEN": b"x"})


def test_a_member_whose_policy_rejects_the_secret_is_reported_and_blocks_no_other(account: Account) -> None:
    closed = account.member(closed="secrets")
    for body in deny_policy("", "secrets"):
        account.controlplane.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(body))
    create = ("create", "secret", "generic", "any", "-n", closed.name, "--dry-run=server")
    until("the policy is in force", lambda: account.controlplane.kubectl(*create, check=False).returncode == 1)
    closed.join(account.name)
    name = account.put("TOKEN", b"canary-refused")
    message = account.is_ready(name, "NotWritten")["message"]
    assert closed.name in message
    assert "canary-refused" not in message
    account.holds({"TOKEN": b"canary-refused"})
    account.controlplane.kubectl("label", "namespace", closed.name, "closed-")
    account.is_ready(name)
    closed.holds({"TOKEN": b"canary-refused"})


def test_a_member_that_keeps_failing_is_reported_and_blocks_no_status(account: Account) -> None:
    unreachable = account.member(**{ACCOUNT: account.name, "unanswered": "true"})
    unreachable.holds({})
    kubectl = account.controlplane.kubectl
    kubectl("apply", "--server-side", "-f", "-", input=json.dumps(UNREACHABLE_WEBHOOK))
    try:
        change = ("annotate", "secret", SECRET, "-n", unreachable.name, "a=b", "--dry-run=server")
        until("the webhook is called", lambda: kubectl(*change, check=False).returncode == 1)
        name = account.put("TOKEN", b"x")
        lost = account.apply(account.manifest("LOST", b"x", sealed_for="another-account"))
        assert unreachable.name in account.is_ready(name, "NotWritten")["message"]
        account.is_ready(lost, "CannotOpen")
        account.holds({"TOKEN": b"x"})
    finally:
        kubectl("delete", "validatingwebhookconfiguration", "no-answer")
    account.put("ANOTHER", b"y")
    account.is_ready(name)
    unreachable.holds({"TOKEN": b"x", "ANOTHER": b"y"})


def test_a_status_names_no_key_if_the_value_is_malformed(account: Account) -> None:
    name = account.put("TOKEN", b"x")
    account.is_ready(name)
    body = account.manifest("TOKEN", b"xx", name)
    # Four of the last character's six bits are beyond the last byte; now they aren't zero.
    sealed = body["spec"]["sealed"]
    body["spec"]["sealed"] = sealed[:-1] + chr(ord(sealed[-1]) + 1)
    account.apply(body)
    account.is_ready(name, "CannotOpen")
    assert "keyId" not in get(account.controlplane, "accountsecret", name, "-n", account.name)["status"]


def test_only_the_status_of_the_users_object_is_written(account: Account) -> None:
    name = account.put("TOKEN", b"x")
    account.is_ready(name)
    metadata = get(account.controlplane, "accountsecret", name, "-n", account.name)["metadata"]
    assert "annotations" not in metadata
    assert "finalizers" not in metadata


def test_everything_can_be_deleted_without_the_operator(account: Account, running: Operator) -> None:
    kubectl = account.controlplane.kubectl
    account.is_ready(account.put("TOKEN", b"x"))
    running.component.stop()
    try:
        kubectl("delete", "accountsecrets", "--all", "-n", account.name, "--timeout=10s")
        assert "deleted" in kubectl("delete", "namespace", account.name, "--timeout=30s").stdout
    finally:
        running.component.start()
        running.component.wait_ready()
    kubectl("create", "namespace", account.name)


def test_deletions_while_the_operator_is_down_take_effect_when_it_starts(account: Account, running: Operator) -> None:
    one, two = account.put("ONE", b"1"), account.put("TWO", b"2")
    account.is_ready(one)
    account.is_ready(two)
    running.component.stop()
    account.delete(one)
    running.component.start()
    account.holds({"TWO": b"2"})
    running.component.wait_ready()


def test_a_restart_on_an_unchanged_cluster_writes_nothing(account: Account, running: Operator) -> None:
    for number in range(20):
        account.put(f"V_{number}", b"x")
    account.apply(account.manifest("BAD", b"x", sealed_for="another-account"))
    account.is_ready("bad", "CannotOpen")
    account.holds({f"V_{number}": b"x" for number in range(20)})
    for number in range(20):
        account.is_ready(f"v-{number}")
    # While other tests' namespaces terminate, the operator may write to them.
    until("they are deleted", lambda: "Terminating" not in account.controlplane.kubectl("get", "namespaces").stdout)
    running.component.stop()
    before = _versions(account)
    running.component.start()
    running.component.wait_ready()
    until("it has opened them", lambda: running.metric("devbox_secrets_opens_total") >= 20)
    until("every account is reconciled", lambda: running.metric("devbox_secrets_workqueue_depth") == 0)
    assert running.metric('devbox_secrets_writes_total{resource="secret"}') == 0
    assert running.metric('devbox_secrets_writes_total{resource="status"}') == 0
    assert _versions(account) == before


def test_a_restored_key_is_used_without_a_restart(controlplane: ControlPlane, account: Account) -> None:
    old = KeyPair.generate(LONG_AGO)
    body = account.manifest("TOKEN", b"x")
    body["spec"]["sealed"] = old.public.seal(SecretBytes(b"restored"), account=account.name, name="TOKEN")
    name = account.apply(body)
    account.is_ready(name, "UnknownKey")
    text = base64.b64encode(old.dump()).decode()
    patch = json.dumps({"data": {old.public.id: text}})
    controlplane.kubectl("patch", "secret", "devbox-secrets-keys", "-n", NAMESPACE, "--type=merge", "-p", patch)
    account.is_ready(name)
    assert account.data() == {"TOKEN": b"restored"}
    published = get(controlplane, "configmap", "devbox-secrets-public-keys", "-n", NAMESPACE)["data"]
    assert published[old.public.id] == str(old.public)


def test_a_key_is_used_even_if_it_could_not_be_published_at_first(
    controlplane: ControlPlane, account: Account, running: Operator
) -> None:
    old = KeyPair.generate(LONG_AGO)
    body = account.manifest("TOKEN", b"x")
    body["spec"]["sealed"] = old.public.seal(SecretBytes(b"restored"), account=account.name, name="TOKEN")
    name = account.apply(body)
    account.is_ready(name, "UnknownKey")
    public = get(controlplane, "configmap", "devbox-secrets-public-keys", "-n", NAMESPACE)
    controlplane.kubectl("delete", "configmap", "devbox-secrets-public-keys", "-n", NAMESPACE)
    patch = json.dumps({"data": {old.public.id: base64.b64encode(old.dump()).decode()}})
    controlplane.kubectl("patch", "secret", "devbox-secrets-keys", "-n", NAMESPACE, "--type=merge", "-p", patch)
    until("the key is read", lambda: re.search(f"sealing keys: .*{old.public.id}", running.log))
    metadata = {"name": public["metadata"]["name"], "namespace": NAMESPACE}
    controlplane.kubectl("create", "-f", "-", input=json.dumps({**public, "metadata": metadata}))
    account.is_ready(name)


def test_a_damaged_key_is_reported_once_and_affects_no_other(
    controlplane: ControlPlane, account: Account, running: Operator
) -> None:
    patch = json.dumps({"data": {"0123456789abcdef": base64.b64encode(b"canary-damaged-key").decode()}})
    controlplane.kubectl("patch", "secret", "devbox-secrets-keys", "-n", NAMESPACE, "--type=merge", "-p", patch)
    until("it's logged", lambda: "cannot read the sealing key 0123456789abcdef" in running.log)
    account.is_ready(account.put("TOKEN", b"x"))
    assert running.log.count("cannot read the sealing key 0123456789abcdef") == 1
    assert "canary-damaged-key" not in running.log
    patch = json.dumps({"data": {"0123456789abcdef": None}})
    controlplane.kubectl("patch", "secret", "devbox-secrets-keys", "-n", NAMESPACE, "--type=merge", "-p", patch)


def test_it_exits_promptly_and_successfully_when_stopped(running: Operator) -> None:
    try:
        assert running.component.stop(timeout=10) == 0
    finally:
        running.component.start()
        running.component.wait_ready()


def test_it_continues_after_a_restart_of_the_api_server(controlplane: ControlPlane, account: Account) -> None:
    account.is_ready(account.put("BEFORE", b"1"))
    controlplane.apiserver.restart()
    account.is_ready(account.put("AFTER", b"2"))
    assert account.data() == {"BEFORE": b"1", "AFTER": b"2"}


def _second_has_passed() -> Callable[[], bool]:
    """Return a function that returns whether the current second has passed: creation times have no fractions."""
    then = int(time.time())
    return lambda: int(time.time()) > then


def _is_labeled(account: Account) -> bool:
    labels = get(account.controlplane, "secret", SECRET, "-n", account.name)["metadata"].get("labels", {})
    return bool(labels == {"app.kubernetes.io/managed-by": "devbox-secrets", ACCOUNT: account.name})


def _versions(account: Account) -> dict[str, str]:
    """Return the resourceVersions of all objects that the operator could have written."""
    found = get(account.controlplane, "accountsecrets", "-n", account.name)["items"]
    found.append(get(account.controlplane, "secret", SECRET, "-n", account.name))
    found.append(get(account.controlplane, "secret", "devbox-secrets-keys", "-n", NAMESPACE))
    found.append(get(account.controlplane, "configmap", "devbox-secrets-public-keys", "-n", NAMESPACE))
    metadata = [one["metadata"] for one in found]
    return {one["name"]: one["resourceVersion"] for one in metadata}
