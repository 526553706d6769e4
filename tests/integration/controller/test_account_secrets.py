"""Ownership of account Secrets, their last good values, and finalizers, on a real API server."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

from harness.controlplane import ControlPlane
from integration.support.account import SECRET, Account
from integration.support.chart import ACCOUNT, Json, get, install, until
from integration.support.processes import Operator, command, operator

HOLD = "a.example/hold"


@pytest.fixture(scope="module")
def running(controlplane: ControlPlane) -> Iterator[Operator]:
    install(controlplane)
    with operator(controlplane, rescan_seconds="0.3") as it:
        yield it


def secret(account: Account) -> Json:
    """Return a namespace's account Secret as someone would copy it, without the fields that the API server sets."""
    body = get(account.controlplane, "secret", SECRET, "-n", account.name, "--show-managed-fields")
    kept = ("name", "labels", "managedFields")
    return {**body, "metadata": {name: body["metadata"][name] for name in kept}}


def patch(account: Account, kind: str, name: str, body: Json) -> None:
    account.controlplane.kubectl("patch", kind, name, "-n", account.name, "--type=merge", "-p", json.dumps(body))


def patch_secret(account: Account, **body: object) -> None:
    patch(account, "secret", SECRET, body)


def hold(account: Account, kind: str = "secret", name: str = SECRET) -> None:
    patch(account, kind, name, {"metadata": {"finalizers": [HOLD]}})


def release(account: Account, kind: str = "secret", name: str = SECRET) -> None:
    patch(account, kind, name, {"metadata": {"finalizers": None}})


@contextmanager
def stopped(it: Operator) -> Iterator[None]:
    """Stop the operator, and start it again afterwards."""
    it.component.stop()
    try:
        yield
    finally:
        it.component.start()
        it.component.wait_ready()


def data(value: bytes) -> Json:
    return {"TOKEN": base64.b64encode(value).decode()}


def wait_for_event(account: Account, reason: str) -> str:
    """Wait for an Event about a namespace, and return its message."""

    def ask() -> str:
        items = get(account.controlplane, "events.events.k8s.io", "-n", account.name)["items"]
        return next((each["note"] for each in items if each["reason"] == reason), "")

    return until(f"an Event {reason} in {account.name}", ask)


def copy_secret(account: Account, *, with_managed_fields: bool) -> Account:
    """Copy the account Secret into a new namespace, as kubectl or a backup tool does."""
    elsewhere, body = account.member(), secret(account)
    managed = [{**entry, "time": "2026-01-01T00:00:00Z"} for entry in body["metadata"].pop("managedFields")]
    account.controlplane.kubectl("apply", "-n", elsewhere.name, "-f", "-", input=json.dumps(body))
    if with_managed_fields:
        patch_secret(elsewhere, metadata={"managedFields": managed})
    return elsewhere


@pytest.mark.parametrize("with_managed_fields", [False, True], ids=["kubectl", "a backup tool"])
def test_a_copy_in_another_namespace_is_kept_and_reported(account: Account, with_managed_fields: bool) -> None:
    account.is_ready(account.put("TOKEN", b"x"))
    elsewhere = copy_secret(account, with_managed_fields=with_managed_fields)
    before = secret(elsewhere)
    assert f"kubectl delete secret {SECRET} -n {elsewhere.name}" in wait_for_event(elsewhere, "NotOwned")
    found = command(account.controlplane.kubeconfig, "check", "-o", "json", "--account", elsewhere.name).stdout
    (line,) = [each for each in json.loads(found) if each["check"] == "account Secrets"]
    assert line["level"] == "warning"
    assert f"in {elsewhere.name}; " in line["text"]
    elsewhere.join(account.name)
    assert elsewhere.name in account.is_ready("token", "NotOwned")["message"]
    assert secret(elsewhere) == before
    account.controlplane.kubectl("delete", "secret", SECRET, "-n", elsewhere.name)
    elsewhere.holds({"TOKEN": b"x"})
    account.is_ready("token")


def test_an_account_secret_that_someone_force_replaced_is_not_owned(account: Account, running: Operator) -> None:
    account.is_ready(account.put("TOKEN", b"x"))
    body = secret(account)
    body["data"] = data(b"theirs")
    with stopped(running):  # otherwise it recreates the Secret before kubectl does
        account.controlplane.kubectl("replace", "--force", "-n", account.name, "-f", "-", input=json.dumps(body))
    account.is_ready("token", "NotOwned")
    assert account.data() == {"TOKEN": b"theirs"}


