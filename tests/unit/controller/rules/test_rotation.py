"""The rules for creating, publishing and losing sealing keys."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.names import PUBLIC_KEYS_MAX
from devbox_secrets.api.ownership import is_without_copy
from devbox_secrets.controller.rules.rotation import (
    CLOCK_SKEW,
    RotationRequest,
    creation_time,
    is_due,
    key_ids,
    lost_keys,
    needs_reseal,
    older_keys,
    published,
    read_rotation_request,
    redated,
)
from devbox_secrets.crypto.envelope import KeyPair, Keyring

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAYS_90 = timedelta(days=90)
SECOND = timedelta(seconds=1)


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


DUE = {
    "a recent key": (ago(1), None, DAYS_90, False),
    "a key slightly younger than the interval": (NOW - DAYS_90 + SECOND, None, DAYS_90, False),
    "a key exactly as old as the interval": (NOW - DAYS_90, None, DAYS_90, True),
    "an old key": (ago(1000), None, DAYS_90, True),
    "an old key, never to be rotated": (ago(1000), None, None, False),
    "a key dated by a clock that was ahead": (NOW + SECOND, None, DAYS_90, False),
    "a request after the key was created": (ago(1), ago(0.5), DAYS_90, True),
    "a request, never to be rotated on schedule": (ago(1), ago(0.5), None, True),
    "a request that the key satisfies": (ago(1), ago(1), None, False),
    "a request satisfied by a key created right now": (NOW, ago(1), None, False),
    "a request from before the key": (ago(1), ago(2), None, False),
    "an old request and an old key": (ago(100), ago(200), DAYS_90, True),
    "a request, and a key dated by a clock that was ahead": (NOW + SECOND, ago(0), DAYS_90, True),
    "a request, and a key of the next century": (ago(-40_000), ago(0), None, True),
    "no readable key": (None, None, DAYS_90, False),
    "no readable key, and a request": (None, ago(1), None, True),
}


@pytest.mark.parametrize(("newest", "requested", "every", "due"), DUE.values(), ids=DUE)
def test_a_key_is_created_when_the_newest_is_too_old_or_older_than_requested(
    newest: datetime | None, requested: datetime | None, every: timedelta | None, due: bool
) -> None:
    assert is_due(newest, requested, every, NOW) is due


@pytest.mark.parametrize(
    ("text", "since"),
    [
        (None, None),
        ("2026-06-01T11:59:59Z", NOW - SECOND),
        ("2026-06-01T13:59:59+02:00", NOW - SECOND),
        ("2026-06-01T11:59:59.250000+00:00", NOW - SECOND + timedelta(milliseconds=250)),
        ("2026-06-01T12:04:59Z", NOW + CLOCK_SKEW - SECOND),
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_request_contains_a_time(text: str | None, since: datetime | None) -> None:
    request = read_rotation_request(text, NOW)
    assert request == RotationRequest(since)
    assert request.since is None or request.since.tzinfo is UTC


@pytest.mark.parametrize(
    "text", ["", "now", "true", "2026-06-01", "2026-06-01T11:59:59", "1780315199", "0001-01-01T00:00:00+23:00"]
)
def test_an_invalid_request_is_rejected_with_an_example(text: str) -> None:
    request = read_rotation_request(text, NOW)
    assert request == RotationRequest(rejection="it isn't a time with a time zone, such as 2026-01-31T12:00:00Z")


def test_a_request_for_a_future_time_is_rejected_until_then() -> None:
    text = "2026-06-01T12:05:01Z"
    assert read_rotation_request(text, NOW) == RotationRequest(
        rejection="it is in the future; the operator's clock says 2026-06-01T12:00:00Z"
    )
    assert read_rotation_request(text, NOW + SECOND).since == NOW + CLOCK_SKEW + SECOND


def test_a_key_newer_than_one_from_the_future_can_be_requested() -> None:
    newest = NOW + timedelta(minutes=20)
    for since in (newest, newest + timedelta(microseconds=1)):
        assert read_rotation_request(since.isoformat(), NOW, newest).since == since
    assert read_rotation_request((newest + SECOND).isoformat(), NOW, newest).rejection


def test_a_new_key_is_dated_now_but_later_than_all_others() -> None:
    assert creation_time(None, NOW) == creation_time(ago(1), NOW) == NOW
    assert creation_time(NOW, NOW) == NOW + timedelta(microseconds=1)


def test_keys_from_the_future_are_dated_now_in_their_order() -> None:
    keys = [KeyPair.generate(ago(days)) for days in (-40_000, -2, 3, -1)]
    dated = redated(Keyring(keys), NOW)
    assert dated.keys() == {key.public.id for key in keys if key.created > NOW}
    both = Keyring([*keys, *dated.values()])
    assert both.newest_first() == [both[key.public.id] for key in Keyring(keys).newest_first()]
    assert all(timedelta(0) <= key.created - NOW < SECOND for key in dated.values())
    assert [dated[key_id].seed for key_id in dated] == [Keyring(keys)[key_id].seed for key_id in dated]
    assert not redated(Keyring([KeyPair.generate(NOW), KeyPair.generate(ago(1))]), NOW)


NEW, MIDDLE, OLD = "new", "middle", "old"
LOST: dict[str, tuple[set[str], set[str], set[str], set[str]]] = {
    "nothing is missing": ({NEW, MIDDLE, OLD}, set(), {NEW}, set()),
    "an older one was removed by hand": ({NEW, MIDDLE}, set(), set(), set()),
    "an older one was pruned": ({NEW, MIDDLE}, {OLD}, {NEW, MIDDLE}, set()),
    "all older ones were removed by hand": ({NEW}, set(), {NEW}, set()),
    "an older one that is used": ({NEW, MIDDLE}, set(), {OLD}, {OLD}),
    "one that came into use as it was pruned": ({NEW}, {MIDDLE, OLD}, {OLD}, {OLD}),
    "all of them": (set(), set(), set(), {NEW, MIDDLE, OLD}),
    "the newest, by a restore of an older Secret": ({MIDDLE, OLD}, set(), set(), {NEW}),
    "the newest and another, by a restore of an older Secret": ({OLD}, set(), set(), {NEW, MIDDLE}),
    "all of them, replaced by another": ({"other"}, set(), set(), {NEW, MIDDLE, OLD}),
    "all of them, and one that had been pruned before": (set(), {OLD}, set(), {NEW, MIDDLE}),
    "those that were pruned after a rotation that wasn't seen": ({"newer"}, {NEW, MIDDLE, OLD}, {"newer"}, set()),
    "the newest, pruned after a rotation that wasn't seen": ({"newer", MIDDLE, OLD}, {NEW}, set(), set()),
    "the newest two, of which one was pruned": ({"newer", OLD}, {NEW}, set(), {MIDDLE}),
}


@pytest.mark.parametrize(("found", "pruned", "used", "lost"), LOST.values(), ids=LOST)
def test_keys_are_lost_if_they_are_missing_unintentionally(
    found: set[str], pruned: set[str], used: set[str], lost: set[str]
) -> None:
    keys = {name: KeyPair.generate(ago(days)) for days, name in enumerate((NEW, MIDDLE, OLD, "newer", "other"))}
    ids = {name: key.public.id for name, key in keys.items()}
    known = Keyring(keys[name] for name in (NEW, MIDDLE, OLD))
    given = ({ids[name] for name in names} for names in (found, pruned, used))
    assert lost_keys(known, *given) == {ids[name] for name in lost}


def test_without_known_keys_none_is_lost() -> None:
    assert lost_keys(Keyring(()), ["a"], ["b"], ["c"]) == set()


def test_key_ids_are_read_from_sealed_values() -> None:
    assert key_ids(["dbs1.00000000000000aa.x", "dbs1.00000000000000aa.y", "dbs1.bb.x.y", "dbs1", ""]) == {
        "00000000000000aa",
        "bb",
    }


def keyring(count: int) -> Keyring:
    return Keyring(KeyPair(SecretBytes(bytes([number] * 32)), ago(number)) for number in range(count))


def test_every_key_is_published_the_newest_first() -> None:
    few = keyring(3)
    assert published(few) == [key.public for key in sorted(few.values(), key=lambda key: key.created, reverse=True)]
    assert published(few)[0] == few.newest.public


def test_of_many_keys_the_newest_are_published() -> None:
    many = keyring(PUBLIC_KEYS_MAX + 20)
    seen = published(many)
    assert len(seen) == PUBLIC_KEYS_MAX
    assert seen[0] == many.newest.public
    assert min(many[key.id].created for key in seen) == ago(PUBLIC_KEYS_MAX - 1)


def test_published_keys_fit_into_a_configmap() -> None:
    assert sum(len(str(key)) + len(key.id) for key in published(keyring(PUBLIC_KEYS_MAX + 20))) < 1_048_576 / 2


def test_older_keys_are_all_but_the_newest() -> None:
    newest, *others = (KeyPair.generate(ago(days)) for days in (1, 2, 3))
    assert older_keys(Keyring([others[0], newest, others[1]])) == {key.public.id for key in others}
    assert older_keys(Keyring([newest])) == older_keys(Keyring([])) == set()


@pytest.mark.parametrize(
    ("sealed", "outdated"),
    [
        ("dbs1.00000000000000aa.x", True),
        ("dbs1.00000000000000bb.x", True),
        ("dbs1.00000000000000cc.x", False),  # the newest, or an unknown one
        ("dbs1.00000000000000a.x", False),
        ("dbs1..x", False),
        ("00000000000000aa", False),
        ("", False),
    ],
)
def test_a_sealed_value_is_resealed_if_it_names_an_older_key(sealed: str, outdated: bool) -> None:
    assert needs_reseal(sealed, {"00000000000000aa", "00000000000000bb"}) is outdated


@pytest.mark.parametrize(
    ("owners", "without_copy"),
    [
        ({"devbox-secrets-gateway"}, True),
        ({"devbox-secrets"}, True),
        ({"devbox-secrets", "devbox-secrets-gateway"}, True),
        ({"devbox-secrets-gateway", "kubectl"}, False),
        ({"devbox-secrets", "argocd-controller"}, False),
        ({"devbox-secrets-cli"}, False),
        ({"kubectl-client-side-apply"}, False),
        ({None}, False),
        (set(), False),
    ],
)
def test_a_sealed_value_has_no_copy_if_only_the_gateway_and_the_operator_own_it(
    owners: set[str | None], without_copy: bool
) -> None:
    assert is_without_copy(owners) is without_copy
