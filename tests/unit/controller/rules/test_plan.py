"""Which values an account's devboxes get, and the action in each namespace."""

from dataclasses import replace
from typing import Any

import pytest

from devbox_secrets.api.models import AccountSecretStatus, Reason
from devbox_secrets.api.validation import SECRET_MAX_BYTES
from devbox_secrets.controller.rules.conditions import (
    NotReady,
    being_deleted,
    name_conflict,
    reserved_name,
    too_large,
    too_many,
    wrong_namespace,
)
from devbox_secrets.controller.rules.fingerprint import Fingerprint
from devbox_secrets.controller.rules.plan import (
    AccountPlan,
    AccountState,
    Action,
    Entry,
    ExistingSecret,
    Member,
    current_values,
    plan_account,
)
from unit.controller.rules.entries import entry, v

THEN, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"
BROKEN = NotReady(Reason.CANNOT_OPEN, "it doesn't open")
UNREADABLE = NotReady(Reason.INVALID_SPEC, "it can't be read")
SYNCED_BEFORE = AccountSecretStatus(changed_at=THEN)
HALF = SECRET_MAX_BYTES // 2


def state(*entries: Entry, current: dict[str, Fingerprint] | None = None, home_account: str = "home") -> AccountState:
    home = Member("home", labeled=False, secret=ExistingSecret("7", current or {}, account="home"))
    known = [replace(entry, current=(current or {}).get(entry.variable)) for entry in entries]
    return AccountState("home", home_account, home_uid="uid", entries=known, members=[home])


def plan(*entries: Entry, current: dict[str, Fingerprint] | None = None) -> AccountPlan:
    return plan_account(state(*entries, current=current))


def reasons(result: AccountPlan) -> dict[str, str]:
    return {uid: str(not_ready.reason) for uid, not_ready in result.not_ready.items()}


def test_devboxes_get_every_value_that_opens() -> None:
    result = plan(entry("A", v("1")), entry("B", v("")), entry("C", v("two\nlines")))
    assert result.values == {"A": v("1"), "B": v(""), "C": v("two\nlines")}
    assert result.not_ready == {}


def test_the_older_of_two_accountsecrets_keeps_the_name() -> None:
    newer, older = entry("A", v("new"), day=2, uid="uid-1"), entry("A", v("old"), day=1, uid="uid-2")
    result = plan(newer, older)
    assert result.values == {"A": v("old")}
    assert result.owners == {"A": "uid-2"}
    assert result.not_ready == {"uid-1": name_conflict("A", "a-1")}


def test_an_unreadable_accountsecret_keeps_its_name_and_value() -> None:
    older, newer = entry("A", UNREADABLE, day=1, status=SYNCED_BEFORE), entry("A", v("new"), day=2)
    result = plan(older, newer, entry("B", v("1")), current={"A": v("before")})
    assert result.values == {"A": v("before"), "B": v("1")}
    assert reasons(result) == {older.uid: "InvalidSpec", newer.uid: "NameConflict"}


def test_an_accountsecret_without_a_readable_name_takes_none() -> None:
    nameless = [entry("", UNREADABLE, day=day) for day in (1, 2)]
    result = plan(*nameless, entry("A", v("1"), day=3))
    assert result.values == {"A": v("1")}
    assert reasons(result) == {each.uid: "InvalidSpec" for each in nameless}


def test_of_two_created_in_the_same_second_the_same_one_always_wins() -> None:
    one, two = entry("A", v("1"), uid="uid-1"), entry("A", v("2"), uid="uid-2")
    assert plan(one, two) == plan(two, one)
    assert plan(one, two).values == {"A": v("1")}


def test_the_older_keeps_the_name_even_if_it_does_not_open() -> None:
    older, newer = entry("A", BROKEN, day=1), entry("A", v("new"), day=2)
    result = plan(older, newer)
    assert result.values == {}
    assert reasons(result) == {older.uid: "CannotOpen", newer.uid: "NameConflict"}


def test_the_newer_takes_over_with_its_own_value_when_the_older_is_deleted() -> None:
    newer = entry("A", v("new"), day=2)
    assert plan(newer, current={"A": v("old")}).values == {"A": v("new")}


