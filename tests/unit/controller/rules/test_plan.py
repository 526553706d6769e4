"""What an account's devboxes get, and what is done for that in each namespace: tables."""

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecretStatus, Reason
from devbox_secrets.api.validation import SECRET_MAX_BYTES
from devbox_secrets.controller.rules.conditions import NotReady
from devbox_secrets.controller.rules.plan import (
    AccountPlan,
    AccountState,
    Action,
    Entry,
    ExistingSecret,
    Member,
    plan_account,
)
from unit.controller.rules.entries import entry, v

THEN, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"
BROKEN = NotReady(Reason.CANNOT_OPEN, "it doesn't open")
UNREADABLE = NotReady(Reason.INVALID_SPEC, "it can't be read")
SYNCED_BEFORE = AccountSecretStatus(changed_at=THEN)
HALF = SECRET_MAX_BYTES // 2


def state(*entries: Entry, current: dict[str, SecretBytes] | None = None, home_account: str = "home") -> AccountState:
    home = Member("home", labeled=False, secret=ExistingSecret("7", current or {}))
    return AccountState("home", home_account, home_exists=True, entries=entries, members=[home])


def plan(*entries: Entry, current: dict[str, SecretBytes] | None = None) -> AccountPlan:
    return plan_account(state(*entries, current=current))


def reasons(result: AccountPlan) -> dict[str, str]:
    return {uid: str(not_ready.reason) for uid, not_ready in result.not_ready.items()}


def test_every_value_that_opens_is_given() -> None:
    result = plan(entry("A", v("1")), entry("B", v("")), entry("C", v("two\nlines")))
    assert result.values == {"A": v("1"), "B": v(""), "C": v("two\nlines")}
    assert result.not_ready == {}


def test_the_older_of_two_keeps_the_name() -> None:
    newer, older = entry("A", v("new"), day=2), entry("A", v("old"), day=1)
    result = plan(newer, older)
    assert result.values == {"A": v("old")}
    assert reasons(result) == {newer.uid: "NameConflict"}
    assert "a-1" in result.not_ready[newer.uid].message


def test_what_can_not_be_read_keeps_its_name_and_its_value() -> None:
    older, newer = entry("A", UNREADABLE, day=1, status=SYNCED_BEFORE), entry("A", v("new"), day=2)
    result = plan(older, newer, entry("B", v("1")), current={"A": v("before")})
    assert result.values == {"A": v("before"), "B": v("1")}
    assert reasons(result) == {older.uid: "InvalidSpec", newer.uid: "NameConflict"}


def test_what_has_no_name_that_can_be_read_takes_none() -> None:
    nameless = [entry("", UNREADABLE, day=day) for day in (1, 2)]
    result = plan(*nameless, entry("A", v("1"), day=3))
    assert result.values == {"A": v("1")}
    assert reasons(result) == {each.uid: "InvalidSpec" for each in nameless}


def test_of_two_of_the_same_second_it_is_always_the_same_one() -> None:
    one, two = entry("A", v("1"), uid="uid-1"), entry("A", v("2"), uid="uid-2")
    assert plan(one, two) == plan(two, one)
    assert plan(one, two).values == {"A": v("1")}


def test_the_older_keeps_the_name_even_when_it_does_not_open() -> None:
    older, newer = entry("A", BROKEN, day=1), entry("A", v("new"), day=2)
    result = plan(older, newer)
    assert result.values == {}
    assert reasons(result) == {older.uid: "CannotOpen", newer.uid: "NameConflict"}


def test_when_the_older_goes_the_newer_takes_over_with_its_own_value() -> None:
    newer = entry("A", v("new"), day=2)
    assert plan(newer, current={"A": v("old")}).values == {"A": v("new")}


def test_a_reserved_name_is_refused_and_its_neighbours_are_not() -> None:
    bad = entry("LD_PRELOAD", v("/evil.so"))
    result = plan(bad, entry("A", v("1")))
    assert result.values == {"A": v("1")}
    assert reasons(result) == {bad.uid: "ReservedName"}


def test_the_reserved_names_are_configuration() -> None:
    mine = entry("COMPANY_X", v("1"))
    result = plan_account(state(mine), ["COMPANY_*"])
    assert reasons(result) == {mine.uid: "ReservedName"}


@pytest.mark.parametrize("reason", [Reason.CANNOT_OPEN, Reason.UNKNOWN_KEY, Reason.INVALID_VALUE, Reason.TOO_LARGE])
def test_one_that_cannot_be_had_does_not_hold_back_the_others(reason: Reason) -> None:
    bad = entry("A", NotReady(reason, "why"))
    result = plan(bad, entry("B", v("2")))
    assert result.values == {"B": v("2")}
    assert reasons(result) == {bad.uid: reason}


def test_an_update_that_does_not_open_leaves_the_value_that_was_synced() -> None:
    bad = entry("A", BROKEN, status=SYNCED_BEFORE)
    result = plan(bad, current={"A": v("before")})
    assert result.values == {"A": v("before")}
    assert THEN in result.not_ready[bad.uid].message


