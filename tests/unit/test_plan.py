"""The rules, as tables."""

import pytest
from pydantic import SecretBytes

from devbox_secrets.api import ACCOUNT_LABEL, SECRET_MAX_BYTES, AccountSecretStatus, Reason
from devbox_secrets.plan import (
    RESERVED_NAMES,
    AccountPlan,
    Entry,
    Found,
    Member,
    Step,
    account_of,
    is_reserved,
    plan_account,
    step,
)
from devbox_secrets.refusals import Refusal, not_owned, not_written
from unit.entries import entry, v

THEN, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"
BROKEN = Refusal(Reason.CANNOT_OPEN, "it doesn't open")
SYNCED_BEFORE = AccountSecretStatus(changed_at=THEN)
HALF = SECRET_MAX_BYTES // 2


def plan(*entries: Entry, present: dict[str, SecretBytes] | None = None) -> AccountPlan:
    return plan_account(entries, present or {}, home_account="home")


def reasons(result: AccountPlan) -> dict[str, str]:
    return {uid: str(refusal.reason) for uid, refusal in result.refusals.items()}


@pytest.mark.parametrize(
    ("namespace", "labels", "account"),
    [
        ("box", {}, "box"),
        ("box", {"other": "x"}, "box"),
        ("box", {ACCOUNT_LABEL: "team"}, "team"),
        ("team", {ACCOUNT_LABEL: "team"}, "team"),
        ("box", {ACCOUNT_LABEL: ""}, "box"),
    ],
)
def test_a_namespace_belongs_to_the_account_of_its_label_or_to_itself(
    namespace: str, labels: dict[str, str], account: str
) -> None:
    assert account_of(namespace, labels) == account


@pytest.mark.parametrize(
    ("variable", "reserved"),
    [
        ("PATH", True), ("HOME", True), ("LD_PRELOAD", True), ("LD_", True), ("BASH_ENV", True),
        ("KUBERNETES_SERVICE_HOST", True), ("PYTHONPATH", True), ("NODE_OPTIONS", True),
        ("GIT_CONFIG_COUNT", True), ("PATHS", False), ("path", False), ("MY_LD_PRELOAD", False),
        ("GITHUB_TOKEN", False), ("DATABASE_URL", False), ("SSL_KEY", False),
    ],
)  # fmt: skip
def test_a_reserved_name_is_one_that_could_run_code(variable: str, reserved: bool) -> None:
    assert is_reserved(variable, RESERVED_NAMES) is reserved


def test_every_value_that_opens_is_given() -> None:
    result = plan(entry("A", v("1")), entry("B", v("")), entry("C", v("two\nlines")))
    assert result == AccountPlan({"A": v("1"), "B": v(""), "C": v("two\nlines")}, {})


def test_the_older_of_two_keeps_the_name() -> None:
    newer, older = entry("A", v("new"), day=2), entry("A", v("old"), day=1)
    result = plan(newer, older)
    assert result.values == {"A": v("old")}
    assert reasons(result) == {newer.uid: "NameConflict"}
    assert "a-1" in result.refusals[newer.uid].message


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
    assert plan(newer, present={"A": v("old")}).values == {"A": v("new")}


def test_a_reserved_name_is_refused_and_its_neighbours_are_not() -> None:
    bad = entry("LD_PRELOAD", v("/evil.so"))
    result = plan(bad, entry("A", v("1")))
    assert result.values == {"A": v("1")}
    assert reasons(result) == {bad.uid: "ReservedName"}


def test_the_reserved_names_are_configuration() -> None:
    mine = entry("COMPANY_X", v("1"))
    result = plan_account([mine], {}, home_account="home", reserved=["COMPANY_*"])
    assert reasons(result) == {mine.uid: "ReservedName"}


@pytest.mark.parametrize("reason", [Reason.CANNOT_OPEN, Reason.UNKNOWN_KEY, Reason.INVALID_VALUE, Reason.TOO_LARGE])
def test_one_that_cannot_be_had_does_not_hold_back_the_others(reason: Reason) -> None:
    bad = entry("A", Refusal(reason, "why"))
    result = plan(bad, entry("B", v("2")))
    assert result.values == {"B": v("2")}
    assert reasons(result) == {bad.uid: reason}


def test_an_update_that_does_not_open_leaves_the_value_that_was_synced() -> None:
    bad = entry("A", BROKEN, status=SYNCED_BEFORE)
    result = plan(bad, present={"A": v("before")})
    assert result.values == {"A": v("before")}
    assert THEN in result.refusals[bad.uid].message


