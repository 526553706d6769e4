"""Computes an AccountSecret's next status: the conditions Ready and RotationDue, and their times."""

from datetime import UTC, datetime

from devbox_secrets.api.models import AccountSecretStatus, Condition, Reason
from devbox_secrets.api.validation import parse_duration
from devbox_secrets.controller.rules.conditions import NotReady
from devbox_secrets.controller.rules.plan import Entry
from devbox_secrets.errors import InvalidDuration

_SYNCED = "new devboxes of the account get the variable"


def next_status(entry: Entry, not_ready: NotReady | None, now: str) -> AccountSecretStatus:
    """Return an AccountSecret's status after its plan was carried out.

    `now` is RFC 3339, UTC. The status equals the current one if there is nothing to report.
    """
    if not_ready is None and _is_current(entry):
        return entry.status
    changed_at = _changed_at(entry, not_ready, now)
    ready = Condition(
        type="Ready",
        status="False" if not_ready else "True",
        reason=not_ready.reason if not_ready else Reason.SYNCED,
        message=not_ready.message if not_ready else _SYNCED,
        last_transition_time=now,
        observed_generation=entry.generation,
    )
    conditions = [_dated(ready, entry.status.ready)]
    if due := _rotation_due(entry, changed_at, now):
        conditions.append(_dated(due, entry.status.rotation_due))
    return entry.status.model_copy(
        update={
            "observed_generation": entry.generation,
            "key_id": entry.key_id,
            "changed_at": changed_at,
            "conditions": tuple(conditions),
        }
    )


def _is_current(entry: Entry) -> bool:
    """Return whether the status already reports success, as most do when another value of the account changes."""
    status, ready = entry.status, entry.status.ready
    return (
        ready is not None
        and len(status.conditions) == 1
        and entry.is_reported
        and entry.rotate_after is None
        and status.changed_at is not None
        and status.key_id == entry.key_id
        and (ready.reason, ready.message, ready.observed_generation) == (Reason.SYNCED, _SYNCED, entry.generation)
    )


def timestamp(moment: datetime) -> str:
    """Format a time as Kubernetes does: RFC 3339, UTC, in seconds, which sorts as text."""
    # Not strftime, which omits the leading zeros of years before 1000.
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def falls_due(status: AccountSecretStatus, rotate_after: str | None, now: str) -> bool:
    """Return whether a value is older than `rotate_after` at `now` and its status doesn't say so yet."""
    due = _due_at(status.changed_at, rotate_after)
    return due is not None and due <= now and not status.overdue


def _rotation_due(entry: Entry, changed_at: str | None, now: str) -> Condition | None:
    due = _due_at(changed_at, entry.rotate_after)
    if due is None:
        return None
    over = due <= now
    return Condition(
        type="RotationDue",
        status="True" if over else "False",
        reason="Overdue" if over else "NotDue",
        message=f"the value was last changed at {changed_at} and was due for rotation at {due} (rotateAfter:"
        f" {entry.rotate_after}); get a new value from its issuer and seal it: devbox-secrets seal {entry.variable}"
        if over
        else f"the value is due for rotation at {due}",
        last_transition_time=now,
        observed_generation=entry.generation,
    )


def _due_at(changed_at: str | None, rotate_after: str | None) -> str | None:
    """Return when a value is due for rotation: RFC 3339, UTC, which sorts as text."""
    if changed_at is None or rotate_after is None:
        return None
    try:
        return timestamp(datetime.fromisoformat(changed_at) + parse_duration(rotate_after))
    except (ValueError, OverflowError, InvalidDuration):  # not written by us, or later than the year 9999
        return None


def _dated(condition: Condition, old: Condition | None) -> Condition:
    """Keep the time of the last transition if the status is the same."""
    if old is None or old.status != condition.status:
        return condition
    return condition.model_copy(update={"last_transition_time": old.last_transition_time})


def _changed_at(entry: Entry, not_ready: NotReady | None, now: str) -> str | None:
    """Return when the value last changed, ignoring reverted manual changes and resealing.

    Neither of them changes the AccountSecret's value. A change is a value that wasn't reported yet and differs
    from the one before. It also counts as a change if devboxes have had another value since, or if a namespace
    couldn't be reached.
    """
    synced = entry.status.changed_at
    if not_ready is not None or (synced is not None and entry.is_reported):
        return synced
    ready = entry.status.ready
    unreached = ready is not None and ready.reason in {Reason.NOT_OWNED, Reason.NOT_WRITTEN}
    return now if synced is None or unreached or entry.changed or entry.before != entry.opened else synced