def break_value(account: Account) -> None:
    """Apply an update that can't be opened."""
    account.apply(account.manifest("TOKEN", b"x", "token", sealed_for="another-account"))


FORGED = {"large": b"x" * 200_000, "a NUL": b"a\0b", "not UTF-8": b"\xff\xfe"}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("restart", [False, True], ids=["while it runs", "while it's down"])
def test_a_forged_value_never_replaces_the_last_good_one(
    account: Account, running: Operator, forged: bytes, restart: bool
) -> None:
    guest = account.member(**{ACCOUNT: account.name})
    account.is_ready(account.put("TOKEN", b"good"))
    break_value(account)
    account.is_ready("token", "CannotOpen")
    body = {**get(account.controlplane, "secret", SECRET, "-n", account.name), "data": data(forged)}
    with stopped(running) if restart else nullcontext():
        account.controlplane.kubectl("replace", "-f", "-", input=json.dumps(body))
    account.holds({"TOKEN": b"good"})
    assert guest.data() == {"TOKEN": b"good"}


def test_the_last_good_value_comes_from_a_member_when_the_homes_secret_is_lost(
    account: Account, running: Operator
) -> None:
    guest = account.member(**{ACCOUNT: account.name})
    account.is_ready(account.put("TOKEN", b"good"))
    guest.holds({"TOKEN": b"good"})
    kubectl = account.controlplane.kubectl
    with stopped(running):
        kubectl("delete", "secret", SECRET, "-n", account.name)
        kubectl("create", "secret", "generic", SECRET, "-n", account.name, "--from-literal=THEIRS=1")
        break_value(account)
    account.is_ready("token", "CannotOpen")
    assert guest.data() == {"TOKEN": b"good"}
    kubectl("delete", "secret", SECRET, "-n", account.name)
    account.holds({"TOKEN": b"good"})


def test_the_last_good_value_comes_from_memory_when_no_secret_has_it(account: Account) -> None:
    account.is_ready(account.put("TOKEN", b"good"))
    break_value(account)
    account.is_ready("token", "CannotOpen")
    account.controlplane.kubectl("delete", "secret", SECRET, "-n", account.name)
    account.holds({"TOKEN": b"good"})


def test_a_secret_held_by_a_finalizer_keeps_no_value(account: Account) -> None:
    account.is_ready(account.put("TOKEN", b"x"))
    hold(account)
    account.delete("token")
    account.holds({})
    until("it is being deleted", lambda: "deletionTimestamp" in get_metadata(account))
    account.is_ready(account.put("TOKEN", b"y"))
    assert account.data() == {"TOKEN": b"y"}
    release(account)
    account.holds({"TOKEN": b"y"})


def get_metadata(account: Account) -> Json:
    found: Json = get(account.controlplane, "secret", SECRET, "-n", account.name)["metadata"]
    return found


def test_an_accountsecret_held_by_a_finalizer_counts_as_deleted(account: Account) -> None:
    account.is_ready(account.put("TOKEN", b"old"))
    hold(account, "accountsecret", "token")
    account.controlplane.kubectl("delete", "accountsecret", "token", "-n", account.name, "--wait=false")
    account.holds(None)
    assert account.is_ready("token", "Deleting")["status"] == "False"
    account.is_ready(account.put("TOKEN", b"new", "successor"))
    account.holds({"TOKEN": b"new"})
    release(account, "accountsecret", "token")


def test_a_held_immutable_secret_is_reported_with_its_namespace_and_finalizer(account: Account) -> None:
    other = account.member()
    account.is_ready(account.put("TOKEN", b"mine"))
    moving = account.member(**{ACCOUNT: account.name})
    moving.holds({"TOKEN": b"mine"})
    patch_secret(moving, immutable=True, metadata={"finalizers": [HOLD]})
    moving.join(other.name)
    assert f"in the namespace {moving.name} ({HOLD})" in wait_for_event(moving, "NotWritten")
    other.put("TOKEN", b"theirs")
    assert f"in the namespace {moving.name} ({HOLD})" in other.is_ready("token", "NotWritten")["message"]
    release(moving)
    moving.holds({"TOKEN": b"theirs"})
    other.is_ready("token")
