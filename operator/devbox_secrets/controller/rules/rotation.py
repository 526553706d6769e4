"""Decides when to create a sealing key, which lost ones to write back, which to publish, and which values to reseal."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from devbox_secrets.api.names import PUBLIC_KEYS_MAX
from devbox_secrets.crypto.envelope import Keyring, PublicKey

#: How far another clock may be ahead of the operator's.
CLOCK_SKEW = timedelta(minutes=5)
#: Keeps keys that are dated at the same time in their order.
_STEP = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class RotationRequest:
    """What was asked of the leader: a newest key that is no older than `since`; or why it isn't done."""

    since: datetime | None = None
    rejection: str | None = None


def read_rotation_request(text: str | None, now: datetime) -> RotationRequest:
    """Read the annotation that asks for a new key: an RFC 3339 time that has come.

    A clock that is a little ahead is no matter; a time far ahead waits until then, so that a typing
    error can't date a key into the next century.
    """
    if text is None:
        return RotationRequest()
    try:
        since = datetime.fromisoformat(text)
        if since.tzinfo is None:
            raise ValueError("a time without its zone")  # noqa: TRY301 - as any other that can't be used
        since = since.astimezone(UTC)
    except (ValueError, OverflowError):
        return RotationRequest(rejection="it isn't a time with its zone, such as 2026-01-31T12:00:00Z")
    if since > now + CLOCK_SKEW:
        return RotationRequest(rejection=f"it lies ahead: by the operator's clock it is {now:%Y-%m-%dT%H:%M:%SZ}")
    return RotationRequest(since)


def is_due(newest: datetime | None, requested: datetime | None, every: timedelta | None, now: datetime) -> bool:
    """Tell whether a new key must be made.

    `newest` is when the newest key was made, None where none can be read: what is damaged might
    still be mended, so that another is made only when someone asks for it. A key from the future
    meets no request: nobody knows when it was made.
    """
    if newest is None:
        return requested is not None
    if requested is not None and not requested <= newest <= now:
        return True
    return every is not None and now - newest >= every


def redated(keyring: Keyring, now: datetime) -> Keyring:
    """Date the keys from the future as created now, in the same order.

    A clock that was ahead created them. No key could become newer than they are until that time has come.
    """
    future = [key for key in reversed(keyring.newest_first()) if key.created > now]
    return Keyring(replace(key, created=now + _STEP * number) for number, key in enumerate(future))


def creation_time(newest: datetime | None, now: datetime) -> datetime:
    """Give the time that a new key bears: now, but later than the newest one, which it replaces."""
    return now if newest is None else max(now, newest + _STEP)


def lost_keys(known: Keyring, found: Collection[str], pruned: Collection[str], used: Collection[str]) -> frozenset[str]:
    """Name the known keys that are gone by accident.

    `found` are still stored, `pruned` were removed by `keys prune`, and AccountSecrets are sealed with `used`.

    Pruning keeps the newest key and each key that is used, and records what it removes. So a key that is used
    was never meant to go. If the newest key is gone and wasn't pruned, a tool deleted or replaced the whole
    Secret: then nobody chose the other keys that are gone either, whatever the Secret holds by now. Any other
    key may have been removed by hand.
    """
    gone = known.keys() - set(found)
    kept = Keyring(key for key_id, key in known.items() if key_id not in pruned)
    replaced = bool(kept) and kept.newest.public.id in gone
    return frozenset(gone - set(pruned) if replaced else ()) | (gone & set(used))


def key_ids(sealed: Iterable[str]) -> frozenset[str]:
    """Name the keys that values are sealed with."""
    return frozenset(filter(None, map(_key_id, sealed)))


def published(keyring: Keyring) -> list[PublicKey]:
    """Choose the public keys that people get to see: the newest."""
    return [key.public for key in keyring.newest_first()[:PUBLIC_KEYS_MAX]]


def older_keys(keyring: Keyring) -> frozenset[str]:
    """Name the keys from which values move on: all but the newest. A key that isn't here may be a newer one."""
    return frozenset(keyring.keys() - {keyring.newest.public.id}) if keyring else frozenset()


def needs_reseal(sealed: str, older: Collection[str]) -> bool:
    """Tell whether a value is sealed with one of these keys, by its text alone: of very many it is asked often."""
    return _key_id(sealed) in older


def _key_id(sealed: str) -> str:
    return sealed.partition(".")[2].partition(".")[0]
