"""An AccountSecret as the contract sees it, read from an object or from a table's row. Pure; imports api, ids, views.

Kubernetes keeps times to the second. What the gateway writes it annotates with milliseconds; what someone else
wrote has the time that the API server noted.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from devbox_secrets.api import (
    FIELD_MANAGER,
    GATEWAY_CREATED_ANNOTATION,
    GATEWAY_MANAGER,
    GATEWAY_REQUESTS_ANNOTATION,
    GATEWAY_UPDATED_ANNOTATION,
    holders_of_sealed,
)
from devbox_secrets.gateway.ids import SecretId
from devbox_secrets.gateway.views import SecretView

Body = dict[str, Any]

#: The column of the CRD's table that holds the variable.
_VARIABLE = "Variable"
#: How far the gateway's clock may be from the API server's; a note further off was copied from elsewhere.
_SKEW_MS = 60_000
#: How many requests an object remembers; a retry comes within seconds.
_REQUESTS = 16


@dataclass(frozen=True, slots=True)
class Record:
    """One AccountSecret, without its value. What a list isn't sorted by is read when it is asked for."""

    id: SecretId
    variable: str
    metadata: Body = field(repr=False)

    @property
    def age(self) -> tuple[str, str]:
        """Sorts the oldest first, as plan.py does for those that share a variable."""
        return self.metadata["creationTimestamp"], self.metadata["uid"]

    @property
    def updated_ms(self) -> int:
        """When the value was last written."""
        return max(self.id.created_ms, _updated(self.metadata))

    @property
    def resource_version(self) -> str:
        """The state that was read."""
        return str(self.metadata["resourceVersion"])

    @property
    def generation(self) -> int:
        """The state of its spec that was read."""
        return int(self.metadata["generation"])

    @property
    def requests(self) -> tuple[str, ...]:
        """Marks of the requests that wrote it, the newest last."""
        return tuple(_notes(self.metadata).get(GATEWAY_REQUESTS_ANNOTATION, "").split())

    @property
    def view(self) -> SecretView:
        """Give what the contract shows of it."""
        return SecretView(
            id=str(self.id),
            name=self.variable,
            create_time_ms=self.id.created_ms,
            update_time_ms=self.updated_ms,
        )


def read_object(body: Body) -> Record:
    """Read a whole AccountSecret."""
    return _read(body["metadata"], body["spec"]["name"])


def read_table(table: Body) -> Iterator[Record]:
    """Read a table of AccountSecrets, whose rows bear their metadata: it holds no sealed values."""
    columns = [column["name"] for column in table["columnDefinitions"]]
    at = columns.index(_VARIABLE)
    for row in table.get("rows") or ():
        yield _read(row["object"]["metadata"], row["cells"][at])


def mark_of(request_id: str | None, what: str) -> str | None:
    """Give the mark by which a request's retry is known; `what` keeps another call of the same id apart."""
    if not request_id:
        return None
    return hashlib.sha256(f"{what}\0{request_id}".encode(errors="replace")).hexdigest()[:16]


def notes_of_creation(now_ms: int, mark: str | None) -> dict[str, str]:
    """Give the annotations of an AccountSecret that the gateway makes."""
    return {GATEWAY_CREATED_ANNOTATION: str(now_ms), **notes_of_update(now_ms, (), mark)}


def notes_of_update(now_ms: int, requests: tuple[str, ...], mark: str | None) -> dict[str, str]:
    """Give the annotations that go with a new value."""
    marks = [*requests, *([mark] if mark else [])][-_REQUESTS:]
    return {GATEWAY_UPDATED_ANNOTATION: str(now_ms), GATEWAY_REQUESTS_ANNOTATION: " ".join(marks)}


def _read(metadata: Body, variable: str) -> Record:
    created = _milliseconds(metadata["creationTimestamp"])
    noted = _noted(metadata, GATEWAY_CREATED_ANNOTATION)
    if noted is not None and abs(noted - created) <= _SKEW_MS:
        created = noted
    return Record(SecretId(created, UUID(metadata["uid"]), metadata["name"]), variable, metadata)


def _updated(metadata: Body) -> int:
    """Tell when the value was last written, by who owns it now.

    What the operator owns it has re-sealed: the value is still the one that the gateway took.
    """
    owners = [
        (_milliseconds(entry["time"]), entry["manager"]) for entry in holders_of_sealed(metadata) if "time" in entry
    ]
    written, owner = max(owners, default=(0, ""))
    noted = _noted(metadata, GATEWAY_UPDATED_ANNOTATION)
    return noted if noted is not None and owner in {GATEWAY_MANAGER, FIELD_MANAGER} else written


def _notes(metadata: Body) -> dict[str, str]:
    return metadata.get("annotations") or {}


def _noted(metadata: Body, name: str) -> int | None:
    """Read milliseconds; people can write there what they like."""
    text = _notes(metadata).get(name, "")
    return int(text) if re.fullmatch("[0-9]{1,14}", text, re.ASCII) else None


def _milliseconds(timestamp: str) -> int:
    return round(datetime.fromisoformat(timestamp).timestamp() * 1000)
