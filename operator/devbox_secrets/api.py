"""The API: names, the AccountSecret's models and what makes a value valid. Imports errors alone.

The CRD is generated from these models (crd.py), so what they say is what the API server enforces.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretBytes
from pydantic.alias_generators import to_camel

from devbox_secrets.errors import (
    InvalidAccount,
    InvalidDescription,
    InvalidDuration,
    InvalidName,
    InvalidValue,
    ValueTooLarge,
)

GROUP = "devbox-secrets.dev"
VERSION = "v1alpha1"
KIND = "AccountSecret"
PLURAL = "accountsecrets"

#: Names a namespace's account; a namespace without it is its own.
ACCOUNT_LABEL = f"{GROUP}/account"
#: The one native Secret of a member namespace.
ACCOUNT_SECRET = "devbox-account-secrets"  # noqa: S105 - a name
SECRET_TYPE = "Opaque"  # noqa: S105 - a type, which can't be changed
#: Who writes, in server-side apply's managedFields and in the label of what we own.
FIELD_MANAGER = "devbox-secrets"
#: Who creates an account Secret, still empty: another manager's apply takes away what it doesn't name.
CREATOR = f"{FIELD_MANAGER}-create"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
#: The chart makes both of these empty in the operator's namespace; the operator only fills them.
KEYS_SECRET = "devbox-secrets-keys"  # noqa: S105 - a name
PUBLIC_KEYS_CONFIGMAP = "devbox-secrets-public-keys"
#: On the keys' Secret, an RFC 3339 time: the newest key must not be older than that.
ROTATE_ANNOTATION = f"{GROUP}/rotate"
LEASE = "devbox-secrets"
#: Who writes through the gateway; who owns `spec.sealed` tells where its value came from.
GATEWAY_MANAGER = f"{FIELD_MANAGER}-gateway"
#: What the gateway notes on an AccountSecret: when it made it and last gave it a value, in milliseconds since 1970,
#: and the marks of the requests that did, by which a retry is known.
GATEWAY_CREATED_ANNOTATION = f"gateway.{GROUP}/created-ms"
GATEWAY_UPDATED_ANNOTATION = f"gateway.{GROUP}/updated-ms"
GATEWAY_REQUESTS_ANNOTATION = f"gateway.{GROUP}/requests"
#: The operator's namespace, unless it was installed elsewhere.
OPERATOR_NAMESPACE = "devbox-secrets"

VARIABLE_PATTERN = "^[A-Za-z_][A-Za-z0-9_]*$"
VARIABLE_MAX_LENGTH = 253  # a Secret's key can't be longer
SEALED_PATTERN = "^dbs1[.][0-9a-f]{16}[.][A-Za-z0-9_-]+$"
#: An empty value's: the prefix (22 characters) and base64url of an encapsulated key (1,120 bytes)
#: with AES-GCM's tag (16 bytes).
SEALED_MIN_LENGTH = 22 + 1515
DESCRIPTION_MAX_LENGTH = 1024
#: What names most objects (RFC 1123's subdomain, and a little more); it becomes a part of a URL.
OBJECT_NAME_PATTERN = "^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
#: What names a namespace (RFC 1123's label).
ACCOUNT_PATTERN = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
ROTATE_AFTER_PATTERN = "^[1-9][0-9]{0,4}[dhm]$"

#: Bytes of NAME=value with the NUL at its end that Linux takes (MAX_ARG_STRLEN, execve(2)).
VARIABLE_MAX_BYTES = 131_072
#: Bytes of all of a Secret's values (MaxSecretSize, Kubernetes' core/v1 types).
SECRET_MAX_BYTES = 1_048_576
#: Bytes that its variables' names may take beside them: etcd refuses an object of more than
#: 1,572,864 bytes (its --max-request-bytes), and some are for the rest of it.
SECRET_NAMES_MAX_BYTES = 500_000
#: base64url of the largest value, sealed.
SEALED_MAX_LENGTH = 22 + -(-(1120 + VARIABLE_MAX_BYTES + 16) * 4 // 3)


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
    NOT_A_HOME = "NotAHome"


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
                    "messageExpression": "'is not a sealed value; seal it first: devbox-secrets seal ' + self.name",
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
    last_transition_time: Annotated[
        str,
        Field(description="When the status last changed.", json_schema_extra={"format": "date-time"}),
    ]
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


class AccountSecretStatus(_Model):
    """What the operator made of the AccountSecret."""

    observed_generation: Annotated[
        int | None,
        Field(
            description="The generation of the object that this status is about.",
            json_schema_extra={"format": "int64"},
        ),
    ] = None
    key_id: Annotated[
        str | None,
        Field(max_length=16, description="The sealing key that the sealed value needs."),
    ] = None
    changed_at: Annotated[
        str | None,
        Field(
            description="When the value last changed: a devbox started later has the present one.",
            json_schema_extra={"format": "date-time"},
        ),
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
    ] = ()

    @property
    def ready(self) -> Condition | None:
        """The condition Ready, once there is one."""
        return self._condition("Ready")

    @property
    def rotation_due(self) -> Condition | None:
        """The condition RotationDue, where the spec has a `rotateAfter`."""
        return self._condition("RotationDue")

    @property
    def overdue(self) -> bool:
        """Whether it says that the value is older than `rotateAfter` allows."""
        return self.rotation_due is not None and self.rotation_due.holds

    def decided(self, generation: int) -> Condition | None:
        """The condition Ready, once it speaks of this generation or a later one and time alone doesn't change it."""
        ready = self.ready
        if ready is None or (self.observed_generation or 0) < generation:
            return None
        return None if ready.reason == Reason.NOT_WRITTEN else ready  # that is tried again and again

    def _condition(self, kind: str) -> Condition | None:
        return next((condition for condition in self.conditions if condition.type == kind), None)


