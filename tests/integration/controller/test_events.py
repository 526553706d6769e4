"""Events, the condition RotationDue, and the related metrics."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from harness.controlplane import ControlPlane
from integration.support.account import SECRET, Account
from integration.support.chart import ACCOUNT, Json, deny_policy, get, install, until
from integration.support.processes import Operator, operator
from integration.support.sealing_keys import ensure_key

FAR = "2001-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def running(controlplane: ControlPlane) -> Iterator[Operator]:
    install(controlplane)
    ensure_key(controlplane)
    with operator(controlplane, rescan_seconds="0.3") as it:
        yield it


def events(account: Account, name: str) -> list[tuple[str, str]]:
    """Return the types and reasons of the Events about an object, in order of time."""
    items = get(account.controlplane, "events.events.k8s.io", "-n", account.name)["items"]
    about = [item for item in items if item["regarding"]["name"] == name]
    return [(item["type"], item["reason"]) for item in sorted(about, key=lambda item: item["eventTime"])]


def wait_for_events(account: Account, name: str, *expected: tuple[str, str]) -> None:
    until(f"Events about {name}: {expected}", lambda: events(account, name) == list(expected))


def condition(account: Account, name: str) -> Json:
    status = get(account.controlplane, "accountsecret", name, "-n", account.name).get("status", {})
    found = [one for one in status.get("conditions", []) if one["type"] == "RotationDue"]
    return dict(found[0]) if found else {}


def test_a_failure_and_its_recovery_are_each_reported_once(account: Account) -> None:
    name = account.apply(account.manifest("TOKEN", b"x", sealed_for="another-account"))
    account.is_ready(name, "CannotOpen")
    wait_for_events(account, name, ("Warning", "CannotOpen"))
    account.apply(account.manifest("TOKEN", b"x"))
    account.is_ready(name)
    wait_for_events(account, name, ("Warning", "CannotOpen"), ("Normal", "Synced"))
    account.put("TOKEN", b"y")
    account.holds({"TOKEN": b"y"})
    account.is_ready(name)
    wait_for_events(account, name, ("Warning", "CannotOpen"), ("Normal", "Synced"))


def test_describe_shows_the_events_message(account: Account) -> None:
    name = account.put("LD_PRELOAD", b"x")
    account.is_ready(name, "ReservedName")
    wait_for_events(account, name, ("Warning", "ReservedName"))
    shown = account.controlplane.kubectl("describe", "accountsecret", name, "-n", account.name).stdout
    assert "LD_PRELOAD is reserved" in shown.partition("Events:")[2]


def test_a_first_success_creates_no_event(account: Account) -> None:
    good, bad = account.put("TOKEN", b"x"), account.put("LD_PRELOAD", b"x")
    account.is_ready(good)
    wait_for_events(account, bad, ("Warning", "ReservedName"))
    assert events(account, good) == []


def test_a_rejected_event_blocks_nothing(account: Account, running: Operator) -> None:
    kubectl = account.controlplane.kubectl
    for body in deny_policy("events.k8s.io", "events"):
        kubectl("apply", "--server-side", "-f", "-", input=json.dumps(body))
    kubectl("label", "namespace", account.name, "closed=events")
    event = json.dumps(
        {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": "any"},
            "type": "Normal",
            "action": "Any",
            "reason": "Any",
            "eventTime": FAR.replace("Z", ".000000Z"),
            "regarding": {"namespace": account.name},
            "reportingController": "a/b",
            "reportingInstance": "c",
        }
    )
    create = ("create", "--dry-run=server", "-n", account.name, "-f", "-")
    until("Events are rejected", lambda: "no events here" in kubectl(*create, input=event, check=False).stderr)
    bad, good = account.put("LD_PRELOAD", b"x"), account.put("TOKEN", b"x")
    account.is_ready(bad, "ReservedName")
    account.is_ready(good)
    until("the rejection is logged", lambda: f"namespaces/{account.name}/events: " in running.log)
    assert events(account, bad) == []


def test_a_value_that_becomes_too_old_is_reported_without_any_change(account: Account, running: Operator) -> None:
    body = account.manifest("TOKEN", b"x")
    body["spec"]["rotateAfter"] = "1m"
    name = account.apply(body)
    until("rotation isn't due", lambda: condition(account, name).get("reason") == "NotDue")
    assert running.metric("devbox_secrets_rotation_due") == 0
    # As if the value had changed long ago, so that the test needn't wait a minute.
    status = json.dumps({"status": {"changedAt": FAR}})
    patch = ("patch", "accountsecret", name, "-n", account.name, "--subresource=status", "--type=merge", "-p", status)
    account.controlplane.kubectl(*patch)
    due = until("rotation is due", lambda: found if (found := condition(account, name)).get("status") == "True" else {})
    assert due["reason"] == "Overdue"
    assert f"the value was last changed at {FAR}" in due["message"]
    wait_for_events(account, name, ("Warning", "RotationDue"))
    assert running.metric("devbox_secrets_rotation_due") == 1
    assert account.data() == {"TOKEN": b"x"}
    wide = account.controlplane.kubectl("get", "accountsecrets", "-n", account.name, "-o", "wide").stdout
    assert "ROTATION DUE" in wide
    body = account.manifest("TOKEN", b"new")
    body["spec"]["rotateAfter"] = "1m"
    account.apply(body)
    until("rotation is no longer due", lambda: condition(account, name).get("reason") == "NotDue")
    assert running.metric("devbox_secrets_rotation_due") == 0


def test_without_rotate_after_there_is_no_rotation_condition(account: Account) -> None:
    body = account.manifest("TOKEN", b"x")
    body["spec"]["rotateAfter"] = "90d"
    name = account.apply(body)
    until("the condition exists", lambda: condition(account, name))
    account.apply(account.manifest("TOKEN", b"x"))
    until("the condition is removed", lambda: not condition(account, name))


def test_a_namespace_without_a_home_is_reported_until_the_home_exists(account: Account, running: Operator) -> None:
    home = f"test-{uuid4().hex[:8]}"
    before = running.metric("devbox_secrets_namespaces_without_home")
    lost = account.member(**{ACCOUNT: home})
    wait_for_events(lost, lost.name, ("Warning", "HomeNotFound"))
    shown = account.controlplane.kubectl("get", "events", "-n", lost.name).stdout
    assert f"the namespace {home} doesn't exist" in shown
    assert running.metric("devbox_secrets_namespaces_without_home") == before + 1
    account.controlplane.kubectl("create", "namespace", home)
    until("no other namespace has no home", lambda: running.metric("devbox_secrets_namespaces_without_home") == before)
    found = Account.of(account.controlplane, home)
    found.is_ready(found.put("TOKEN", b"x"))
    lost.holds({"TOKEN": b"x"})


def test_a_namespace_whose_home_belongs_to_another_account_is_reported(account: Account) -> None:
    between = account.member(**{ACCOUNT: account.name})
    lost = account.member(**{ACCOUNT: between.name})
    account.is_ready(account.put("TOKEN", b"x"))
    wait_for_events(lost, lost.name, ("Warning", "InvalidHome"))
    between.holds({"TOKEN": b"x"})
    lost.holds({})
    lost.join(account.name)
    lost.holds({"TOKEN": b"x"})


def test_a_new_leader_repeats_no_events(account: Account, running: Operator) -> None:
    name = account.put("LD_PRELOAD", b"x")
    lost, later = account.member(), account.member()
    lost.join("nowhere")
    wait_for_events(account, name, ("Warning", "ReservedName"))
    wait_for_events(lost, lost.name, ("Warning", "HomeNotFound"))
    running.component.restart()
    until("it is the leader", lambda: running.metric("devbox_secrets_leader") == 1)
    later.join("nowhere")
    wait_for_events(later, later.name, ("Warning", "HomeNotFound"))
    wait_for_events(account, name, ("Warning", "ReservedName"))
    wait_for_events(lost, lost.name, ("Warning", "HomeNotFound"))


def test_drift_is_counted_but_our_own_changes_are_not(account: Account, running: Operator) -> None:
    drift = "devbox_secrets_drift_repairs_total"
    before = running.metric(drift)
    account.is_ready(account.put("TOKEN", b"1"))
    account.put("TOKEN", b"2")
    account.holds({"TOKEN": b"2"})
    until("the queue is empty", lambda: running.metric("devbox_secrets_workqueue_depth") == 0)
    assert running.metric(drift) == before
    stray = json.dumps({"data": {"STRAY": "eA=="}})
    account.controlplane.kubectl("patch", "secret", SECRET, "-n", account.name, "--type=merge", "-p", stray)
    until("the change is counted", lambda: running.metric(drift) == before + 1)
    account.controlplane.kubectl("delete", "secret", SECRET, "-n", account.name)
    until("the deletion is counted", lambda: running.metric(drift) == before + 2)
    account.holds({"TOKEN": b"2"})


def test_the_time_until_the_secret_is_written_is_measured(account: Account, running: Operator) -> None:
    before = running.metric("devbox_secrets_sync_duration_seconds_count")
    account.is_ready(account.put("TOKEN", b"1"))
    assert running.metric("devbox_secrets_sync_duration_seconds_count") > before
    assert 0 < running.metric("devbox_secrets_sync_duration_seconds_sum") < 60


def test_the_newest_keys_age_is_measured(running: Operator) -> None:
    assert 0 < running.metric("devbox_secrets_newest_sealing_key_timestamp_seconds") < datetime.now(UTC).timestamp()
