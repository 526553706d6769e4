"""The models of request bodies, and the errors for bodies that don't match.

A message names only the contract's own fields: anything else in a body may be a value.
"""

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretBytes, SecretStr, ValidationError

from devbox_secrets.api.validation import VARIABLE_MAX_BYTES, VARIABLE_MAX_LENGTH, VARIABLE_PATTERN
from devbox_secrets.errors import InvalidValue
from devbox_secrets.gateway.contract.errors import bad_request

#: Room for the largest value with each of its bytes escaped (\u0001), and for the JSON around it.
MAX_BYTES = 1 << 20
#: How many secrets a page has, and can have.
DEFAULT_LIMIT = 20
MAX_LIMIT = 5000

# What names and values may be, for the OpenAPI document: api.validation checks them, and has the sentences.
Name = Annotated[
    str,
    Field(
        description="The environment variable's name, unique in the account. Some names are reserved.",
        json_schema_extra={"pattern": VARIABLE_PATTERN, "minLength": 1, "maxLength": VARIABLE_MAX_LENGTH},
    ),
]
Value = Annotated[
    SecretStr,
    Field(
        description=f"The value, without a NUL. `NAME=value` in UTF-8 with the NUL after it can have"
        f" {VARIABLE_MAX_BYTES:,} bytes.",
        json_schema_extra={"pattern": r"^[^\u0000]*$", "maxLength": VARIABLE_MAX_BYTES - len("A=") - len("\0")},
    ),
]


class Body(BaseModel):
    """The JSON object of a request: these fields and no others."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class Creation(Body):
    """A new secret."""

    name: Name
    value: Value


class Update(Body):
    """A secret's new value."""

    value: Value


class Nothing(Body):
    """A deletion's body: empty, or an empty object."""


B = TypeVar("B", bound=Body)


def parse_body(raw: bytes, model: type[B]) -> B:
    """Parse a body.

    Raises:
        ErrorResponse: it isn't JSON, or its fields aren't those of the model.
    """
    if not raw.strip() and model is Nothing:
        return model()
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_without_duplicates, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        # From None, here and below: the exception in hand carries the body.
        raise bad_request("the request's body isn't JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise bad_request("the request's body must be a JSON object")
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise bad_request(_sentence(error, model)) from None


def to_bytes(value: SecretStr) -> SecretBytes:
    """Encode a value.

    Raises:
        InvalidValue: it isn't Unicode text.
    """
    try:
        return SecretBytes(value.get_secret_value().encode())
    except UnicodeEncodeError:
        # From None: the exception in hand carries the value.
        raise InvalidValue("the field `value` holds half of a surrogate pair, which isn't Unicode text") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise bad_request("a field is in the request's body twice")
    return found


def _reject_constant(_: str) -> None:
    raise ValueError  # NaN and Infinity aren't JSON


def _sentence(error: ValidationError, model: type[Body]) -> str:
    """Describe the first mistake."""
    wrong = error.errors(include_input=False, include_context=False, include_url=False)[0]
    if wrong["type"] == "extra_forbidden":
        fields = " and ".join(f"`{name}`" for name in model.model_fields)
        return f"the request's body has a field that isn't known here; it can have {fields or 'none'}"
    field = wrong["loc"][0]
    if wrong["type"] == "missing":
        return f"the request's body lacks the field `{field}`"
    return f"the field `{field}` must be a string of Unicode characters"
