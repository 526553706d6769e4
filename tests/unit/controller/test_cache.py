"""The cache: in any order of events and lists, the newest state stays."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from operator import attrgetter, methodcaller
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecret, Reason
from devbox_secrets.api.names import (
    ACCOUNT_LABEL,
    ACCOUNT_SECRET,
    CREATE_FIELD_MANAGER,
    FIELD_MANAGER,
    MANAGED_BY_LABEL,
)
from devbox_secrets.controller.cache import (
    Cache,
    Key,
    Table,
    abridge,
    is_abridged,
    read_account_secret,
    read_namespace,
    read_secret,
)
from devbox_secrets.controller.rules.fingerprint import Fingerprint
from devbox_secrets.controller.rules.plan import ExistingSecret, Member
from devbox_secrets.controller.rules.rotation import needs_reseal
from unit.controller.objects import applied

Body = dict[str, Any]
KEY: Key = ("team", "a")
CREATED = "2026-01-01T00:00:00Z"
MANAGED = {MANAGED_BY_LABEL: FIELD_MANAGER, ACCOUNT_LABEL: "team"}


def account_secret(version: int, namespace: str = "team", name: str = "a", **fields: Any) -> Body:  # noqa: ANN401
    metadata = {
        "uid": f"uid-{name}",
        "namespace": namespace,
        "name": name,
        "creationTimestamp": CREATED,
        "generation": 1,
        "resourceVersion": str(version),
    }
    return {"metadata": metadata, "spec": {"name": name.upper(), "sealed": f"sealed-{version}"}, **fields}


def namespace(
    version: int, name: str, account: str | None = None, *, terminating: bool = False, created: str = CREATED
) -> Body:
    metadata: Body = {
        "name": name,
        "uid": f"uid-{name}",
        "creationTimestamp": created,
        "resourceVersion": str(version),
    }
    if account is not None:
        metadata["labels"] = {ACCOUNT_LABEL: account}
    if terminating:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": metadata}


def cache_with_home() -> Cache:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "team"))
    return cache


def secret(version: int, where: str, values: Mapping[str, bytes] | None = None, **metadata: object) -> Body:
    """Return an account Secret that we wrote for the account `team`."""
    data = {name: base64.b64encode(value).decode() for name, value in (values or {}).items()}
    fixed = {
        "name": ACCOUNT_SECRET,
        "namespace": where,
        "uid": f"uid-secret-{where}",
        "creationTimestamp": CREATED,
        "resourceVersion": str(version),
    }
    ours = {"labels": MANAGED, "managedFields": [applied(data, MANAGED)]}
    return {"metadata": {**fixed, **ours, **metadata}, "data": data}


def known(cache: Cache, where: str = "box") -> ExistingSecret:
    """Return what is known of a namespace's account Secret."""
    ((_, found),) = [each for each in cache.secrets() if each[0].name == where]
    return found


def prints(**values: bytes) -> dict[str, Fingerprint]:
    return {name: Fingerprint.of(SecretBytes(value)) for name, value in values.items()}


def sealed(cache: Cache, account: str = "team") -> list[str]:
    return [item.spec.sealed for item in cache.account_secrets(account)]


def members(cache: Cache, account: str) -> list[str]:
    return [member.namespace for member in cache.members(account)]


def test_a_table_has_the_newest_state_of_an_object() -> None:
    table: Table[str] = Table()
    assert table.upsert(KEY, 5, "new")
    assert not table.upsert(KEY, 4, "old")
    assert table.get(KEY) == "new"
    assert table.within("team") == ["new"]
    assert list(table) == [(KEY, "new")]


def test_a_table_does_not_contain_unknown_objects() -> None:
    table: Table[str] = Table()
    assert table.get(KEY) is None
    assert table.within("team") == []
    assert not table.delete(KEY, 1)


def test_a_table_returns_an_object_at_its_known_version_only() -> None:
    table: Table[str] = Table()
    assert table.at(KEY, 5) is None
    table.upsert(KEY, 5, "known")
    assert table.at(KEY, 5) == "known"
    assert [table.at(key, 5) for key in (("team", "b"), ("other", "a"))] == [None, None]
    assert [table.at(KEY, version) for version in (4, 6)] == [None, None]


def test_a_version_that_was_seen_before_is_not_newer() -> None:
    table: Table[str] = Table()
    table.upsert(KEY, 5, "known")
    assert [table.is_newer(KEY, version) for version in (4, 5, 6)] == [False, False, True]
    table.delete(KEY, 7)
    assert [table.is_newer(KEY, version) for version in (6, 7, 8)] == [False, False, True]