def test_a_value_of_someone_else_is_not_taken_for_one_that_was_synced() -> None:
    assert plan(entry("A", BROKEN), present={"A": v("stray")}).values == {}


def test_what_no_account_secret_stands_for_goes() -> None:
    assert plan(entry("A", v("1")), present={"A": v("1"), "GONE": v("2")}).values == {"A": v("1")}


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
    result = plan(grown, other, present={"A": v("small"), "B": v(HALF - 1)})
    assert result.values == {"A": v("small"), "B": v(HALF - 1)}
    assert reasons(result) == {grown.uid: "TooLarge"}
    assert THEN in result.refusals[grown.uid].message


def test_an_older_one_that_grows_has_the_room_that_a_newer_one_leaves() -> None:
    older = entry("A", v(HALF + 2), day=1, status=SYNCED_BEFORE)
    newer = entry("B", v("small"), day=2, status=SYNCED_BEFORE)
    result = plan(older, newer, present={"A": v(HALF), "B": v(HALF)})
    assert result.refusals == {}
    assert plan(older, newer, present=dict(result.values)) == result


def test_names_that_do_not_fit_into_a_secret_are_refused_and_those_that_did_stay() -> None:
    entries = [entry(f"{'X' * 240}_{number:04}", v("1"), day=1, uid=f"{number:04}") for number in range(1500)]
    result = plan(*entries)
    assert 900 < len(result.values) < 1100
    assert set(reasons(result).values()) == {"TooLarge"}
    assert "shorter names" in result.refusals["1499"].message
    assert plan(*entries, present=dict(result.values)).values == result.values


def test_a_namespace_of_another_account_is_no_home() -> None:
    lost = entry("A", v("1"))
    result = plan_account([lost], {}, home_account="team")
    assert result.values == {}
    assert reasons(result) == {lost.uid: "NotAHome"}
    assert "team" in result.refusals[lost.uid].message


ONE = {"A": v("1")}


@pytest.mark.parametrize(
    ("want", "labelled", "found", "todo"),
    [
        (ONE, False, None, Step.APPLY),
        (ONE, False, Found("7", ONE), Step.NOTHING),
        (ONE, False, Found("7", {"A": v("2")}), Step.APPLY),
        (ONE, False, Found("7", {**ONE, "STRAY": v("x")}), Step.APPLY),
        (ONE, False, Found("7", {}), Step.APPLY),
        (ONE, False, Found("7", ONE, labelled=False), Step.APPLY),
        (ONE, False, Found("7", ONE, frozen=True), Step.NOTHING),
        (ONE, False, Found("7", {}, frozen=True), Step.REPLACE),
        (ONE, False, Found("7", {}, owned=False), Step.LEAVE),
        (ONE, False, Found("7", ONE, owned=False), Step.LEAVE),
        ({}, False, None, Step.NOTHING),
        ({}, False, Found("7", ONE), Step.DELETE),
        ({}, False, Found("7", {}), Step.DELETE),
        ({}, False, Found("7", ONE, owned=False), Step.LEAVE),
        ({}, True, None, Step.APPLY),
        ({}, True, Found("7", {}), Step.NOTHING),
        ({}, True, Found("7", ONE), Step.APPLY),
    ],
)
def test_a_namespace_is_brought_to_what_is_wanted(
    want: dict[str, SecretBytes], labelled: bool, found: Found | None, todo: Step
) -> None:
    assert step(want, Member("ns", labelled, found)) is todo


@pytest.mark.parametrize(
    ("refusal", "reason", "words"),
    [
        (not_owned(["b", "a"]), Reason.NOT_OWNED, ["a, b", "devbox-account-secrets", "delete it"]),
        (not_written({"a": "403 quota"}), Reason.NOT_WRITTEN, ["a: 403 quota"]),
    ],
)
def test_what_cannot_reach_a_namespace_says_which(refusal: Refusal, reason: Reason, words: list[str]) -> None:
    assert refusal.reason == reason
    assert all(word in refusal.message for word in words)


def test_no_plan_prints_a_value() -> None:
    made = entry("A", v("canary-value"))
    result = plan(made, present={"A": v("canary-value")})
    assert "canary-value" not in repr((made, result, Found("1", {"A": v("canary-value")})))
