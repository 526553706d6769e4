"""Why a value isn't given to devboxes: the words of the condition Ready."""

from collections.abc import Callable

import pytest

from devbox_secrets.api.models import Reason
from devbox_secrets.controller.rules.conditions import (
    NotReady,
    name_conflict,
    not_owned,
    not_written,
    reserved_name,
    too_large,
    too_many,
    wrong_namespace,
)
from devbox_secrets.controller.rules.status import next_status
from unit.controller.rules.entries import entry, v

NOW = "2026-02-02T00:00:00Z"


@pytest.mark.parametrize(
    ("not_ready", "reason", "words"),
    [
        (
            wrong_namespace("box", "team"),
            Reason.WRONG_NAMESPACE,
            ["namespace box", "account team", "in the namespace team"],
        ),
        (reserved_name("PATH"), Reason.RESERVED_NAME, ["PATH is reserved", "choose another name"]),
        (name_conflict("A", "a-1"), Reason.NAME_CONFLICT, ["AccountSecret a-1 already defines A", "delete it"]),
        (
            too_large("A", 1_048_577),
            Reason.TOO_LARGE,
            ["with A", "1,048,577 bytes", "1,048,576", "shorten"],
        ),
        (too_many("A", 1234), Reason.TOO_LARGE, ["1,234 variables", "the name A", "shorter names"]),
    ],
)
def test_each_says_what_is_wrong_and_what_to_do(not_ready: NotReady, reason: Reason, words: list[str]) -> None:
    assert not_ready.reason == reason
    assert [word for word in words if word not in not_ready.message] == []


@pytest.mark.parametrize(
    ("not_ready", "reason", "words"),
    [
        (not_owned(["b", "a"]), Reason.NOT_OWNED, ["a, b", "devbox-account-secrets", "delete it"]),
        (not_written({"a": "403 quota"}), Reason.NOT_WRITTEN, ["a: 403 quota"]),
    ],
)
def test_what_cannot_reach_a_namespace_says_which(not_ready: NotReady, reason: Reason, words: list[str]) -> None:
    assert not_ready.reason == reason
    assert all(word in not_ready.message for word in words)


@pytest.mark.parametrize("refuse", [not_owned, lambda names: not_written(dict.fromkeys(names, "500 " * 50))])
def test_an_account_of_many_namespaces_has_a_message_that_a_condition_can_hold(
    refuse: Callable[[list[str]], NotReady],
) -> None:
    not_ready = refuse([f"{'n' * 58}-{number:04}" for number in range(2000)])
    assert "and 1990 more" in not_ready.message
    assert next_status(entry("A", v("1")), not_ready, NOW).conditions[0].message == not_ready.message


def test_a_few_namespaces_are_all_named() -> None:
    assert "in the namespace a, b, c wasn't" in not_owned(["c", "a", "b"]).message
    assert "more" not in not_owned(map(str, range(10))).message


def test_a_value_that_is_kept_is_told_beside_the_reason() -> None:
    kept = NotReady(Reason.CANNOT_OPEN, "it doesn't open").keeping(NOW)
    assert kept == NotReady(Reason.CANNOT_OPEN, f"it doesn't open. Until then, devboxes keep the value of {NOW}")