def test_an_equal_state_is_not_a_change_but_counts_as_the_newest() -> None:
    table: Table[str] = Table()
    table.upsert(KEY, 5, "same")
    assert not table.upsert(KEY, 7, "same")
    assert not table.upsert(KEY, 6, "between")
    assert table.get(KEY) == "same"


def test_a_state_from_before_a_deletion_does_not_undo_it() -> None:
    table: Table[str] = Table()
    table.delete(KEY, 6)
    assert not table.upsert(KEY, 5, "from before")
    assert table.get(KEY) is None


def test_an_older_deletion_does_not_replace_a_newer_one() -> None:
    table: Table[str] = Table()
    table.delete(KEY, 8)
    table.delete(KEY, 5)
    assert not table.upsert(KEY, 7, "between the two")
    assert table.get(KEY) is None


def test_a_deletion_from_before_a_state_does_not_remove_it() -> None:
    table: Table[str] = Table()
    table.upsert(KEY, 7, "created again")
    assert not table.delete(KEY, 6)
    assert table.get(KEY) == "created again"


def test_a_deletion_at_the_version_of_the_last_state_removes_it() -> None:
    table: Table[str] = Table()
    table.upsert(KEY, 7, "its last state")
    assert table.delete(KEY, 7)
    assert table.get(KEY) is None


def test_clearing_a_table_also_forgets_the_versions() -> None:
    table: Table[str] = Table()
    table.upsert(KEY, 5, "known")
    table.replace({}, 6)
    table.delete(("team", "b"), 7)
    table.clear()
    assert table.get(KEY) is None
    assert table.upsert(KEY, 1, "from before")
    assert table.upsert(("team", "b"), 1, "from before")


def test_a_deleted_object_can_be_created_again() -> None:
    table: Table[str] = Table()
    table.upsert(KEY, 5, "first")
    assert table.delete(KEY, 6)
    assert table.upsert(KEY, 7, "second")
    assert table.get(KEY) == "second"


def test_a_list_removes_objects_that_it_does_not_contain() -> None:
    table: Table[str] = Table()
    table.upsert(KEY, 5, "missed its deletion")
    assert table.replace({("team", "b"): (6, "listed")}, 9) == [("team", "b"), KEY]
    assert dict(table) == {("team", "b"): "listed"}


def test_a_list_removes_objects_of_its_own_version_that_it_does_not_contain() -> None:
    table: Table[str] = Table()
    table.upsert(KEY, 9, "not in the list")
    assert table.replace({}, 9) == [KEY]


def test_a_list_does_not_remove_newer_objects() -> None:
    table: Table[str] = Table()
    table.upsert(KEY, 12, "created after the list")
    assert table.replace({}, 9) == []
    assert table.get(KEY) == "created after the list"


def test_a_list_does_not_restore_objects_that_were_deleted_after_it() -> None:
    table: Table[str] = Table()
    table.delete(KEY, 12)
    assert table.replace({KEY: (5, "listed")}, 9) == []
    assert table.get(KEY) is None


def test_a_state_from_before_a_list_does_not_restore_the_object() -> None:
    table: Table[str] = Table()
    table.upsert(KEY, 5, "deleted meanwhile")
    table.delete(KEY, 6)
    table.replace({}, 9)
    assert not table.upsert(KEY, 5, "deleted meanwhile")
    assert table.get(KEY) is None


def test_a_list_older_than_the_last_one_changes_nothing() -> None:
    table: Table[str] = Table()
    table.replace({KEY: (8, "created between the two")}, 9)
    assert table.replace({("team", "b"): (5, "gone between the two")}, 7) == []
    assert not table.upsert(("team", "b"), 8, "gone between the two")
    assert dict(table) == {KEY: "created between the two"}


# The objects' history: at each step, an object is created or changed (a text), deleted (None), or absent.
histories = st.lists(st.dictionaries(st.sampled_from("abc"), st.none() | st.text(max_size=2)), max_size=8)


@given(history=histories, data=st.data())
def test_any_order_of_events_and_lists_ends_in_the_newest_state(
    history: list[dict[str, str | None]], data: st.DataObject
) -> None:
    events, lists = [], [methodcaller("replace", {}, 0)]
    state: dict[Key, tuple[int, str]] = {}
    version = 0
    for changes in history:
        for name, content in changes.items():
            version += 1
            key = ("team", name)
            if content is not None:
                state[key] = version, content
                events.append(methodcaller("upsert", key, version, content))
            elif state.pop(key, None):
                events.append(methodcaller("delete", key, version))
        lists.append(methodcaller("replace", dict(state), version))

    # Each event arrives, some arrive twice, and there are some lists, in any order.
    more = data.draw(st.lists(st.sampled_from([*events, *lists]), max_size=12))
    counts: Counter[str | None] = Counter()

    def count(former: str | None, new: str | None) -> None:
        counts.subtract([former])
        counts.update([new])

    table = Table(count)
    for apply in data.draw(st.permutations([*events, *more])):
        apply(table)
    newest = {key: content for key, (_, content) in state.items()}
    assert dict(table) == newest
    del counts[None]
    assert +counts == Counter(newest.values())