def test_a_reserved_name_is_rejected_without_affecting_others() -> None:
    bad = entry("LD_PRELOAD", v("/evil.so"))
    result = plan(bad, entry("A", v("1")))
    assert result.values == {"A": v("1")}
    assert result.not_ready == {bad.uid: reserved_name("LD_PRELOAD")}


def test_reserved_names_are_configurable() -> None:
    mine = entry("COMPANY_X", v("1"))
    result = plan_account(state(mine), ["COMPANY_*"])
    assert reasons(result) == {mine.uid: "ReservedName"}


@pytest.mark.parametrize("reason", [Reason.CANNOT_OPEN, Reason.UNKNOWN_KEY, Reason.INVALID_VALUE, Reason.TOO_LARGE])
def test_an_unavailable_value_does_not_affect_others(reason: Reason) -> None:
    bad = entry("A", NotReady(reason, "why"))
    result = plan(bad, entry("B", v("2")))
    assert result.values == {"B": v("2")}
    assert reasons(result) == {bad.uid: reason}


def test_an_update_that_does_not_open_keeps_the_synced_value() -> None:
    bad = entry("A", BROKEN, status=SYNCED_BEFORE)
    result = plan(bad, current={"A": v("before")})
    assert result.values == {"A": v("before")}
    assert THEN in result.not_ready[bad.uid].message


@pytest.mark.parametrize(("status", "current"), [(SYNCED_BEFORE, {}), (AccountSecretStatus(), {"A": v("stray")})])
def test_without_a_synced_value_none_is_reported_as_kept(
    status: AccountSecretStatus, current: dict[str, Fingerprint]
) -> None:
    bad = entry("A", BROKEN, status=status)
    assert plan(bad, current=current).not_ready == {bad.uid: BROKEN}


def test_someone_else_s_value_is_not_kept_as_a_synced_one() -> None:
    assert plan(entry("A", BROKEN), current={"A": v("stray")}).values == {}


def test_a_key_without_an_accountsecret_is_removed() -> None:
    assert plan(entry("A", v("1")), current={"A": v("1"), "GONE": v("2")}).values == {"A": v("1")}


def test_a_value_that_does_not_fit_is_rejected_and_others_stay() -> None:
    first, second, third = (
        entry("A", v(HALF), day=1), entry("B", v(HALF), day=2), entry("C", v("1"), day=3)
    )  # fmt: skip
    result = plan(first, second, third)
    assert set(result.values) == {"A", "B"}
    assert result.not_ready == {third.uid: too_large("C", SECRET_MAX_BYTES + 1)}


def test_an_older_value_that_grows_does_not_displace_a_newer_one() -> None:
    grown = entry("A", v(HALF + 2), day=1, status=SYNCED_BEFORE)
    other = entry("B", v(HALF - 1), day=2, status=SYNCED_BEFORE)
    result = plan(grown, other, current={"A": v("small"), "B": v(HALF - 1)})
    assert result.values == {"A": v("small"), "B": v(HALF - 1)}
    assert reasons(result) == {grown.uid: "TooLarge"}
    assert THEN in result.not_ready[grown.uid].message


def test_an_older_value_can_use_the_space_that_a_newer_one_frees() -> None:
    older = entry("A", v(HALF + 2), day=1, status=SYNCED_BEFORE)
    newer = entry("B", v("small"), day=2, status=SYNCED_BEFORE)
    result = plan(older, newer, current={"A": v(HALF), "B": v(HALF)})
    assert result.not_ready == {}
    assert plan(older, newer, current=dict(result.values)).values == result.values


def named(number: int, value: Fingerprint, **fields: Any) -> Entry:  # noqa: ANN401 - the entry's own
    """Return an entry with a name that takes 500 bytes of a Secret, so that 1,000 of them fit exactly."""
    return entry(f"{'X' * 237}_{number:04}", value, **{"uid": f"{number:04}", **fields})


def test_names_that_do_not_fit_into_a_secret_are_rejected_and_others_stay() -> None:
    entries = [named(number, v("1")) for number in range(1002)]
    result = plan(*entries)
    assert list(result.values) == [each.variable for each in entries[:1000]]
    assert result.not_ready == {each.uid: too_many(each.variable, 1000) for each in entries[1000:]}


