"""The AccountSecret's models: spec, status, conditions, and the reasons of the condition Ready.

The CRD is generated from these models (crd.py), so what they say is what the API server enforces.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
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
    """Why an AccountSecret is Ready, or isn't."""

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
    """The operator hasn't looked yet: the CRD's default."""


def _check_time(time: str) -> str:
    """Refuse what only looks like a time: a month 13, or the year 0."""
    datetime.fromisoformat(time)
    return time


#: RFC 3339, UTC, to the second, as Kubernetes writes it: sorts as text. Not the format `date-time`, with which the API
#: server accepts arrays as well.
Time = Annotated[
    str,
    Field(max_length=20, pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"),
    AfterValidator(_check_time),
]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True)


class AccountSecretSpec(_Model):
    """One environment variable of every devbox of the account."""

    # Each rule stands on the spec, not on its field: the API server repeats a field's own value
    # in the error, and what was pasted there may be a plain-text secret.
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
                    "message": "can't be changed: delete this AccountSecret and create another with the new name",
                },
                {
                    "rule": f"size(self.sealed) >= {SEALED_MIN_LENGTH} && self.sealed.matches('{SEALED_PATTERN}')",
                    "fieldPath": ".sealed",
                    "message": "is not a sealed value; seal it first: devbox-secrets seal NAME",
                    "messageExpression": "self.sealed.trim().startsWith('dbs1.') && self.sealed.matches('[[:space:]]')"
                    " ? 'has white space or a line break in it; write it as one line without white space'"
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
            description="The environment variable's name, unique in the account. It can't be changed.",
        ),
    ]
    sealed: Annotated[
        str,
        Field(
            max_length=SEALED_MAX_LENGTH,
            repr=False,
            description="The sealed value, as `devbox-secrets seal` prints it. It opens for this"
            " account and name alone.",
        ),
    ]
    description: Annotated[
        str | None, Field(max_length=DESCRIPTION_MAX_LENGTH, description="What the secret is for.")
    ] = None
    rotate_after: Annotated[
        str | None,
        Field(
            max_length=6,
            description="How old the value may become before it should be changed, such as 90d, 12h or 30m:"
            " then the condition RotationDue is True.",
        ),
    ] = None


class Condition(_Model):
    """A condition as Kubernetes' API conventions have it (metav1.Condition)."""

    type: Annotated[str, Field(max_length=316, description="What the condition is about.")]
    status: Annotated[
        str,
        Field(
            description="Whether it holds.",
            json_schema_extra={"enum": ["True", "False", "Unknown"]},
        ),
    ]
    reason: Annotated[str, Field(max_length=1024, description="Why, in one word.")]
    message: Annotated[str, Field(max_length=32768, description="Why, in a sentence, and what to do about it.")]
    last_transition_time: Annotated[Time, Field(description="When the status last changed.")]
    observed_generation: Annotated[
        int | None,
        Field(
            description="The generation of the object that the condition was set for.",
            json_schema_extra={"format": "int64"},
        ),
    ] = None

    @property
    def holds(self) -> bool:
        """Whether it holds."""
        return self.status == "True"


#: The condition Ready before the operator has looked.
PENDING = Condition(
    type="Ready",
    status="Unknown",
    reason=Reason.PENDING,
    message="the operator hasn't looked at it yet",
    last_transition_time="1970-01-01T00:00:00Z",
    observed_generation=-1,
)


