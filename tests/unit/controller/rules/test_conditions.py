"""The messages of the condition Ready if devboxes don't get the value."""

import re
from collections.abc import Callable

import pytest

from devbox_secrets.api.models import Reason
from devbox_secrets.controller.rules.conditions import (
    NotReady,
    being_deleted,
    held,
    name_conflict,
    not_owned,
    not_written,
    reserved_name,
    too_large,
    too_many,
    unavailable,
    wrong_namespace,
)
from devbox_secrets.controller.rules.status import next_status
from devbox_secrets.errors import CannotOpen, DevboxSecretsError, InvalidValue, NotSealed, UnknownKey, ValueTooLarge
from unit.controller.rules.entries import entry, v

NOW = "2026-02-02T00:00:00Z"
OURS = "the Secret devbox-account-secrets"
CASES: list[tuple[Callable[[], NotReady], Reason, str]] = [
    (
        lambda: wrong_namespace("box", "team"),
        Reason.WRONG_NAMESPACE,
        (
            "the namespace box belongs to the account team (label devbox-secrets.dev/account); seal the value for the"
            " account team and create the AccountSecret in the namespace team"
        ),
    ),
    (
        lambda: being_deleted("token"),
        Reason.DELETING,
        (
            "the AccountSecret was deleted, so devboxes no longer get the variable, but a finalizer keeps the object;"
            " the finalizer's owner must remove it: kubectl get accountsecret token -o"
            " jsonpath='{.metadata.finalizers}'"
        ),
    ),
    (
        lambda: reserved_name("PATH"),
        Reason.RESERVED_NAME,
        (
            "PATH is reserved because it could run code in every devbox or break it; choose another name, and set this"
            " one inside the devbox if a program needs it"
        ),
    ),
    (
        lambda: name_conflict("A", "a-1"),
        Reason.NAME_CONFLICT,
        "the older AccountSecret a-1 already defines A; update that one, or delete it to use this one",
    ),
    (
        lambda: too_large("A", 1_048_577),
        Reason.TOO_LARGE,
        (
            "with A, the account's values would take 1,048,577 bytes, but a Secret can hold only 1,048,576; delete"
            " AccountSecrets that aren't used, or shorten their values"
        ),
    ),
    (
        lambda: too_many("A", 1234),
        Reason.TOO_LARGE,
        (
            "the account has 1,234 variables, and its Secret has no room for the name A; delete AccountSecrets that"
            " aren't used, or choose shorter names"
        ),
    ),
    (
        lambda: not_owned(["b", "a"]),
        Reason.NOT_OWNED,
        (
            f"{OURS} in the namespace a, b wasn't written by the operator and is left unchanged; copy what you need"
            " from that Secret and delete it"
        ),
    ),
    (
        lambda: not_written({"b": "500", "a": "403 quota"}),
        Reason.NOT_WRITTEN,
        (
            f"cannot write {OURS} (a: 403 quota; b: 500); check the namespace for a quota, a policy or a webhook."
            " The operator keeps retrying"
        ),
    ),
    (
        lambda: held({"b": ["x.example/a"], "a": ["x.example/a", "x.example/b"]}),
        Reason.NOT_WRITTEN,
        (
            f"{OURS} is immutable, and a finalizer prevents its deletion in the namespace a (x.example/a,"
            " x.example/b); b (x.example/a), so devboxes there still get its old values; the finalizer's owner must"
            " remove it, then the operator recreates the Secret"
        ),
    ),
]


# The message is built in the test, because mutmut doesn't mutate what runs at import.
@pytest.mark.parametrize(("build", "reason", "message"), CASES)
def test_each_condition_says_what_is_wrong_and_what_to_do(
    build: Callable[[], NotReady], reason: Reason, message: str
) -> None:
    assert build() == NotReady(reason, message)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (NotSealed, Reason.CANNOT_OPEN),
        (CannotOpen, Reason.CANNOT_OPEN),
        (UnknownKey, Reason.UNKNOWN_KEY),
        (InvalidValue, Reason.INVALID_VALUE),
        (ValueTooLarge, Reason.TOO_LARGE),
    ],
)
def test_an_unavailable_value_has_the_message_of_its_error(kind: type[DevboxSecretsError], reason: Reason) -> None:
    assert unavailable(kind("why")) == NotReady(reason, "why")


@pytest.mark.parametrize("refuse", [not_owned, lambda names: not_written(dict.fromkeys(names, "500 " * 50))])
def test_the_message_for_many_namespaces_fits_into_a_condition(
    refuse: Callable[[list[str]], NotReady],
) -> None:
    not_ready = refuse([f"{'n' * 58}-{number:04}" for number in range(2000)])
    assert re.search(r"[,;] and 1990 more\b", not_ready.message)
    assert next_status(entry("A", v("1")), not_ready, NOW).conditions[0].message == not_ready.message


def test_up_to_ten_namespaces_are_all_listed() -> None:
    assert "in the namespace a, b, c wasn't" in not_owned(["c", "a", "b"]).message
    assert "more" not in not_owned(map(str, range(10))).message
    assert "0, 1, 10, 2, 3, 4, 5, 6, 7, 8, and 1 more wasn't" in not_owned(map(str, range(11))).message


def test_the_message_says_if_devboxes_keep_the_previous_value() -> None:
    kept = NotReady(Reason.CANNOT_OPEN, "it doesn't open").keeping(NOW)
    assert kept == NotReady(Reason.CANNOT_OPEN, f"it doesn't open. Until then, devboxes keep the value of {NOW}")
