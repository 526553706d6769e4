"""Decides when to create a sealing key, which lost keys to write back, which to publish, and which values to reseal."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from devbox_secrets.api.names import PUBLIC_KEYS_MAX
from devbox_secrets.crypto.envelope import Keyring, PublicKey

#: How far another clock may be ahead of the operator's.
CLOCK_SKEW = timedelta(minutes=5)
#: Keeps the order of keys that get the same creation time.
_STEP = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class RotationRequest:
    """A request for a key that is no older than `since`, or why the request is rejected."""

    since: datetime | None = None
    rejection: str | None = None


def read_rotation_request(text: str | None, now: datetime, newest: datetime | None = None) -> RotationRequest:
    """Parse the annotation that requests a new key: an RFC 3339 time that isn't in the future.

    A small clock skew is accepted. A time further ahead is ignored until then, so that a typo can't date a key into
    the next century. But a key newer than `newest`, the newest one, can always be requested, even if that is from
    the future.
    """
    if text is None:
        return RotationRequest()
    try:
        since = datetime.fromisoformat(text)
        if since.tzinfo is None:
            raise ValueError("no time zone")  # noqa: TRY301 - handled like any other invalid time
        since = since.astimezone(UTC)
    except (ValueError, OverflowError):
        return RotationRequest(rejection="it isn't a time with a time zone, such as 2026-01-31T12:00:00Z")
    if since > now + CLOCK_SKEW and (newest is None or since > newest + _STEP):
        return RotationRequest(rejection=f"it is in the future; the operator's clock says {now:%Y-%m-%dT%H:%M:%SZ}")
    return RotationRequest(since)


def is_due(newest: datetime | None, requested: datetime | None, every: timedelta | None, now: datetime) -> bool:
    """Return whether a new key must be created.

    `newest` is when the newest key was created, or None if no key can be read: damaged keys might still
    be repaired, so another one is created only on request. A key from the future meets no request, since
    nobody knows when it was created.
    """
    if newest is None:
        return requested is not None
    if requested is not None and not requested <= newest <= now:
        return True
    return every is not None and now - newest >= every


def redated(keyring: Keyring, now: datetime) -> Keyring:
    """Set the creation time of keys from the future to now, in the same order.

    Their time comes from a clock that was ahead. Until then, no new key would be newer than they are.
    """
    future = [key for key in reversed(keyring.newest_first()) if key.created > now]
    return Keyring(replace(key, created=now + _STEP * number) for number, key in enumerate(future))


def creation_time(newest: datetime | None, now: datetime) -> datetime:
    """Return a new key's creation time: now, but later than that of the newest key, which it replaces."""
    return now if newest is None else max(now, newest + _STEP)


def lost_keys(known: Keyring, found: Collection[str], pruned: Collection[str], used: Collection[str]) -> frozenset[str]:
    """Return the known keys that are missing by accident.

    `found` are still stored, `pruned` were removed by `keys prune`, and AccountSecrets are sealed with `used`.

    Pruning keeps the newest key and every used key, and records what it removes. So a used key was never removed
    on purpose. If the newest key is missing and wasn't pruned, a tool deleted or replaced the whole Secret, so
    the other missing keys weren't removed on purpose either, whatever the Secret contains now. Any other key may
    have been removed by hand.
    """
    gone = known.keys() - set(found)
    kept = Keyring(key for key_id, key in known.items() if key_id not in pruned)
    replaced = bool(kept) and kept.newest.public.id in gone
    return frozenset(gone - set(pruned) if replaced else ()) | (gone & set(used))


def key_ids(sealed: Iterable[str]) -> frozenset[str]:
    """Return the ids of the keys that values are sealed with."""
    return frozenset(filter(None, map(_key_id, sealed)))


def published(keyring: Keyring) -> list[PublicKey]:
    """Return the public keys to publish: the newest ones."""
    return [key.public for key in keyring.newest_first()[:PUBLIC_KEYS_MAX]]


def older_keys(keyring: Keyring) -> frozenset[str]:
    """Return the ids of all keys except the newest. A key that isn't known may be newer."""
    return frozenset(keyring.keys() - {keyring.newest.public.id}) if keyring else frozenset()


def needs_reseal(sealed: str, older: Collection[str]) -> bool:
    """Return whether a value is sealed with one of these keys; called often, so it only looks at the text."""
    return _key_id(sealed) in older


def _key_id(sealed: str) -> str:
    return sealed.partition(".")[2].partition(".")[0]
