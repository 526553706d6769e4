"""Who owns what: a variable, `spec.sealed`, and an account Secret. Field managers tell who wrote something."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from devbox_secrets.api.names import CREATE_FIELD_MANAGER, FIELD_MANAGER, GATEWAY_FIELD_MANAGER

#: How far the clocks of two API servers may be apart.
_CLOCK_SKEW = timedelta(minutes=1)


def precedence(created: str, uid: str) -> tuple[str, str]:
    """Give what sorts AccountSecrets of one variable: the first owns it, which is the oldest.

    `created` is RFC 3339, UTC, to the second, as Kubernetes writes it. Of two of the same second it's always the
    same one.
    """
    return created, uid


def owners_of_sealed(metadata: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give those entries of an AccountSecret's managedFields that hold `spec.sealed`."""
    for entry in metadata.get("managedFields") or ():
        if "f:sealed" in ((entry.get("fieldsV1") or {}).get("f:spec") or {}):
            yield entry


def is_without_copy(owners: Collection[str | None]) -> bool:
    """Tell by the field managers that own a sealed value whether nobody else has it and would put it back.

    The gateway keeps none; what the operator owns it has resealed. Anyone else may have it in a file.
    """
    return bool(owners) and set(owners) <= {GATEWAY_FIELD_MANAGER, FIELD_MANAGER}


def is_ours(metadata: Mapping[str, Any]) -> bool:
    """Tell whether the operator wrote this account Secret: it applied it, or created it and nobody else wrote.

    A copy isn't ours, whatever labels it carries. Backup tools restore managedFields, too; what these tell of then
    was written before the Secret was created.
    """
    entries = metadata.get("managedFields") or []
    writers = {(entry.get("manager"), entry.get("operation")) for entry in entries}
    wanted = (FIELD_MANAGER, "Apply")
    if writers == {(CREATE_FIELD_MANAGER, "Apply")}:
        wanted = (CREATE_FIELD_MANAGER, "Apply")
    created = metadata["creationTimestamp"]
    return any(
        (entry.get("manager"), entry.get("operation")) == wanted and not _is_before(entry.get("time") or "", created)
        for entry in entries
    )


def unchanged_fields(metadata: Mapping[str, Any], *path: str) -> frozenset[str]:
    """Name the fields below a path, such as `data`, that the operator applied and nobody else wrote since."""
    ours: set[str] = set()
    others: set[str] = set()
    for entry in metadata.get("managedFields") or ():
        fields = entry.get("fieldsV1") or {}
        for name in path:
            fields = fields.get(f"f:{name}") or {}
        is_applied = (entry.get("manager"), entry.get("operation")) == (FIELD_MANAGER, "Apply")
        (ours if is_applied else others).update(fields)
    return frozenset(name.removeprefix("f:") for name in ours - others)


def _is_before(time: str, created: str) -> bool:
    """Compare times in RFC 3339, UTC, to the second; one that can't be read is before."""
    if time >= created:  # as text: so it nearly always is
        return False
    try:
        return datetime.fromisoformat(time) < datetime.fromisoformat(created) - _CLOCK_SKEW
    except (ValueError, TypeError, OverflowError):
        return True