def test_an_accountsecret_affects_its_account() -> None:
    cache = cache_with_home()
    assert cache.upsert_account_secret(account_secret(5)) == {"team"}
    assert sealed(cache) == ["sealed-5"]
    assert cache.delete_account_secret(account_secret(6)) == {"team"}
    assert sealed(cache) == []


def test_the_event_after_the_response_to_our_write_affects_nothing() -> None:
    cache = Cache()
    cache.upsert_account_secret(account_secret(5))
    cache.upsert_secret(secret(6, "team", {"A": b"1"}))
    answer = account_secret(7, status={"observedGeneration": 1, "keyId": "0123456789abcdef"})
    assert cache.upsert_account_secret(answer) == {"team"}
    assert cache.upsert_account_secret(answer) == set()
    assert cache.upsert_secret(secret(6, "team", {"A": b"1"})) == set()


def test_an_older_event_does_not_undo_our_write() -> None:
    cache = cache_with_home()
    cache.upsert_account_secret(account_secret(7))
    assert cache.upsert_account_secret(account_secret(5)) == set()
    assert cache.delete_account_secret(account_secret(5)) == set()
    assert sealed(cache) == ["sealed-7"]


def test_versions_compare_as_numbers() -> None:
    cache = cache_with_home()
    cache.upsert_account_secret(account_secret(9))
    assert cache.upsert_account_secret(account_secret(10)) == {"team"}
    assert sealed(cache) == ["sealed-10"]


def test_a_missing_status_is_an_empty_one() -> None:
    cache = cache_with_home()
    cache.upsert_account_secret(account_secret(5))
    (item,) = cache.account_secrets("team")
    assert item.status.changed_at is None
    assert item.status.ready is None


def test_an_unreadable_accountsecret_is_reported_once() -> None:
    reported: list[AccountSecret] = []
    cache = Cache(reported.append)
    odd = account_secret(5, name="odd", spec={"name": ["canary"], "sealed": "dbs1.…"}, status={"changedAt": ["canary"]})
    assert cache.upsert_account_secret(odd) == {"team"}
    assert cache.upsert_account_secret(odd) == set()
    cache.replace_account_secrets([AccountSecret.parse(odd), AccountSecret.parse(account_secret(4))], 6)
    assert [(secret.name, secret.damaged) for secret in reported] == [("odd", ("spec.name", "status.changedAt"))]
    cache.replace_account_secrets(
        [AccountSecret.parse({**odd, "metadata": odd["metadata"] | {"resourceVersion": "7"}})], 8
    )
    cache.upsert_account_secret(account_secret(9))
    assert cache.ready_reasons() == {("team", "InvalidSpec"): 1, ("team", "Pending"): 1}
    assert cache.falling_due("9999-12-31T23:59:59Z") == set()


def test_a_status_is_read_back_as_it_was_written() -> None:
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "CannotOpen",
        "message": "why",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 3,
    }
    written = {"observedGeneration": 3, "changedAt": "2026-01-01T00:00:00Z", "conditions": [condition]}
    cache = Cache()
    cache.upsert_account_secret(account_secret(5, status=written))
    (item,) = cache.all_account_secrets()
    assert item.status.conditions[0].reason == Reason.CANNOT_OPEN
    assert item.status.model_dump(by_alias=True, exclude_none=True, mode="json") == written


@pytest.mark.parametrize(
    ("before", "after", "affected"),
    [
        (None, namespace(2, "box"), {"box"}),
        (None, namespace(2, "box", "a"), {"box", "a"}),
        (None, namespace(2, "box", ""), {"box"}),
        (None, namespace(2, "box", terminating=True), set()),
        (namespace(1, "box"), namespace(2, "box"), set()),
        (namespace(1, "box"), namespace(2, "box", "a"), {"box", "a"}),
        (namespace(1, "box", "a"), namespace(2, "box", "a"), set()),
        (namespace(1, "box", "a"), namespace(2, "box", "b"), {"box", "a", "b"}),
        (namespace(1, "box", "a"), namespace(2, "box"), {"box", "a"}),
        (namespace(1, "box", "a"), namespace(2, "box", "a", terminating=True), {"box", "a"}),
        (namespace(1, "box", "a", terminating=True), namespace(2, "box", "a", terminating=True), set()),
        (namespace(2, "box", "a"), namespace(1, "box", "b"), set()),
    ],
)
def test_a_namespace_affects_its_own_its_previous_and_its_new_account(
    before: Body | None, after: Body, affected: set[str]
) -> None:
    by_event, by_list = Cache(), Cache()
    if before is not None:
        by_event.upsert_namespace(before)
        by_list.replace_namespaces([before], int(before["metadata"]["resourceVersion"]))
    assert by_event.upsert_namespace(after) == affected
    assert by_list.replace_namespaces([after], int(after["metadata"]["resourceVersion"])) == affected