def test_values_change_although_there_is_no_room_for_another_name() -> None:
    synced = [named(number, v("2"), status=SYNCED_BEFORE) for number in range(1000)]
    one_more = named(1000, v("1"))
    result = plan(*synced, one_more, current={each.variable: v("1") for each in synced})
    assert result.values == {each.variable: v("2") for each in synced}
    assert set(result.not_ready) == {one_more.uid}


def test_the_last_room_for_a_name_goes_to_the_older_accountsecret_even_if_the_newer_value_is_empty() -> None:
    older, newer = named(999, v("1"), day=2), named(1000, v(""), day=3)
    result = plan(*[named(number, v("1")) for number in range(999)], older, newer)
    assert set(result.not_ready) == {newer.uid}


def test_a_namespace_of_another_account_is_not_a_home() -> None:
    lost = entry("A", v("1"))
    result = plan_account(state(lost, home_account="team"))
    assert result.values == {}
    assert result.not_ready == {lost.uid: wrong_namespace("home", "team")}


ONE = {"A": v("1")}


OLD = {"A": v("2")}


def found(data: dict[str, Fingerprint], **fields: Any) -> ExistingSecret:  # noqa: ANN401 - the Secret's own
    return ExistingSecret("7", data, **{"account": "home", **fields})


@pytest.mark.parametrize(
    ("want", "labeled", "found", "action"),
    [
        (ONE, False, None, Action.APPLY),
        (ONE, False, found(ONE), Action.NONE),
        (ONE, False, found(OLD), Action.APPLY),
        (ONE, False, found({**ONE, "STRAY": v("x")}), Action.APPLY),
        (ONE, False, found({}), Action.APPLY),
        (ONE, False, found(ONE, labeled=False), Action.APPLY),
        (ONE, False, found(ONE, account=""), Action.APPLY),
        (ONE, False, found(ONE, account="former"), Action.APPLY),
        (ONE, False, found(ONE, must_recreate=True), Action.NONE),
        (ONE, False, found({}, must_recreate=True), Action.REPLACE),
        (ONE, False, found({}, owned=False), Action.SKIP_FOREIGN),
        (ONE, False, found(ONE, owned=False), Action.SKIP_FOREIGN),
        (ONE, False, found(OLD, deleting=True, finalizers=("f",)), Action.APPLY),
        (ONE, False, found(ONE, deleting=True, finalizers=("f",)), Action.NONE),
        (ONE, False, found(OLD, deleting=True, finalizers=("f",), must_recreate=True), Action.WAIT),
        (ONE, False, found(ONE, deleting=True, finalizers=("f",), must_recreate=True), Action.NONE),
        ({}, False, None, Action.NONE),
        ({}, False, found(ONE), Action.DELETE),
        ({}, False, found({}), Action.DELETE),
        ({}, False, found(ONE, owned=False), Action.SKIP_FOREIGN),
        ({}, False, found(ONE, finalizers=("f",)), Action.EMPTY),
        ({}, False, found({}, finalizers=("f",)), Action.DELETE),
        ({}, False, found(ONE, finalizers=("f",), must_recreate=True), Action.DELETE),
        ({}, False, found(ONE, deleting=True, finalizers=("f",)), Action.APPLY),
        ({}, False, found({}, deleting=True, finalizers=("f",)), Action.NONE),
        ({}, False, found(ONE, deleting=True, finalizers=("f",), must_recreate=True), Action.WAIT),
        ({}, True, None, Action.APPLY),
        ({}, True, found({}), Action.NONE),
        ({}, True, found(ONE), Action.APPLY),
        ({}, True, found({}, account="former"), Action.APPLY),
    ],
)
def test_the_action_depends_on_the_desired_and_the_existing_secret(
    want: dict[str, Fingerprint], labeled: bool, found: ExistingSecret | None, action: Action
) -> None:
    entries = [entry(variable, value) for variable, value in want.items()]
    members = [Member("ns", labeled, found)]
    plan = plan_account(AccountState("home", "home", home_uid="uid", entries=entries, members=members))
    assert plan.actions == {"ns": action}