def account_secrets_path(account: str, name: str = "") -> str:
    """Give the API server's path of an account's AccountSecrets, or of one of them."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{account}/{PLURAL}" + (f"/{name}" if name else "")


def holders_of_sealed(metadata: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give those entries of an AccountSecret's managedFields that hold `spec.sealed`."""
    for entry in metadata.get("managedFields") or ():
        if "f:sealed" in ((entry.get("fieldsV1") or {}).get("f:spec") or {}):
            yield entry


def check_variable(name: str) -> None:
    """Refuse a name that no environment variable can have.

    Raises:
        InvalidName: it isn't letters, digits and `_`, starts with a digit, or is longer than 253.
    """
    if not re.fullmatch(VARIABLE_PATTERN, name, re.ASCII):
        # What was given in the name's place may be a value: it isn't repeated.
        raise InvalidName(
            "that can't be the name of an environment variable: use letters, digits and _,"
            " not starting with a digit, such as GITHUB_TOKEN"
        )
    if len(name) > VARIABLE_MAX_LENGTH:
        raise InvalidName(f"the name has {len(name)} characters; {VARIABLE_MAX_LENGTH} is the most")


def check_account(name: str) -> None:
    """Refuse an account that no namespace can be: a value sealed for it would open nowhere.

    Raises:
        InvalidAccount: it isn't small letters, digits and `-`, or is longer than 63.
    """
    if not re.fullmatch(ACCOUNT_PATTERN, name, re.ASCII):
        raise InvalidAccount(
            f"{name!r} can't be an account, which is a namespace: use up to 63 small letters, digits"
            " and -, such as team-a"
        )


def check_description(text: str | None) -> None:
    """Refuse a description that `spec.description` can't have.

    Raises:
        InvalidDescription: it isn't UTF-8, or is longer than 1,024 characters.
    """
    if text is None:
        return
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidDescription("the description isn't UTF-8 text")
    if len(text) > DESCRIPTION_MAX_LENGTH:
        raise InvalidDescription(
            f"the description has {len(text):,} characters; {DESCRIPTION_MAX_LENGTH:,} is the most"
        )


def check_rotate_after(duration: str | None) -> None:
    """Refuse a duration that `spec.rotateAfter` can't have.

    Raises:
        InvalidDuration: it isn't a number of days, hours or minutes.
    """
    if duration is not None and not re.fullmatch(ROTATE_AFTER_PATTERN, duration):
        raise InvalidDuration(f"{duration!r} isn't a number of days, hours or minutes, such as 90d or 12h")


def duration(text: str) -> timedelta:
    """Read a duration as `spec.rotateAfter` has it: 90d, 12h, 30m.

    Raises:
        InvalidDuration: it isn't a number of days, hours or minutes.
    """
    check_rotate_after(text)
    unit = {"d": "days", "h": "hours", "m": "minutes"}[text[-1]]
    return timedelta(**{unit: int(text[:-1])})


def check_value(name: str, value: SecretBytes) -> None:
    """Refuse a value that the environment variable `name` can't have.

    Raises:
        InvalidValue: it isn't UTF-8, or holds a NUL.
        ValueTooLarge: `NAME=value` and its NUL are over 131,072 bytes.
    """
    raw = value.get_secret_value()
    if b"\0" in raw:
        raise InvalidValue(
            f"the value of {name} holds a NUL byte, which ends an environment variable;"
            " encode binary data first, for instance with base64"
        )
    try:
        raw.decode()
    except UnicodeDecodeError:
        # From None: the exception in hand carries the value.
        raise InvalidValue(
            f"the value of {name} isn't UTF-8 text; encode binary data first, for instance with base64"
        ) from None
    size = len(name) + 1 + len(raw) + 1
    if size > VARIABLE_MAX_BYTES:
        raise ValueTooLarge(
            f"{name} and its value take {size:,} bytes; an environment variable can have {VARIABLE_MAX_BYTES:,}"
        )
