"""The rules of the sealing keys' life: when the next is made, which are published, which may go.

Pure; imports sealing. No clock, no input or output: a test of a rule is a table.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from devbox_secrets.sealing import Keyring, SealingKey

#: How far the clock of who asks for a new key may be ahead of the operator's.
CLOCKS_APART = timedelta(minutes=5)
#: Public keys in the ConfigMap. It holds 1 MiB, 600 keys of 1.7 kB; and whoever seals reads all of it.
PUBLISHED = 100


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked of the leader: a newest key that is no older than `since`; or why it isn't done."""

    since: datetime | None = None
    refusal: str | None = None


def read_request(text: str | None, now: datetime) -> Request:
    """Read the annotation that asks for a new key: an RFC 3339 time that has come.

    A clock that is a little ahead is no matter; a time far ahead waits until then, so that a typing
    error can't date a key into the next century.
    """
    if text is None:
        return Request()
    try:
        since = datetime.fromisoformat(text)
        if since.tzinfo is None:
            raise ValueError("a time without its zone")  # noqa: TRY301 - as any other that can't be used
        since = since.astimezone(UTC)
    except (ValueError, OverflowError):
        return Request(refusal="it isn't a time with its zone, such as 2026-01-31T12:00:00Z")
    if since > now + CLOCKS_APART:
        return Request(refusal=f"it lies ahead: by the operator's clock it is {now:%Y-%m-%dT%H:%M:%SZ}")
    return Request(since)


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


def dated(requested: datetime | None, now: datetime) -> datetime:
    """Give the time that a new key bears: never one before the request, which would stay open then."""
    return now if requested is None else max(now, requested)


def published(keyring: Keyring) -> list[SealingKey]:
    """Choose the public keys that people get to see: the newest."""
    return [key.public for key in keyring.newest_first()[:PUBLISHED]]
