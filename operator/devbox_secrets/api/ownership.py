"""Who owns an AccountSecret's value: which of two owns a variable, and which field managers own `spec.sealed`."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from devbox_secrets.api.names import FIELD_MANAGER, GATEWAY_FIELD_MANAGER


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
