"""Which statuses and Events are written after a plan was carried out."""

from dataclasses import replace

import pytest

from devbox_secrets.api.models import AccountSecretStatus, Reason
from devbox_secrets.controller.rules.conditions import NotReady
from devbox_secrets.controller.rules.events import Event
from devbox_secrets.controller.rules.plan import AccountPlan, AccountState, Action, Entry, ExistingSecret, Member
from devbox_secrets.controller.rules.report import Outcomes, StatusWrite, report
from devbox_secrets.controller.rules.status import next_status
from devbox_secrets.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    NotLeader,
    ServerError,
    TooLarge,
    TooManyRequests,
    Unreachable,
)
from unit.controller.rules.entries import entry, v

THEN, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"
ONE = entry("A", v("1"))
SYNCED = replace(ONE, uid="uid-synced", status=next_status(ONE, None, THEN), before=v("1"))
BROKEN = NotReady(Reason.CANNOT_OPEN, "it doesn't open")
REFUSED = Forbidden("403 quota")
DONE: Outcomes = {"home": None, "box": None}


def state(*entries: Entry, home_uid: str = "uid") -> AccountState:
    return AccountState("home", "home", home_uid=home_uid, entries=entries, members=[])


PLANNED = AccountPlan({}, {}, {"home": Action.NONE, "box": Action.NONE})


def plan(not_ready: dict[str, NotReady] | None = None, **actions: Action) -> AccountPlan:
    return AccountPlan({}, not_ready or {}, {**PLANNED.actions, **actions})


def reported(
    *entries: Entry, plan: AccountPlan = PLANNED, outcomes: Outcomes = DONE, failures: int = 0
) -> list[StatusWrite]:
    return report(state(*entries), plan, outcomes, failures, NOW)


def reasons(writes: list[StatusWrite]) -> dict[str, str]:
    return {write.uid: write.status.ready.reason for write in writes if write.status.ready}


def test_a_success_is_reported() -> None:
    assert reported(ONE) == [StatusWrite(ONE.uid, next_status(ONE, None, NOW), [])]


def test_an_unchanged_outcome_is_not_reported_again() -> None:
    assert reported(SYNCED) == []


def test_each_accountsecret_reports_its_own_outcome() -> None:
    other = entry("B", BROKEN)
    writes = reported(ONE, SYNCED, other, plan=plan({other.uid: BROKEN}))
    assert reasons(writes) == {ONE.uid: "Synced", other.uid: "CannotOpen"}


def test_a_changed_outcome_causes_an_event() -> None:
    (write,) = reported(SYNCED, plan=plan({SYNCED.uid: BROKEN}))
    assert write.events == [Event("CannotOpen", "it doesn't open")]


def test_a_finalizer_on_a_secret_that_need_not_be_recreated_has_no_effect() -> None:
    members = [Member("box", labeled=False, secret=ExistingSecret("7", finalizers=("a.example/hold",)))]
    (write,) = report(replace(state(ONE), members=members), PLANNED, DONE, 0, NOW)
    assert reasons([write]) == {ONE.uid: "Synced"}


def test_without_a_home_nothing_is_reported() -> None:
    assert report(state(ONE, home_uid=""), plan(), DONE, 0, NOW) == []


@pytest.mark.parametrize(
    ("failure", "silent"),
    [
        # A rejection is retried once, in case the namespace is being deleted.
        *((refusal, 1) for refusal in (BadRequest("400"), REFUSED, TooLarge("413"), Invalid("422"))),
        # A retry may solve these: they are retried for six seconds.
        *(
            (failure, 5)
            for failure in (
                Conflict("409"),
                NotFound("404"),
                TooManyRequests("429"),
                ServerError("500"),
                Unreachable("no"),
                NotLeader("not sent"),
            )
        ),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_failure_is_reported_after_several_in_a_row(failure: Exception, silent: int) -> None:
    outcomes = {"home": None, "box": failure}
    assert [reported(ONE, outcomes=outcomes, failures=failures) for failures in range(silent)] == [[]] * silent
    assert reasons(reported(ONE, outcomes=outcomes, failures=silent)) == {ONE.uid: "NotWritten"}


def test_an_unexpected_error_is_never_reported_because_users_cannot_fix_it() -> None:
    assert reported(ONE, outcomes={"box": ValueError("canary")}, failures=1000) == []


def test_a_failure_is_not_reported_while_another_may_resolve_itself() -> None:
    outcomes = {"home": REFUSED, "box": Conflict("409")}
    assert reported(ONE, outcomes=outcomes, failures=1) == []
    assert reasons(reported(ONE, outcomes=outcomes, failures=5)) == {ONE.uid: "NotWritten"}


def test_a_failed_write_is_reported_with_only_its_namespace_and_reason() -> None:
    (write,) = reported(ONE, outcomes={"home": None, "box": REFUSED}, failures=1)
    assert write.status.ready is not None
    assert "(box: 403 quota)" in write.status.ready.message
    assert "home" not in write.status.ready.message


def test_someone_else_s_secret_is_reported_before_a_failed_write() -> None:
    writes = reported(ONE, plan=plan(box=Action.SKIP_FOREIGN), outcomes={"home": REFUSED, "box": None}, failures=1)
    assert reasons(writes) == {ONE.uid: "NotOwned"}
    assert "in the namespace box " in str(writes[0].status.ready)


def test_an_accountsecret_s_own_reason_is_reported_before_a_namespace_s() -> None:
    other = entry("B", BROKEN)
    writes = reported(ONE, other, plan=plan({other.uid: BROKEN}, box=Action.SKIP_FOREIGN))
    assert reasons(writes) == {ONE.uid: "NotOwned", other.uid: "CannotOpen"}


def test_nothing_is_reported_for_an_empty_account() -> None:
    assert report(state(), AccountPlan({}, {}, {}), {}, 0, NOW) == []


def test_a_status_of_an_older_generation_is_written_again() -> None:
    (write,) = reported(replace(SYNCED, generation=2))
    assert write.status.observed_generation == 2
    assert write.status.changed_at == THEN
    assert write.events == []


def test_an_empty_status_does_not_count_as_reported() -> None:
    assert ONE.status == AccountSecretStatus()
    assert len(reported(ONE, plan=plan({ONE.uid: BROKEN}))) == 1


def test_a_secret_that_finalizers_hold_is_reported_with_namespace_and_finalizers() -> None:
    found = ExistingSecret("7", must_recreate=True, deleting=True, finalizers=("a.example/hold", "b.example/hold"))
    held = replace(state(ONE), members=[Member("box", labeled=True, secret=found)])
    (write,) = report(held, plan(box=Action.WAIT), DONE, 0, NOW)
    assert write.status.ready is not None
    assert write.status.ready.reason == "NotWritten"
    assert "in the namespace box (a.example/hold, b.example/hold)" in write.status.ready.message