def test_an_accountsecret_that_is_being_deleted_counts_as_deleted_and_frees_its_name() -> None:
    deleted, successor = entry("A", v("old"), day=1, deleting=True), entry("A", v("new"), day=2)
    result = plan(deleted, successor, current={"A": v("old")})
    assert result.values == {"A": v("new")}
    assert result.not_ready == {deleted.uid: being_deleted("a-1")}
    assert plan(deleted, current={"A": v("old")}).values == {}


TWO = {"A": v("2")}


@pytest.mark.parametrize(
    ("secrets", "values"),
    [
        pytest.param({}, {}, id="none"),
        pytest.param({"home": found(ONE, unchanged=ONE)}, ONE, id="the home's"),
        pytest.param(
            {"home": found(ONE, account="", unchanged=ONE)}, ONE, id="the home's, written by an older version"
        ),
        pytest.param(
            {"home": found(OLD, unchanged={}), "box": found(ONE, unchanged=ONE)}, ONE, id="the home's was changed"
        ),
        pytest.param(
            {"home": found(TWO, owned=False), "box": found(ONE, unchanged=ONE)}, ONE, id="the home's is someone else's"
        ),
        pytest.param(
            {"a": found(TWO, unchanged=TWO), "home": found(ONE, unchanged=ONE)}, ONE, id="the home's takes precedence"
        ),
        pytest.param({"box": found(TWO, account="", unchanged=TWO)}, {}, id="a member's, written by an older version"),
        pytest.param({"box": found(TWO, account="former", unchanged=TWO)}, {}, id="of another account"),
        pytest.param({"home": found(TWO, account="former", unchanged=TWO)}, {}, id="the home's of another account"),
    ],
)
def test_current_values_are_those_that_we_wrote_for_the_account_and_nobody_changed(
    secrets: dict[str, ExistingSecret], values: dict[str, Fingerprint]
) -> None:
    assert current_values("home", [Member(name, True, secret) for name, secret in secrets.items()]) == values


def test_no_plan_prints_a_value() -> None:
    made = entry("A", v("canary-value"))
    result = plan(made, current={"A": v("canary-value")})
    printed = repr((made, result, found({"A": v("canary-value")})))
    assert "canary-value" not in printed
    assert repr(v("canary-value").digest) not in printed


DIFFERENT = {
    "home": found({"A": v("1"), "B": v("1")}, unchanged={"A": v("1"), "B": v("1")}),
    "box": found({"A": v("2"), "B": v("0")}, unchanged={"A": v("2"), "B": v("0")}),
    "edited": found({"A": v("forged"), "B": v("1")}, unchanged={"B": v("1")}),
    "former": found({"A": v("2"), "B": v("1")}, account="elsewhere", unchanged={"A": v("2"), "B": v("1")}),
}


@pytest.mark.parametrize(
    ("remembered", "box"),
    [
        pytest.param(False, {"A": v("2"), "B": v("1")}, id="nobody knows which value is newer"),
        pytest.param(True, {"A": v("1"), "B": v("1")}, id="this process gave the home's value"),
    ],
)
def test_each_namespace_keeps_its_value_if_nobody_knows_which_is_newer(
    remembered: bool, box: dict[str, Fingerprint]
) -> None:
    kept = replace(entry("A", BROKEN, status=SYNCED_BEFORE), current=v("1"), remembered=remembered)
    members = [Member(name, True, secret) for name, secret in {**DIFFERENT, "new": None}.items()]
    result = plan_account(AccountState("home", "home", "uid", [kept, entry("B", v("1"))], members))
    assert result.values_in("home") == result.values_in("edited") == result.values_in("new") == result.values
    assert result.values_in("former") == result.values == {"A": v("1"), "B": v("1")}
    assert result.values_in("box") == box
    assert result.uncertain == (frozenset() if remembered else {"A"})
    assert result.actions == {
        "home": Action.NONE, "box": Action.APPLY, "edited": Action.APPLY, "former": Action.APPLY, "new": Action.APPLY
    }  # fmt: skip


def test_a_namespace_that_differs_only_in_the_value_it_keeps_is_not_written() -> None:
    kept = replace(entry("A", BROKEN, status=SYNCED_BEFORE), current=v("1"))
    box = Member("box", True, found(TWO, unchanged=TWO))
    result = plan_account(AccountState("home", "home", "uid", [kept], [box]))
    assert result.actions == {"box": Action.NONE}