def test_deleting_a_namespace_affects_its_account_and_its_own() -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "box", "a"))
    assert cache.delete_namespace(namespace(2, "box", "a")) == {"box", "a"}
    assert cache.delete_namespace(namespace(2, "box", "a")) == set()
    assert members(cache, "a") == []


def test_deleting_a_namespace_with_another_label_affects_both_accounts() -> None:
    cache = cache_with_home()
    cache.upsert_namespace(namespace(2, "box", "team"))
    assert cache.delete_namespace(namespace(3, "box", "other")) == {"box", "team", "other"}
    assert cache.delete_namespace(namespace(4, "box", "other")) == set()
    cache.upsert_namespace(namespace(5, "box", "other"))
    assert (members(cache, "team"), members(cache, "other")) == (["team"], ["box"])


def test_a_namespace_is_known_until_it_is_being_deleted() -> None:
    cache = cache_with_home()
    assert (cache.namespace_uid("team"), cache.namespace_uid("box")) == ("uid-team", "")
    cache.upsert_namespace(namespace(2, "team", terminating=True))
    assert cache.namespace_uid("team") == ""


def test_accountsecrets_are_counted_by_reason_and_if_overdue() -> None:
    cache = cache_with_home()
    ready = {"type": "Ready", "status": "True", "reason": "Synced", "message": "", "lastTransitionTime": CREATED}
    due = {**ready, "type": "RotationDue"}
    cache.upsert_account_secret(account_secret(2, name="a"))
    cache.upsert_account_secret(account_secret(3, name="b", status={"conditions": [ready, due]}))
    cache.upsert_account_secret(account_secret(4, name="c", status={"conditions": [ready]}))
    cache.upsert_account_secret(account_secret(5, name="d", spec={"name": "D"}))
    assert cache.ready_reasons() == {("team", "Pending"): 1, ("team", "Synced"): 2, ("team", "InvalidSpec"): 1}
    assert cache.overdue() == 1
    cache.upsert_account_secret(account_secret(6, name="b", status={"conditions": [ready]}))
    cache.delete_account_secret(account_secret(7, name="a"))
    cache.delete_account_secret(account_secret(7, name="a"))
    assert dict(cache.ready_reasons()) == {("team", "Synced"): 2, ("team", "InvalidSpec"): 1}
    assert cache.overdue() == 0
    cache.replace_account_secrets([read_account_secret(account_secret(8, "other"))], 9)
    assert dict(cache.ready_reasons()) == {("other", "Pending"): 1}
    cache.clear()
    assert dict(cache.ready_reasons()) == {}


def test_an_account_falls_due_if_a_value_is_too_old_and_not_yet_overdue() -> None:
    cache = cache_with_home()
    body = account_secret(2, status={"changedAt": "2026-01-01T00:00:00Z"})
    body["spec"]["rotateAfter"] = "1d"
    cache.upsert_account_secret(body)
    assert cache.falling_due("2026-01-01T23:59:59Z") == set()
    assert cache.falling_due("2026-01-02T00:00:00Z") == {"team"}


def test_an_accountsecret_is_known_at_its_version_only() -> None:
    cache = cache_with_home()
    cache.upsert_account_secret(account_secret(5))
    assert cache.known_account_secret(account_secret(5)) == read_account_secret(account_secret(5))
    for other in (account_secret(6), account_secret(5, name="b"), account_secret(5, "elsewhere")):
        assert cache.known_account_secret(other) is None


def test_an_account_secret_is_known_at_its_version_only() -> None:
    cache = Cache()
    cache.upsert_secret(secret(5, "box", {"A": b"1"}))
    assert cache.known_secret(secret(5, "box")) == read_secret(secret(5, "box", {"A": b"1"}))
    assert [cache.known_secret(other) for other in (secret(6, "box"), secret(5, "elsewhere"))] == [None, None]