class AccountSecretStatus(_Model):
    """What the operator made of the AccountSecret."""

    observed_generation: Annotated[
        int,
        Field(
            description="The generation of the object that this status is about; -1 before the operator has looked.",
            json_schema_extra={"format": "int64"},
        ),
    ] = -1
    key_id: Annotated[
        str | None,
        Field(max_length=16, description="The sealing key that the sealed value needs."),
    ] = None
    changed_at: Annotated[
        Time | None,
        Field(description="When the value last changed: a devbox started later has the current one."),
    ] = None
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            description="Ready says whether devboxes get the variable; RotationDue, whether the value is older"
            " than rotateAfter allows.",
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = (PENDING,)

    @property
    def ready(self) -> Condition | None:
        """The condition Ready, once the operator has looked."""
        ready = self._condition("Ready")
        return None if ready is None or ready.reason == Reason.PENDING else ready

    @property
    def rotation_due(self) -> Condition | None:
        """The condition RotationDue, where the spec has a `rotateAfter`."""
        return self._condition("RotationDue")

    @property
    def overdue(self) -> bool:
        """Whether it says that the value is older than `rotateAfter` allows."""
        return self.rotation_due is not None and self.rotation_due.holds

    def is_synced(self, generation: int) -> bool:
        """Tell whether it says of this generation that devboxes have its value."""
        return self.observed_generation == generation and self.ready is not None and self.ready.holds

    def decided(self, generation: int) -> Condition | None:
        """The condition Ready, once it speaks of this generation or a later one and time alone doesn't change it."""
        ready = self.ready
        if ready is None or self.observed_generation < generation:
            return None
        return None if ready.reason == Reason.NOT_WRITTEN else ready  # that is tried again and again

    def _condition(self, kind: str) -> Condition | None:
        return next((condition for condition in self.conditions if condition.type == kind), None)


@dataclass(frozen=True, slots=True)
class AccountSecret:
    """An AccountSecret as the API server has it, as far as anything depends on it."""

    uid: str
    namespace: str
    name: str
    created: str
    """RFC 3339, UTC, to the second, as Kubernetes writes it: sorts as text."""
    generation: int
    resource_version: str
    spec: AccountSecretSpec
    status: AccountSecretStatus
    without_copy: bool
    """Whether its sealed value is nowhere else, such as in Git."""
    deleting: bool = False
    """Whether it was deleted and only a finalizer still holds it."""
    damaged: tuple[str, ...] = ()
    """The fields that can't be read, such as `spec.name`; each is read as if it weren't set."""

    @property
    def invalid_spec(self) -> str | None:
        """Say what is wrong where a field of the spec can't be read; a damaged status is only written again."""
        fields = [field for field in self.damaged if field.startswith("spec")]
        if not fields:
            return None
        return (
            f"{', '.join(fields)} can't be read: an older or edited CRD accepted it. Correct it (kubectl explain"
            " accountsecret.spec), or delete this AccountSecret and create it again"
        )

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> "AccountSecret":
        """Read the API server's JSON, whatever an older or edited CRD let into spec and status."""
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
    """Read a status; one that is damaged says nothing. Give also which of its fields can't be read."""
    try:
        return AccountSecretStatus.model_validate(raw or {}), ()
    except ValidationError as error:
        return AccountSecretStatus(), _damaged("status", error)


def _read_spec(raw: object) -> tuple[AccountSecretSpec, tuple[str, ...]]:
    """Read those fields of a spec that can be read, and give the others' names."""
    damaged: tuple[str, ...] = ()
    try:
        spec = AccountSecretSpec.model_validate(raw)
    except ValidationError as error:
        damaged = _damaged("spec", error)
        readable = raw.items() if isinstance(raw, Mapping) else ()
        fields = {name: value for name, value in readable if f"spec.{name}" not in damaged}
        spec = AccountSecretSpec.model_validate({"name": "", "sealed": "", **fields})
    # What stands in the CRD as rules of the spec.
    if not re.fullmatch(VARIABLE_PATTERN, spec.name, re.ASCII):
        spec, damaged = spec.model_copy(update={"name": ""}), (*damaged, "spec.name")
    if spec.rotate_after is not None and not re.fullmatch(ROTATE_AFTER_PATTERN, spec.rotate_after, re.ASCII):
        spec, damaged = spec.model_copy(update={"rotate_after": None}), (*damaged, "spec.rotateAfter")
    return spec, tuple(sorted(set(damaged)))


def _damaged(where: str, error: ValidationError) -> tuple[str, ...]:
    """Name the fields that an error is about; never what is in them."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    fields = {f"{where}.{each['loc'][0]}" for each in found if each["loc"]}
    return tuple(sorted(fields)) or (where,)


@lru_cache(maxsize=1024)
def _shared(status: AccountSecretStatus) -> AccountSecretStatus:
    """Give the same object for equal statuses: most are, and each would take 2 KB."""
    return status
