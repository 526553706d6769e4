"""The rules of the sealing keys' life: when the next is made, which are published, what is sealed anew, which may go.

Pure; imports api and sealing. No clock, no input or output: a test of a rule is a table.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from devbox_secrets.api import FIELD_MANAGER, GATEWAY_MANAGER
from devbox_secrets.sealing import Keyring, SealingKey

#: How far the clock of who asks for a new key may be ahead of the operator's.
CLOCKS_APART = timedelta(minutes=5)
#: Public keys in the ConfigMap. It holds 1 MiB, 600 keys of 1.7 kB; and whoever seals reads all of it.
PUBLISHED = 100
#: AccountSecrets that a refusal names.
NAMED = 10


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


def older(keyring: Keyring) -> frozenset[str]:
    """Name the keys from which values move on: all but the newest. A key that isn't here may be a newer one."""
    return frozenset(keyring.keys() - {keyring.newest.public.id}) if keyring else frozenset()


def is_behind(sealed: str, older_keys: Collection[str]) -> bool:
    """Tell whether a value is sealed with one of these keys, by its text alone: of very many it is asked often."""
    return sealed.partition(".")[2].partition(".")[0] in older_keys


def is_without_copy(holders: Collection[str | None]) -> bool:
    """Tell by the field managers that hold a sealed value whether nobody else has it and would put it back.

    The gateway throws it away; what the operator holds it has sealed anew. Everyone else may have it in a file.
    """
    return bool(holders) and set(holders) <= {GATEWAY_MANAGER, FIELD_MANAGER}


class KeyState(StrEnum):
    """What a sealing key is at the moment."""

    NEWEST = "newest"
    """New values are sealed with it."""
    OLDER = "older"
    """It opens what was sealed with it."""
    DAMAGED = "damaged"
    """It's stored, and can't be read."""
    MISSING = "missing"
    """AccountSecrets are sealed with it, and it isn't here."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A sealing key as people see it in a list."""

    id: str
    state: KeyState
    created: datetime | None
    used_by: int | None
    """How many AccountSecrets are sealed with it; None where that can't be seen."""


def overview(
    newest: str | None,
    created: Mapping[str, datetime | None],
    damaged: Collection[str],
    used: Mapping[str, Collection[str]] | None,
) -> list[KeyRow]:
    """List the keys that are here, and those that are needed and aren't; the newest first.

    `created` says when each usable key was made, None where that can't be seen.
    """

    def state(key_id: str) -> KeyState:
        if key_id in created:
            return KeyState.NEWEST if key_id == newest else KeyState.OLDER
        return KeyState.DAMAGED if key_id in damaged else KeyState.MISSING

    def order(row: KeyRow) -> tuple[bool, float, str]:
        return row.state is not KeyState.NEWEST, -row.created.timestamp() if row.created else 0, row.id

    ids = {*created, *damaged, *(used or {})}
    rows = [
        KeyRow(each, state(each), created.get(each), None if used is None else len(used.get(each, ()))) for each in ids
    ]
    return sorted(rows, key=order)


def removable(keyring: Keyring, used: Mapping[str, Collection[str]]) -> list[str]:
    """Name the keys that nothing needs, the newest first; the newest of all is for the next value."""
    return [key.public.id for key in keyring.newest_first()[1:] if not used.get(key.public.id)]


def why_not_removable(
    key_id: str, stored: Collection[str], newest: str | None, used: Mapping[str, Sequence[str]]
) -> str | None:
    """Say why a key must stay, or that it isn't here; None when it may go."""
    if key_id not in stored:
        return f"there is no sealing key {key_id}; `devbox-secrets keys list` shows those that there are"
    if key_id == newest:
        return f"{key_id} is the newest key, with which values are sealed; make the next: devbox-secrets keys rotate"
    by = sorted(used.get(key_id, ()))
    if not by:
        return None
    more = f" and {len(by) - NAMED} more" if len(by) > NAMED else ""
    return (
        f"{key_id} opens {len(by)} AccountSecret{'s' * (len(by) > 1)}: {', '.join(by[:NAMED])}{more};"
        " seal their values again first: those in files with devbox-secrets reseal, others with"
        " devbox-secrets update NAME; the operator does so with the gateway's"
    )