def test_a_list_of_secrets_replaces_the_known_ones() -> None:
    cache = cache_with_home()
    assert cache.replace_secrets([read_secret(secret(2, "team", {"A": b"1"}))], 3) == {"team"}
    assert known(cache, "team").data == prints(A=b"1")
    assert cache.replace_secrets([], 4) == {"team"}
    assert list(cache.secrets()) == []


def test_an_account_has_its_home_and_the_namespaces_labeled_with_it() -> None:
    cache = Cache()
    for body in (namespace(1, "team"), namespace(2, "z", "team"), namespace(3, "b", "team"), namespace(4, "c")):
        cache.upsert_namespace(body)
    cache.upsert_secret(secret(5, "z", {"A": b"1"}))
    values = prints(A=b"1")
    found = ExistingSecret("5", values, account="team", unchanged=values, uid="uid-secret-z", created=CREATED)
    assert cache.members("team") == [
        Member("b", True, uid="uid-b"),
        Member("team", False, uid="uid-team"),
        Member("z", True, found, uid="uid-z"),
    ]


def test_a_relabeled_namespace_is_only_a_member_of_its_new_account() -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "box", "a"))
    cache.upsert_namespace(namespace(2, "box", "b"))
    assert (members(cache, "a"), members(cache, "b"), members(cache, "box")) == ([], ["box"], [])
    cache.replace_namespaces([namespace(3, "box")], 3)
    assert (members(cache, "b"), members(cache, "box")) == ([], ["box"])


def test_a_namespace_with_an_empty_label_is_its_own_account() -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "box", ""))
    assert cache.home_account("box") == "box"
    assert members(cache, "box") == ["box"]


def test_a_namespace_that_is_being_deleted_is_not_a_member() -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "box", "team"))
    cache.upsert_namespace(namespace(2, "box", "team", terminating=True))
    assert members(cache, "team") == []
    cache.replace_namespaces([namespace(2, "box", "team", terminating=True)], 3)
    assert members(cache, "team") == []
    # A state from before its deletion arrives late.
    assert cache.upsert_namespace(namespace(1, "box", "team")) == set()
    assert members(cache, "team") == []


def test_a_namespace_that_is_created_again_is_a_member_again() -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "box", "team"))
    cache.delete_namespace(namespace(2, "box", "team"))
    assert cache.upsert_namespace(namespace(3, "box", "team")) == {"box", "team"}
    assert members(cache, "team") == ["box"]


def test_objects_of_a_former_namespace_do_not_belong_to_a_new_one_of_the_same_name() -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "team"))
    cache.upsert_account_secret(account_secret(2))
    cache.upsert_secret(secret(3, "team", {"A": b"1"}))
    # The events of these deletions, and of the namespace's, were missed.
    cache.upsert_namespace(namespace(9, "team", created="2026-01-01T00:00:01Z"))
    assert sealed(cache) == []
    (member,) = cache.members("team")
    assert member.secret is None


def test_an_account_without_a_home_has_no_accountsecrets() -> None:
    cache = cache_with_home()
    cache.upsert_account_secret(account_secret(2))
    cache.upsert_namespace(namespace(3, "team", terminating=True))
    # The events of the deletion of its objects were missed.
    assert sealed(cache) == []
    cache.upsert_namespace(namespace(4, "team"))
    assert sealed(cache) == ["sealed-2"]


def test_objects_created_in_the_same_second_as_their_namespace_are_used() -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "team"))
    cache.upsert_account_secret(account_secret(2))
    cache.upsert_secret(secret(3, "team", {"A": b"1"}))
    assert sealed(cache) == ["sealed-2"]
    (member,) = cache.members("team")
    assert member.secret is not None


def test_a_namespace_that_is_not_in_a_list_is_not_a_member() -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "box", "team"))
    assert cache.replace_namespaces([], 2) == {"box", "team"}
    assert members(cache, "team") == []


def test_a_list_of_namespaces_affects_the_accounts_of_all_that_changed() -> None:
    cache = cache_with_home()
    assert cache.replace_namespaces([namespace(2, "box", "a"), namespace(3, "other", "b")], 4) == {
        *("team", "box", "a", "other", "b"),
    }


def test_a_list_of_known_objects_affects_nothing() -> None:
    cache = Cache()
    boxes = [namespace(1, "team"), namespace(2, "box", "team")]
    ours, theirs = [secret(3, "box", {"A": b"1"})], [account_secret(4)]
    cache.replace_namespaces(boxes, 4)
    cache.replace_secrets(map(read_secret, ours), 4)
    cache.replace_account_secrets(map(AccountSecret.parse, theirs), 4)
    assert cache.replace_namespaces(boxes, 9) == set()
    assert cache.replace_secrets(map(read_secret, ours), 9) == set()
    assert cache.replace_account_secrets(map(AccountSecret.parse, theirs), 9) == set()


