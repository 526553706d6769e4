"""An AccountSecret as the contract sees it, read from an object or from a table's row. Pure.

Kubernetes stores times in seconds. The gateway annotates its own writes with milliseconds; for other writes, the time
that the API server recorded is used.

An idempotency key is an HMAC over a request's x-request-id, operation and value. Everyone who can read AccountSecrets
sees it, so it must not allow guessing the value, however short the value is. The key of the HMAC must be the same in
every replica and after a restart, and the gateway itself has no secret. So the key is the caller's token: all retries
of a request carry the same token, and nobody else knows it. x-request-id is no substitute: users choose it, and
proxies create and log it.
"""

import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import SecretBytes

from devbox_secrets.api.models import read_status
from devbox_secrets.api.names import (
    FIELD_MANAGER,
    GATEWAY_CREATED_ANNOTATION,
    GATEWAY_FIELD_MANAGER,
    GATEWAY_REQUESTS_ANNOTATION,
    GATEWAY_UPDATED_ANNOTATION,
)
from devbox_secrets.api.ownership import owners_of_sealed, precedence
from devbox_secrets.gateway.contract.ids import SecretId
from devbox_secrets.gateway.contract.responses import SecretView

Body = dict[str, Any]

#: Columns of the CRD's table: the variable, and whether devboxes get it from the object.
_VARIABLE_COLUMN = "Variable"
_READY_COLUMN = "Ready"
#: Maximum skew between the gateway's clock and the API server's; an annotation further off was copied from elsewhere.
_MAX_SKEW_MS = 60_000
#: How many idempotency keys an object keeps; a retry comes within seconds.
_MAX_IDEMPOTENCY_KEYS = 16
_IDEMPOTENCY_KEY_DIGITS = 16
_MILLISECONDS = re.compile("[0-9]{1,14}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Record:
    """One AccountSecret, without its value. Fields that lists aren't sorted by are parsed only on access."""

    id: SecretId
    variable: str
    metadata: Body = field(repr=False)
    is_ready: bool = field(default=False, compare=False)
    """Whether the status says that devboxes get the variable from this object."""

    @property
    def precedence(self) -> tuple[str, str]:
        """Sort key for the AccountSecrets of one variable: devboxes get the value of the first."""
        return precedence(self.metadata["creationTimestamp"], self.metadata["uid"])

    @property
    def updated_ms(self) -> int:
        """When the value was last written."""
        return max(self.id.created_ms, _updated(self.metadata))

    @property
    def resource_version(self) -> str:
        """The resourceVersion of the object that was read."""
        return str(self.metadata["resourceVersion"])

    @property
    def generation(self) -> int:
        """The generation of the object that was read."""
        return int(self.metadata["generation"])

    @property
    def idempotency_keys(self) -> tuple[str, ...]:
        """The keys of the requests that wrote it, newest last."""
        return tuple(_annotations(self.metadata).get(GATEWAY_REQUESTS_ANNOTATION, "").split())

    @property
    def view(self) -> SecretView:
        """The secret as a response shows it."""
        return SecretView(
            id=self.id.text,
            name=self.variable,
            create_time_ms=self.id.created_ms,
            update_time_ms=self.updated_ms,
        )


def read_object(body: Body) -> Record:
    """Parse an AccountSecret, whatever spec and status an older or modified CRD accepted."""
    spec, (status, _) = body.get("spec"), read_status(body.get("status"))
    is_ready = status.ready is not None and status.ready.holds
    return _parse(body["metadata"], spec.get("name") if isinstance(spec, dict) else None, is_ready=is_ready)


def read_table(table: Body) -> Iterator[Record]:
    """Parse a table of AccountSecrets with their metadata; it has no sealed values."""
    columns = [column["name"] for column in table["columnDefinitions"]]
    variable, ready = columns.index(_VARIABLE_COLUMN), columns.index(_READY_COLUMN)
    for row in table.get("rows") or ():
        cells = row["cells"]
        yield _parse(row["object"]["metadata"], cells[variable], is_ready=cells[ready] == "True")


def idempotency_key(request_id: str | None, token: str, operation: str, value: SecretBytes) -> str | None:
    """Return the key that identifies retries of a write, or None without a request id.

    The key depends on the operation, the value and the token.
    """
    if not request_id:
        return None
    # Unambiguous, since neither a header nor an operation contains a NUL.
    request = b"\0".join((request_id.encode(), operation.encode(), value.get_secret_value()))
    return hmac.digest(token.encode(), request, "sha256").hex()[:_IDEMPOTENCY_KEY_DIGITS]


def creation_annotations(now_ms: int, key: str | None) -> dict[str, str]:
    """Return the annotations of an AccountSecret that the gateway creates."""
    return {GATEWAY_CREATED_ANNOTATION: str(now_ms), **update_annotations(now_ms, (), key)}


def update_annotations(now_ms: int, keys: tuple[str, ...], key: str | None) -> dict[str, str]:
    """Return the annotations for a new value; `key` is added to the object's idempotency keys."""
    kept = [*keys, *([key] if key else [])][-_MAX_IDEMPOTENCY_KEYS:]
    return {GATEWAY_UPDATED_ANNOTATION: str(now_ms), GATEWAY_REQUESTS_ANNOTATION: " ".join(kept)}


def _parse(metadata: Body, variable: object, *, is_ready: bool = False) -> Record:
    """Parse an object; a name that isn't text, which an older or modified CRD accepted, is read as empty."""
    created = _milliseconds(metadata["creationTimestamp"])
    annotated = _annotated_ms(metadata, GATEWAY_CREATED_ANNOTATION)
    if annotated is not None and abs(annotated - created) <= _MAX_SKEW_MS:
        created = annotated
    name = variable if isinstance(variable, str) else ""
    return Record(SecretId(created, UUID(metadata["uid"]), metadata["name"]), name, metadata, is_ready)


def _updated(metadata: Body) -> int:
    """Return when the current owner last wrote the value.

    The operator owns a value that it has resealed, but the value is still the one that the gateway wrote.
    """
    owners = [(_written_ms(entry), entry.get("manager", "")) for entry in owners_of_sealed(metadata)]
    written, owner = max(owners, default=(0, ""))
    annotated = _annotated_ms(metadata, GATEWAY_UPDATED_ANNOTATION)
    return annotated if annotated is not None and owner in {GATEWAY_FIELD_MANAGER, FIELD_MANAGER} else written


def _annotations(metadata: Body) -> dict[str, str]:
    return metadata.get("annotations") or {}


def _annotated_ms(metadata: Body, name: str) -> int | None:
    """Parse an annotation in milliseconds; users can write anything there."""
    text = _annotations(metadata).get(name, "")
    return int(text) if _MILLISECONDS.fullmatch(text) else None


def _written_ms(entry: Mapping[str, Any]) -> int:
    """Return when a field manager last wrote, or 0 if unknown; users can write any time there."""
    try:
        return _milliseconds(entry.get("time") or "")
    except (ValueError, OverflowError):
        return 0


def _milliseconds(timestamp: str) -> int:
    return round(datetime.fromisoformat(timestamp).timestamp() * 1000)
