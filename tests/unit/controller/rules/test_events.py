"""Which changes cause an Event."""

import pytest

from devbox_secrets.api.models import AccountSecretStatus, Condition
from devbox_secrets.controller.rules.conditions import held
from devbox_secrets.controller.rules.events import Event, namespace_event, secret_event, status_events
from devbox_secrets.controller.rules.plan import ExistingSecret
from unit.controller.rules.entries import v

THEN = "2026-01-01T00:00:00Z"


def ready(status: str, reason: str) -> tuple[Condition, ...]:
    return (Condition(type="Ready", status=status, reason=reason, message=reason, last_transition_time=THEN),)


def due(status: str) -> tuple[Condition, ...]:
    return (Condition(type="RotationDue", status=status, reason="x", message="change it", last_transition_time=THEN),)


SYNCED, CLASH = ready("True", "Synced"), ready("False", "NameConflict")
GOOD, BAD = Event("Synced", "Synced", "Normal"), Event("NameConflict", "NameConflict")
DUE = Event("RotationDue", "change it")


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        pytest.param((), SYNCED, [], id="first success"),
        pytest.param((), CLASH, [BAD], id="first failure"),
        pytest.param(SYNCED, SYNCED, [], id="still Ready"),
        pytest.param(CLASH, CLASH, [], id="still not Ready"),
        pytest.param(SYNCED, CLASH, [BAD], id="Ready before"),
        pytest.param(CLASH, SYNCED, [GOOD], id="Ready now"),
        pytest.param(CLASH, ready("False", "CannotOpen"), [Event("CannotOpen", "CannotOpen")], id="another reason"),
        pytest.param((), SYNCED + due("False"), [], id="not due"),
        pytest.param(SYNCED + due("False"), SYNCED + due("True"), [DUE], id="became due"),
        pytest.param(SYNCED, SYNCED + due("True"), [DUE], id="due because rotateAfter changed"),
        pytest.param(SYNCED + due("True"), SYNCED + due("True"), [], id="still due"),
        pytest.param(SYNCED + due("True"), SYNCED + due("False"), [], id="value changed"),
        pytest.param(CLASH + due("False"), SYNCED + due("True"), [GOOD, DUE], id="both"),
    ],
)
def test_a_changed_status_causes_events(
    before: tuple[Condition, ...], after: tuple[Condition, ...], events: list[Event]
) -> None:
    assert status_events(AccountSecretStatus(conditions=before), AccountSecretStatus(conditions=after)) == events


@pytest.mark.parametrize(
    ("home_account", "event"),
    [
        ("team", None),
        (
            None,
            Event(
                "HomeNotFound",
                "the label devbox-secrets.dev/account names the account team, but the namespace team doesn't exist, so"
                " devboxes here get no secrets; correct the label, or create the namespace with the account's secrets",
            ),
        ),
        (
            "other",
            Event(
                "InvalidHome",
                "the label devbox-secrets.dev/account names the account team, but the namespace team belongs to the"
                " account other, so devboxes here get no secrets; set the label of box to other instead",
            ),
        ),
    ],
)
def test_a_label_that_names_no_home_causes_an_event(home_account: str | None, event: Event | None) -> None:
    assert namespace_event("box", "team", home_account) == event


HELD = ExistingSecret("7", {"A": v("1")}, must_recreate=True, deleting=True, finalizers=("a.example/hold",))


@pytest.mark.parametrize(
    ("secret", "event"),
    [
        (ExistingSecret("7"), None),
        (
            ExistingSecret("7", owned=False),
            Event(
                "NotOwned",
                "the Secret devbox-account-secrets in the namespace box wasn't written by the operator (it is a copy,"
                " or restored from a backup) and is left unchanged; devboxes here get its values. If you don't want"
                " that, delete it: kubectl delete secret devbox-account-secrets -n box",
            ),
        ),
        (ExistingSecret("7", {"A": v("1")}, deleting=True), None),
        (ExistingSecret("7", {"A": v("1")}, must_recreate=True), None),
        (ExistingSecret("7", {}, must_recreate=True, deleting=True, finalizers=("a.example/hold",)), None),
        (HELD, Event("NotWritten", held({"box": ["a.example/hold"]}).message)),
    ],
)
def test_a_secret_causes_an_event_if_people_must_act(secret: ExistingSecret, event: Event | None) -> None:
    assert secret_event("box", secret) == event
