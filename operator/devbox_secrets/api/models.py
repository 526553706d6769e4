"""The AccountSecret's models: spec, status, conditions, and the reasons of the condition Ready.

The CRD is generated from these models (crd.py), so the API server enforces them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from devbox_secrets.api.ownership import is_without_copy, owners_of_sealed
from devbox_secrets.api.validation import (
    DESCRIPTION_MAX_LENGTH,
    ROTATE_AFTER_PATTERN,
    SEALED_MAX_LENGTH,
    SEALED_MIN_LENGTH,
    SEALED_PATTERN,
    VARIABLE_MAX_LENGTH,
    VARIABLE_PATTERN,
)


class Reason(StrEnum):
    """The reasons of the condition Ready."""

    SYNCED = "Synced"
    NAME_CONFLICT = "NameConflict"
    RESERVED_NAME = "ReservedName"
    UNKNOWN_KEY = "UnknownKey"
    CANNOT_OPEN = "CannotOpen"
    INVALID_VALUE = "InvalidValue"
    TOO_LARGE = "TooLarge"
    NOT_OWNED = "NotOwned"
    NOT_WRITTEN = "NotWritten"
    WRONG_NAMESPACE = "WrongNamespace"
    INVALID_SPEC = "InvalidSpec"
    DELETING = "Deleting"
    PENDING = "Pending"
    """The operator hasn't processed the AccountSecret yet: the CRD's default."""


def _check_time(time: str) -> str:
    """Reject what only looks like a time, such as month 13 or year 0."""
    datetime.fromisoformat(time)
    return time


#: RFC 3339, UTC, in seconds, as Kubernetes writes it; sorts as text. Not the format `date-time`, since the API server
#: would also accept arrays.
Time = Annotated[
    str,
    Field(max_length=20, pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"),
    AfterValidator(_check_time),
]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True)


class AccountSecretSpec(_Model):
    """The environment variable and its sealed value."""

    # Each rule is on the spec, not on its field: the API server repeats a field's value in the error,
    # and someone may have pasted a plain-text secret there.
    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": f"self.name.matches('{VARIABLE_PATTERN}')",
                    "fieldPath": ".name",
                    "message": "must be the name of an environment variable: letters, digits and _,"
                    " not starting with a digit, such as GITHUB_TOKEN",
                },
                {
                    "rule": "self.name == oldSelf.name",
                    "fieldPath": ".name",
                    "message": "is immutable; delete this AccountSecret and create one with the new name",
                },
                {
                    "rule": f"size(self.sealed) >= {SEALED_MIN_LENGTH} && self.sealed.matches('{SEALED_PATTERN}')",
                    "fieldPath": ".sealed",
                    "message": "is not a sealed value; seal it first: devbox-secrets seal NAME",
                    "messageExpression": "self.sealed.trim().startsWith('dbs1.') && self.sealed.matches('[[:space:]]')"
                    " ? 'contains whitespace or a line break; write it on one line without whitespace'"
                    " : 'is not a sealed value; seal it first: devbox-secrets seal ' + self.name",
                },
                {
                    "rule": f"!has(self.rotateAfter) || self.rotateAfter.matches('{ROTATE_AFTER_PATTERN}')",
                    "fieldPath": ".rotateAfter",
                    "message": "must be a number of days, hours or minutes, such as 90d or 12h",
                },
            ]
        }
    )

    name: Annotated[
        str,
        Field(
            max_length=VARIABLE_MAX_LENGTH,
            description="The name of the environment variable, such as GITHUB_TOKEN: letters, digits and _, not"
            " starting with a digit. It can't be changed, and must be unique in the account: if two AccountSecrets have"
            " the same name, only the older one is used. Names that could run code in every devbox or break it, such as"
            " PATH, are reserved: the AccountSecret isn't Ready unless the operator allows the name.",
        ),
    ]
    sealed: Annotated[
        str,
        Field(
            max_length=SEALED_MAX_LENGTH,
            repr=False,
            description="The sealed value: the text dbs1.KEY_ID.PAYLOAD on one line, as printed by `devbox-secrets"
            " seal`. It can be decrypted only for this namespace and name, so a copy elsewhere isn't Ready. A"
            " plain-text value is rejected.",
        ),
    ]
    description: Annotated[
        str | None,
        Field(
            max_length=DESCRIPTION_MAX_LENGTH,
            description="What the secret is for, in up to 1,024 characters. It isn't encrypted.",
        ),
    ] = None
    rotate_after: Annotated[
        str | None,
        Field(
            max_length=6,
            description="The maximum age of the value in days, hours or minutes, such as 90d, 12h or 30m. When the"
            " value is older, the condition RotationDue is True; devboxes keep the value.",
        ),
    ] = None


class Condition(_Model):
    """A condition of the AccountSecret, as defined by metav1.Condition."""

    type: Annotated[str, Field(max_length=316, description="The type of the condition: Ready or RotationDue.")]
    status: Annotated[
        str,
        Field(
            description="The status of the condition: True, False or Unknown.",
            json_schema_extra={"enum": ["True", "False", "Unknown"]},
        ),
    ]
    reason: Annotated[
        str, Field(max_length=1024, description="The reason for the status, in one word, such as Synced or UnknownKey.")
    ]
    message: Annotated[str, Field(max_length=32768, description="An explanation of the status, and what to do.")]
    last_transition_time: Annotated[Time, Field(description="When the status last changed.")]
    observed_generation: Annotated[
        int | None,
        Field(
            description="The generation of the AccountSecret that the condition refers to.",
            json_schema_extra={"format": "int64"},
        ),
    ] = None

    @property
    def holds(self) -> bool:
        """Whether the status is True."""
        return self.status == "True"


#: The condition Ready before the operator has processed an AccountSecret.
PENDING = Condition(
    type="Ready",
    status="Unknown",
    reason=Reason.PENDING,
    message="the operator hasn't processed the AccountSecret yet",
    last_transition_time="1970-01-01T00:00:00Z",
    observed_generation=-1,
)


class AccountSecretStatus(_Model):
    """The observed state of the AccountSecret."""

    observed_generation: Annotated[
        int,
        Field(
            description="The generation of the AccountSecret that the status refers to; -1 until the operator has"
            " processed it.",
            json_schema_extra={"format": "int64"},
        ),
    ] = -1
    key_id: Annotated[
        str | None,
        Field(
            max_length=16,
            description="The ID of the sealing key that decrypts the value; `devbox-secrets keys list` lists the keys.",
        ),
    ] = None
    changed_at: Annotated[
        Time | None,
        Field(description="When the value last changed. Containers that started later have the current value."),
    ] = None
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            description="Ready: whether devboxes get the variable. RotationDue: whether the value is older than"
            " rotateAfter allows.",
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = (PENDING,)

    @property
    def ready(self) -> Condition | None:
        """The condition Ready, or None before the operator has processed the AccountSecret."""
        ready = self._condition("Ready")
        return None if ready is None or ready.reason == Reason.PENDING else ready

    @property
    def rotation_due(self) -> Condition | None:
        """The condition RotationDue, or None if the spec has no `rotateAfter`."""
        return self._condition("RotationDue")

    @property
    def overdue(self) -> bool:
        """Whether the value is older than `rotateAfter` allows, according to the status."""
        return self.rotation_due is not None and self.rotation_due.holds

    def is_synced(self, generation: int) -> bool:
        """Return whether the status says that devboxes have the value of this generation."""
        return self.observed_generation == generation and self.ready is not None and self.ready.holds

    def decided(self, generation: int) -> Condition | None:
        """Return the condition Ready if it is final for this generation or a later one, else None."""
        ready = self.ready
        if ready is None or self.observed_generation < generation:
            return None
        return None if ready.reason == Reason.NOT_WRITTEN else ready  # the operator keeps retrying

    def _condition(self, kind: str) -> Condition | None:
        return next((condition for condition in self.conditions if condition.type == kind), None)


@dataclass(frozen=True, slots=True)
class AccountSecret:
    """An AccountSecret from the API server, reduced to the fields that are used."""

    uid: str
    namespace: str
    name: str
    created: str
    """RFC 3339, UTC, in seconds, as Kubernetes writes it; sorts as text."""
    generation: int
    resource_version: str
    spec: AccountSecretSpec
    status: AccountSecretStatus
    without_copy: bool
    """Whether its sealed value exists nowhere else, for example in Git."""
    deleting: bool = False
    """Whether it was deleted but has a finalizer."""
    damaged: tuple[str, ...] = ()
    """The invalid fields, such as `spec.name`; each is read as if it weren't set."""

    @property
    def invalid_spec(self) -> str | None:
        """What is wrong with invalid fields of the spec, or None; an invalid status is simply written again."""
        fields = [field for field in self.damaged if field.startswith("spec")]
        if not fields:
            return None
        return (
            f"invalid {', '.join(fields)}, accepted by an older or modified CRD; correct it (see kubectl explain"
            " accountsecret.spec), or delete and recreate the AccountSecret"
        )

    def with_status(self, status: AccountSecretStatus, resource_version: str) -> "AccountSecret":
        """Return its state after this status was written."""
        damaged = tuple(field for field in self.damaged if field.startswith("spec"))
        return replace(self, status=_shared(status), resource_version=resource_version, damaged=damaged)

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> "AccountSecret":
        """Parse the API server's JSON, whatever spec and status an older or modified CRD accepted."""
        metadata = body["metadata"]
        spec, damaged_spec = _read_spec(body.get("spec"))
        status, damaged_status = read_status(body.get("status"))
        return cls(
            uid=metadata["uid"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            created=metadata["creationTimestamp"],
            generation=metadata["generation"],
            resource_version=metadata["resourceVersion"],
            spec=spec,
            status=_shared(status),
            without_copy=is_without_copy({entry.get("manager") for entry in owners_of_sealed(metadata)}),
            deleting="deletionTimestamp" in metadata,
            damaged=damaged_spec + damaged_status,
        )


def read_status(raw: object) -> tuple[AccountSecretStatus, tuple[str, ...]]:
    """Parse a status; return it with its invalid fields. An invalid status is read as an empty one."""
    try:
        return AccountSecretStatus.model_validate(raw or {}), ()
    except ValidationError as error:
        return AccountSecretStatus(), _damaged("status", error)


def _read_spec(raw: object) -> tuple[AccountSecretSpec, tuple[str, ...]]:
    """Parse the valid fields of a spec; return it with the names of the invalid ones."""
    damaged: tuple[str, ...] = ()
    try:
        spec = AccountSecretSpec.model_validate(raw)
    except ValidationError as error:
        damaged = _damaged("spec", error)
        readable = raw.items() if isinstance(raw, Mapping) else ()
        fields = {name: value for name, value in readable if f"spec.{name}" not in damaged}
        spec = AccountSecretSpec.model_validate({"name": "", "sealed": "", **fields})
    # These are rules of the spec in the CRD.
    if not re.fullmatch(VARIABLE_PATTERN, spec.name):
        spec, damaged = spec.model_copy(update={"name": ""}), (*damaged, "spec.name")
    if spec.rotate_after is not None and not re.fullmatch(ROTATE_AFTER_PATTERN, spec.rotate_after):
        spec, damaged = spec.model_copy(update={"rotate_after": None}), (*damaged, "spec.rotateAfter")
    return spec, tuple(sorted(set(damaged)))


def _damaged(where: str, error: ValidationError) -> tuple[str, ...]:
    """Return the names of the fields in an error, never their contents."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    fields = {f"{where}.{each['loc'][0]}" for each in found if each["loc"]}
    return tuple(sorted(fields)) or (where,)


@lru_cache(maxsize=1024)
def _shared(status: AccountSecretStatus) -> AccountSecretStatus:
    """Return the same object for equal statuses: most are equal, and each would take 2 KB."""
    return status