def test_a_value_of_someone_else_is_not_taken_for_one_that_was_synced() -> None:
    assert plan(entry("A", BROKEN), current={"A": v("stray")}).values == {}


def test_what_no_account_secret_stands_for_goes() -> None:
    assert plan(entry("A", v("1")), current={"A": v("1"), "GONE": v("2")}).values == {"A": v("1")}


def test_what_does_not_fit_is_refused_and_what_did_fit_stays() -> None:
    first, second, third = (
        entry("A", v(HALF), day=1), entry("B", v(HALF), day=2), entry("C", v("1"), day=3)
    )  # fmt: skip
    result = plan(first, second, third)
    assert set(result.values) == {"A", "B"}
    assert reasons(result) == {third.uid: "TooLarge"}


def test_an_older_one_that_grew_does_not_push_out_a_newer_one() -> None:
    grown = entry("A", v(HALF + 2), day=1, status=SYNCED_BEFORE)
    other = entry("B", v(HALF - 1), day=2, status=SYNCED_BEFORE)
    result = plan(grown, other, current={"A": v("small"), "B": v(HALF - 1)})
    assert result.values == {"A": v("small"), "B": v(HALF - 1)}
    assert reasons(result) == {grown.uid: "TooLarge"}
    assert THEN in result.not_ready[grown.uid].message


def test_an_older_one_that_grows_has_the_room_that_a_newer_one_leaves() -> None:
    older = entry("A", v(HALF + 2), day=1, status=SYNCED_BEFORE)
    newer = entry("B", v("small"), day=2, status=SYNCED_BEFORE)
    result = plan(older, newer, current={"A": v(HALF), "B": v(HALF)})
    assert result.not_ready == {}
    assert plan(older, newer, current=dict(result.values)).values == result.values


def test_names_that_do_not_fit_into_a_secret_are_refused_and_those_that_did_stay() -> None:
    entries = [entry(f"{'X' * 240}_{number:04}", v("1"), day=1, uid=f"{number:04}") for number in range(1500)]
    result = plan(*entries)
    assert 900 < len(result.values) < 1100
    assert set(reasons(result).values()) == {"TooLarge"}
    assert "shorter names" in result.not_ready["1499"].message
    assert plan(*entries, current=dict(result.values)).values == result.values


def test_a_namespace_of_another_account_is_no_home() -> None:
    lost = entry("A", v("1"))
    result = plan_account(state(lost, home_account="team"))
    assert result.values == {}
    assert reasons(result) == {lost.uid: "WrongNamespace"}
    assert "team" in result.not_ready[lost.uid].message


ONE = {"A": v("1")}


@pytest.mark.parametrize(
    ("want", "labeled", "found", "action"),
    [
        (ONE, False, None, Action.APPLY),
        (ONE, False, ExistingSecret("7", ONE), Action.NONE),
        (ONE, False, ExistingSecret("7", {"A": v("2")}), Action.APPLY),
        (ONE, False, ExistingSecret("7", {**ONE, "STRAY": v("x")}), Action.APPLY),
        (ONE, False, ExistingSecret("7", {}), Action.APPLY),
        (ONE, False, ExistingSecret("7", ONE, labeled=False), Action.APPLY),
        (ONE, False, ExistingSecret("7", ONE, must_recreate=True), Action.NONE),
        (ONE, False, ExistingSecret("7", {}, must_recreate=True), Action.REPLACE),
        (ONE, False, ExistingSecret("7", {}, owned=False), Action.SKIP_FOREIGN),
        (ONE, False, ExistingSecret("7", ONE, owned=False), Action.SKIP_FOREIGN),
        ({}, False, None, Action.NONE),
        ({}, False, ExistingSecret("7", ONE), Action.DELETE),
        ({}, False, ExistingSecret("7", {}), Action.DELETE),
        ({}, False, ExistingSecret("7", ONE, owned=False), Action.SKIP_FOREIGN),
        ({}, True, None, Action.APPLY),
        ({}, True, ExistingSecret("7", {}), Action.NONE),
        ({}, True, ExistingSecret("7", ONE), Action.APPLY),
    ],
)
def test_a_namespace_is_brought_to_what_is_wanted(
    want: dict[str, SecretBytes], labeled: bool, found: ExistingSecret | None, action: Action
) -> None:
    entries = [entry(variable, value) for variable, value in want.items()]
    members = [Member("ns", labeled, found)]
    plan = plan_account(AccountState("home", "home", home_exists=True, entries=entries, members=members))
    assert plan.actions == {"ns": action}


def test_no_plan_prints_a_value() -> None:
    made = entry("A", v("canary-value"))
    result = plan(made, current={"A": v("canary-value")})
    assert "canary-value" not in repr((made, result, ExistingSecret("1", {"A": v("canary-value")})))
