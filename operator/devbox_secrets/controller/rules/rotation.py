"""Decides when to create a sealing key, which public keys to publish, and which values to reseal."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from devbox_secrets.api.names import PUBLIC_KEYS_MAX
from devbox_secrets.crypto.envelope import Keyring, PublicKey

#: How far the clock of who asks for a new key may be ahead of the operator's.
CLOCK_SKEW = timedelta(minutes=5)


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
    still be mended, so that another is made only when someone asks for it.
    """
    if newest is None:
        return requested is not None
    if requested is not None and newest < requested:
        return True
    return every is not None and now - newest >= every


def creation_time(requested: datetime | None, now: datetime) -> datetime:
    """Give the time that a new key bears: never one before the request, which would stay open then."""
    return now if requested is None else max(now, requested)


def published(keyring: Keyring) -> list[PublicKey]:
    """Choose the public keys that people get to see: the newest."""
    return [key.public for key in keyring.newest_first()[:PUBLIC_KEYS_MAX]]


def older_keys(keyring: Keyring) -> frozenset[str]:
    """Name the keys from which values move on: all but the newest. A key that isn't here may be a newer one."""
    return frozenset(keyring.keys() - {keyring.newest.public.id}) if keyring else frozenset()


def needs_reseal(sealed: str, older: Collection[str]) -> bool:
    """Tell whether a value is sealed with one of these keys, by its text alone: of very many it is asked often."""
    return sealed.partition(".")[2].partition(".")[0] in older