def test_a_list_of_accountsecrets_affects_the_accounts_of_changed_and_deleted_ones() -> None:
    cache = Cache()
    for name in "abc":
        cache.upsert_namespace(namespace(1, name))
    before = [account_secret(1, "a"), account_secret(2, "b"), account_secret(3, "c")]
    cache.replace_account_secrets(map(AccountSecret.parse, before), 3)
    after = [account_secret(1, "a"), account_secret(5, "b")]
    assert cache.replace_account_secrets(map(AccountSecret.parse, after), 6) == {"b", "c"}
    assert (sealed(cache, "a"), sealed(cache, "b"), sealed(cache, "c")) == (["sealed-1"], ["sealed-5"], [])


def test_an_account_secret_affects_the_account_of_its_namespace() -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "box", "team"))
    assert cache.upsert_secret(secret(2, "box")) == {"team"}
    assert cache.upsert_secret(secret(2, "box")) == set()
    assert cache.delete_secret(secret(3, "box")) == {"team"}
    assert cache.delete_secret(secret(3, "box")) == set()
    # An unknown namespace is its own account.
    assert cache.upsert_secret(secret(4, "elsewhere")) == {"elsewhere"}
    assert cache.replace_secrets([read_secret(secret(5, "box"))], 6) == {"team", "elsewhere"}


def test_accounts_with_something_to_reconcile_are_listed() -> None:
    cache = Cache()
    cache.upsert_account_secret(account_secret(1, "with-account-secrets"))
    cache.upsert_namespace(namespace(2, "box", "with-a-label"))
    cache.upsert_namespace(namespace(3, "idle"))
    cache.upsert_secret(secret(4, "with-a-left-over"))
    cache.upsert_namespace(namespace(5, "other-box", "with-both"))
    cache.upsert_secret(secret(6, "other-box"))
    assert cache.accounts() == {"with-account-secrets", "with-a-label", "with-a-left-over", "with-both"}


THEIRS = {"manager": "kubectl", "operation": "Update", "time": CREATED}
EARLIER = "2025-12-31T23:58:59Z"


@pytest.mark.parametrize(
    ("managed_fields", "owned"),
    [
        pytest.param([applied("A")], True, id="we applied it"),
        pytest.param([applied("A"), THEIRS], True, id="someone else also wrote it"),
        pytest.param([applied("A", time="2026-01-01T00:00:09Z")], True, id="we applied it again"),
        pytest.param([applied("A", time="2025-12-31T23:59:30Z")], True, id="another API server's clock is behind"),
        pytest.param([applied("", manager=CREATE_FIELD_MANAGER)], True, id="we created it"),
        pytest.param([applied("", manager=CREATE_FIELD_MANAGER), THEIRS], False, id="we created it, someone filled it"),
        pytest.param([applied("A", time=EARLIER)], False, id="restored from a backup"),
        pytest.param([applied("", manager=CREATE_FIELD_MANAGER, time=EARLIER)], False, id="restored while empty"),
        pytest.param([applied("A", time="0000-01-01T00:00:00Z")], False, id="with an invalid time"),
        pytest.param([{**applied("A"), "time": None}], False, id="without a time"),
        pytest.param([], False, id="a copy with our labels"),
        pytest.param(None, False, id="without managedFields"),
        pytest.param([THEIRS], False, id="someone else created it"),
        pytest.param([{**applied("A"), "operation": "Update"}], False, id="by our field manager, but not applied"),
        pytest.param([applied("A", manager="kubectl")], False, id="someone else applied it"),
    ],
)
def test_a_secret_is_ours_if_we_wrote_it_regardless_of_its_labels(managed_fields: object, owned: bool) -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "box"))
    cache.upsert_secret(secret(2, "box", {"A": b"1"}, managedFields=managed_fields))
    assert known(cache).owned is owned
    assert known(cache).labeled
    cache.upsert_secret(secret(3, "box", {"A": b"1"}, managedFields=managed_fields, labels=None))
    assert known(cache).owned is owned
    assert not known(cache).labeled


