"""The statuses of AccountSecrets."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from devbox_secrets.api.models import AccountSecretStatus, Condition, Reason
from devbox_secrets.controller.rules.conditions import NotReady, not_owned
from devbox_secrets.controller.rules.fingerprint import Fingerprint
from devbox_secrets.controller.rules.status import falls_due, next_status, timestamp
from unit.controller.rules.entries import entry, v

THEN, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"
BROKEN = NotReady(Reason.CANNOT_OPEN, "it doesn't open")


def test_the_first_sync_sets_all_fields() -> None:
    status = next_status(entry("A", v("1")), None, NOW)
    (ready,) = status.conditions
    assert (ready.type, ready.status, ready.reason) == ("Ready", "True", "Synced")
    assert ready.last_transition_time == status.changed_at == NOW
    assert status.observed_generation == ready.observed_generation == 1
    assert status.key_id == "0123456789abcdef"


def test_an_unchanged_status_is_not_built_again() -> None:
    made = entry("A", v("1"))
    status = next_status(made, None, THEN)
    assert next_status(replace(made, status=status, before=v("1")), None, NOW) is status


@pytest.mark.parametrize(
    ("reported", "generation", "before", "opened", "changed"),
    [
        pytest.param(None, 2, v("1"), v("2"), NOW, id="a new value"),
        pytest.param(None, 2, v("1"), v("1"), THEN, id="the same value, re-sealed"),
        pytest.param(None, 1, v("hand"), v("1"), THEN, id="a manual change, reverted"),
        pytest.param(None, 1, None, v("1"), THEN, id="a manually deleted Secret, recreated"),
        pytest.param(None, 2, v("1"), BROKEN, THEN, id="an update that doesn't open"),
        pytest.param(BROKEN, 1, v("1"), v("2"), NOW, id="an update that opens after all"),
        pytest.param(BROKEN, 1, v("1"), v("1"), THEN, id="a value that opens again"),
        pytest.param(not_owned(["box"]), 1, v("1"), v("1"), NOW, id="a namespace that can be written after all"),
    ],
)
def test_changed_at_is_when_devboxes_could_first_get_the_value(
    reported: NotReady | None,
    generation: int,
    before: Fingerprint | None,
    opened: Fingerprint | NotReady,
    changed: str,
) -> None:
    made = entry("A", v("1"), status=next_status(entry("A", v("1")), None, THEN))
    status = next_status(replace(made, before=v("1")), reported, THEN)
    not_ready = opened if isinstance(opened, NotReady) else None
    made = entry("A", opened, generation=generation, status=status, before=before)
    assert next_status(made, not_ready, NOW).changed_at == changed


def test_only_a_changed_status_changes_the_transition_time() -> None:
    made = entry("A", v("1"))
    ready = next_status(made, None, THEN)
    broken = next_status(replace(made, status=ready), BROKEN, NOW)
    assert [(one.status, one.last_transition_time) for one in broken.conditions] == [("False", NOW)]
    other = NotReady(Reason.UNKNOWN_KEY, "why")
    still = next_status(replace(made, status=broken), other, "2026-03-03T00:00:00Z")
    assert still.conditions[0].reason == "UnknownKey"
    assert still.conditions[0].last_transition_time == NOW


def ready(status: str, reason: str) -> tuple[Condition, ...]:
    return (Condition(type="Ready", status=status, reason=reason, message=reason, last_transition_time=THEN),)


@pytest.mark.parametrize(
    ("changed_at", "rotate_after", "status", "words"),
    [
        (THEN, None, None, ""),
        (None, "1m", None, ""),
        (THEN, "90d", "False", "the value is due for rotation at 2026-04-01T00:00:00Z"),
        (THEN, "32d", "True", f"last changed at {THEN} and was due for rotation at {NOW} (rotateAfter: 32d); get"),
        (THEN, "31d", "True", "get a new value from its issuer and seal it: devbox-secrets seal A"),
        (THEN, "769h", "False", "the value is due for rotation at 2026-02-02T01:00:00Z"),
        (THEN, "768h", "True", ""),
        (THEN, "46080m", "True", ""),
        ("9999-12-31T00:00:00Z", "90d", None, ""),
        (THEN, "soon", None, ""),
        ("0001-01-01T00:00:00Z", "1d", "True", "at 0001-01-02T00:00:00Z"),
        (THEN, "99999d", "False", "the value is due for rotation at 2299-10-16T00:00:00Z"),
    ],
)  # fmt: skip
def test_a_value_is_due_when_it_is_older_than_rotate_after(
    changed_at: str | None, rotate_after: str | None, status: str | None, words: str
) -> None:
    before = AccountSecretStatus(changed_at=changed_at, conditions=ready("True", "Synced"), observed_generation=1)
    not_ready = None if changed_at else BROKEN
    due = next_status(entry("A", v("1"), rotate_after=rotate_after, status=before), not_ready, NOW).rotation_due
    assert (due.status if due else None) == status
    assert words in (due.message if due else "")
    assert falls_due(before, rotate_after, NOW) is (status == "True")


@pytest.mark.parametrize(
    ("rotate_after", "due"),
    [
        (
            "32d",
            Condition(
                type="RotationDue",
                status="True",
                reason="Overdue",
                message="the value was last changed at 2026-01-01T00:00:00Z and was due for rotation at"
                " 2026-02-02T00:00:00Z (rotateAfter: 32d); get a new value from its issuer and seal it: devbox-secrets"
                " seal A",
                last_transition_time=NOW,
                observed_generation=1,
            ),
        ),
        (
            "33d",
            Condition(
                type="RotationDue",
                status="False",
                reason="NotDue",
                message="the value is due for rotation at 2026-02-03T00:00:00Z",
                last_transition_time=NOW,
                observed_generation=1,
            ),
        ),
    ],
)
def test_the_condition_says_when_the_value_is_due_for_rotation(rotate_after: str, due: Condition) -> None:
    before = AccountSecretStatus(changed_at=THEN, conditions=ready("True", "Synced"), observed_generation=1)
    made = entry("A", v("1"), rotate_after=rotate_after, status=before, before=v("1"))
    synced = Condition(
        type="Ready",
        status="True",
        reason="Synced",
        message="new devboxes of the account get the variable",
        last_transition_time=THEN,
        observed_generation=1,
    )
    assert next_status(made, None, NOW).conditions == (synced, due)


@pytest.mark.usefixtures("_in_tokyo")
def test_a_time_is_written_in_utc_in_any_local_time_zone() -> None:
    assert timestamp(datetime(26, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=1)))) == "0026-01-02T02:04:05Z"


def test_a_new_value_is_no_longer_due() -> None:
    old = next_status(entry("A", v("1"), rotate_after="1d"), None, THEN)
    due = next_status(entry("A", v("1"), rotate_after="1d", status=old, before=v("1")), None, NOW)
    new = next_status(entry("A", v("2"), rotate_after="1d", status=due, generation=2, before=v("1")), None, NOW)
    reported = [status.rotation_due for status in (old, due, new)]
    assert [(one.status, one.reason) for one in reported if one] == [
        ("False", "NotDue"), ("True", "Overdue"), ("False", "NotDue")
    ]  # fmt: skip


def test_a_value_that_stays_due_has_been_due_since_the_same_time() -> None:
    old = next_status(entry("A", v("1"), rotate_after="1d"), None, THEN)
    due = next_status(entry("A", v("1"), rotate_after="1d", status=old, before=v("1")), None, NOW)
    made = entry("A", v("1"), rotate_after="1d", status=due, generation=2, before=v("1"))
    still = next_status(made, None, "2026-03-03T00:00:00Z").rotation_due
    assert still is not None
    assert (still.status, still.observed_generation, still.last_transition_time) == ("True", 2, NOW)


def test_a_value_reported_as_due_does_not_become_due_again() -> None:
    old = AccountSecretStatus(changed_at=THEN)
    reported = next_status(entry("A", v("1"), rotate_after="1d", status=old), BROKEN, NOW)
    assert falls_due(old, "1d", NOW)
    assert not falls_due(reported, "1d", NOW)