@pytest.mark.parametrize(
    ("values", "metadata", "unchanged"),
    [
        pytest.param({"A": b"1"}, {}, {"A": b"1"}, id="as we wrote it"),
        pytest.param({"A": b"1"}, {"labels": {MANAGED_BY_LABEL: FIELD_MANAGER}}, {"A": b"1"}, id="an older version's"),
        pytest.param({"A": b"1", "B": b"2"}, {"managedFields": [applied("A", MANAGED)]}, {"A": b"1"}, id="a stray key"),
        pytest.param(
            {"A": b"1", "B": b"2"},
            {"managedFields": [applied("AB", MANAGED), applied("B", manager="kubectl")]},
            {"A": b"1"},
            id="a key that someone else applied as well",
        ),
        pytest.param({"A": b"1"}, {"managedFields": [applied("A")]}, {}, id="the account's label is someone else's"),
        pytest.param({"A": b"1"}, {"managedFields": [applied("A", MANAGED, time=EARLIER)]}, {}, id="restored"),
        pytest.param({"A": b"1", "B": b"\0"}, {}, {"A": b"1"}, id="a NUL"),
        pytest.param({"A": b"1", "B": b"\xff"}, {}, {"A": b"1"}, id="not text"),
        pytest.param({"A": b"1", "B": b"x" * 131_072}, {}, {"A": b"1"}, id="too large"),
    ],
)
def test_the_unchanged_values_are_those_that_we_wrote_and_nobody_changed(
    values: dict[str, bytes], metadata: Body, unchanged: dict[str, bytes]
) -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "box"))
    cache.upsert_secret(secret(2, "box", values, **metadata))
    assert known(cache).data == prints(**values)
    assert known(cache).unchanged == prints(**unchanged)


def test_a_text_that_did_not_change_is_in_memory_once() -> None:
    cache, specs = Cache(), []
    for version in (1, 2):
        cache.upsert_account_secret(account_secret(version, spec={"name": "A", "sealed": "sealed"}))
        specs.append(next(cache.all_account_secrets()).spec)
    assert specs[0].sealed is specs[1].sealed


def test_a_variable_that_many_accounts_use_is_in_memory_once() -> None:
    first, second = (read_account_secret(account_secret(1, f"team-{number}", "token")) for number in range(2))
    _, copy = read_secret(secret(1, "box", {first.name.upper(): b"1"}))
    assert first.spec.name is second.spec.name is next(iter(copy.data))


@pytest.mark.parametrize("field", ["namespace", "name", "created", "spec.model_fields_set"])
def test_what_many_accountsecrets_have_in_common_is_in_memory_once(field: str) -> None:
    body = json.dumps(account_secret(2, name="token"))
    one, two = (attrgetter(field)(read_account_secret(json.loads(body))) for _ in range(2))
    assert one is two


@pytest.mark.parametrize(("immutable", "must_recreate"), [(True, True), (False, False), (None, False)])
def test_an_immutable_secret_must_be_recreated(immutable: bool | None, must_recreate: bool) -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "box"))
    cache.upsert_secret({**secret(2, "box"), "immutable": immutable, "data": None})
    found = ExistingSecret("2", {}, account="team", uid="uid-secret-box", created=CREATED, must_recreate=must_recreate)
    assert known(cache) == found


@pytest.mark.parametrize(("kind", "must_recreate"), [("Opaque", False), ("kubernetes.io/tls", True)])
def test_a_secret_of_another_type_must_be_recreated(kind: str, must_recreate: bool) -> None:
    _, found = read_secret(secret(2, "box") | {"type": kind})
    assert found.must_recreate is must_recreate


@pytest.mark.parametrize(("labels", "account"), [(MANAGED, "team"), ({}, "")])
def test_the_account_of_a_secret_is_read_from_its_label(labels: dict[str, str], account: str) -> None:
    _, found = read_secret(secret(2, "box", labels=labels))
    assert found.account == account


def test_the_deletion_and_the_finalizers_of_a_secret_are_known() -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "box"))
    cache.upsert_secret(secret(2, "box", deletionTimestamp=CREATED, finalizers=["a.example/hold"]))
    assert (known(cache).deleting, known(cache).finalizers) == (True, ("a.example/hold",))


def test_the_same_values_in_many_namespaces_are_kept_once() -> None:
    one, two = (read_secret(secret(2, where, {"A": b"1", "B": b"2"}))[1] for where in ("a", "b"))
    assert one.data is two.data
    assert one.unchanged is one.data


def test_the_deletion_of_an_accountsecret_is_known() -> None:
    cache = cache_with_home()
    body = account_secret(5)
    body["metadata"]["deletionTimestamp"] = CREATED
    assert cache.upsert_account_secret(body) == {"team"}
    assert [item.deleting for item in cache.account_secrets("team")] == [True]


def test_a_new_spec_is_noticed() -> None:
    cache, body = cache_with_home(), account_secret(5)
    assert cache.has_new_spec(body)
    assert not cache.has_account_secret(body)
    cache.upsert_account_secret(body)
    assert cache.has_account_secret(account_secret(6))
    assert not cache.has_new_spec(account_secret(6))
    body["metadata"] |= {"generation": body["metadata"]["generation"] + 1, "resourceVersion": "7"}
    assert cache.has_new_spec(body)
    cache.upsert_account_secret(body)
    assert not cache.has_new_spec(account_secret(6))


def test_a_long_sealed_value_is_abridged() -> None:
    text = "dbs1.0123456789abcdef." + "x" * 172_000
    body = account_secret(5)
    body["spec"] |= {"sealed": text, "description": "d" * 1024}
    spec = read_account_secret(body).spec
    assert spec.sealed == abridge(text)
    assert len(spec.sealed) < 100
    assert is_abridged(spec.sealed)
    assert needs_reseal(spec.sealed, {"0123456789abcdef"})
    assert abridge(text + "y") != spec.sealed
    assert spec.description is None


def test_a_short_sealed_value_is_kept_and_its_description_is_not() -> None:
    body = account_secret(2)
    assert read_account_secret(body) == AccountSecret.parse(body)
    body["spec"]["description"] = "for CI"
    spec = read_account_secret(body).spec
    assert (spec.sealed, spec.description) == ("sealed-2", None)


def test_a_long_sealed_value_without_a_description_is_abridged() -> None:
    body = account_secret(2)
    body["spec"]["sealed"] = "dbs1.0123456789abcdef." + "x" * 5000
    assert is_abridged(read_account_secret(body).spec.sealed)


@pytest.mark.parametrize(("length", "abridged"), [(87, False), (4096, False), (4097, True)])
def test_a_sealed_value_is_kept_up_to_4096_characters(length: int, abridged: bool) -> None:
    body = account_secret(2)
    body["spec"]["sealed"] = "x" * length
    assert is_abridged(read_account_secret(body).spec.sealed) is abridged


@pytest.mark.parametrize(("length", "abridged"), [(0, False), (87, False), (88, True), (4097, True)])
def test_only_a_text_that_becomes_shorter_is_abridged(length: int, abridged: bool) -> None:
    text = abridge("x" * length)
    assert is_abridged(text) is abridged
    assert abridge(text) == text
    assert len(text) == min(length, 87)


def test_nobody_else_can_compute_the_digest_of_a_text() -> None:
    text = "x" * 1000
    assert hashlib.blake2b(text.encode(), digest_size=32).hexdigest() not in abridge(text)


def test_what_no_longer_exists_is_not_exchanged() -> None:
    table: Table[str] = Table()
    table.exchange(("team", "a"), "text", "digest")
    assert list(table) == []


def test_an_opened_text_is_abridged_and_stays_so_until_it_changes() -> None:
    cache, text = cache_with_home(), "dbs1.0123456789abcdef." + "x" * 1000

    def put(version: int, sealed: str, **spec: str) -> str:
        body = account_secret(version)
        body["spec"] |= {"sealed": sealed, **spec}
        assert cache.upsert_account_secret(body) == {"team"}
        return kept()

    def kept() -> str:
        (item,) = cache.account_secrets("team")
        return item.spec.sealed

    assert put(5, text) == text
    (opened,) = cache.account_secrets("team")
    cache.abridge_account_secret(opened)
    assert kept() == abridge(text)
    assert put(6, text) == abridge(text)
    assert put(7, text, rotateAfter="90d") == abridge(text)
    assert put(8, text + "y") == text + "y"
    cache.abridge_account_secret(opened)
    assert kept() == text + "y"
    cache.delete_account_secret(account_secret(9))
    cache.abridge_account_secret(opened)
    assert cache.account_secrets("team") == []


@pytest.mark.parametrize("text", ["dbs1.0123456789abcdef.x", "", "…" + "x" * 5000])
def test_other_texts_are_not_recognized_as_abridged(text: str) -> None:
    assert not is_abridged(text)


def test_fields_of_a_namespace_that_may_be_large_are_not_kept() -> None:
    body = namespace(1, "box", "team", terminating=True)
    body["metadata"] |= {"annotations": {"a": "b"}, "managedFields": [{}]}
    assert read_namespace({**body, "spec": {}}) == namespace(1, "box", "team", terminating=True)


def test_nothing_in_the_cache_prints_a_value() -> None:
    cache = Cache()
    cache.upsert_namespace(namespace(1, "team"))
    cache.upsert_account_secret(account_secret(2))
    cache.upsert_secret(secret(3, "team", {"A": b"canary-value"}))
    (member,) = cache.members("team")
    assert member.secret is not None
    assert member.secret.data == prints(A=b"canary-value")
    printed = repr((vars(cache), cache.members("team"), cache.account_secrets("team"), str(member)))
    assert "canary-value" not in printed
    assert base64.b64encode(b"canary-value").decode() not in printed
    assert "sealed-2" not in printed
