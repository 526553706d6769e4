"""The models of request bodies, and the errors for invalid bodies.

A message names only the contract's own fields: anything else in a body may be a value.
"""

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretBytes, SecretStr, ValidationError

from devbox_secrets.api.validation import VARIABLE_MAX_BYTES, VARIABLE_MAX_LENGTH, VARIABLE_PATTERN
from devbox_secrets.errors import InvalidValue
from devbox_secrets.gateway.contract.errors import bad_request

#: Enough for the largest value with each byte escaped (\u0001), and for the JSON around it.
MAX_BYTES = 1 << 20
#: How many secrets a page has by default and at most.
DEFAULT_LIMIT = 20
MAX_LIMIT = 5000

# The rules for names and values, for the OpenAPI document; api.validation checks them and has the messages.
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
        description=f"The value, without NUL characters. `NAME=value` in UTF-8 and a final NUL byte may take at most"
        f" {VARIABLE_MAX_BYTES:,} bytes.",
        json_schema_extra={"pattern": r"^[^\u0000]*$", "maxLength": VARIABLE_MAX_BYTES - len("A=") - len("\0")},
    ),
]


class Body(BaseModel):
    """The JSON object in a request; it may have no other fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class Creation(Body):
    """A new secret."""

    name: Name
    value: Value


class Update(Body):
    """A secret's new value."""

    value: Value


class Nothing(Body):
    """The body of a deletion: empty or an empty object."""


B = TypeVar("B", bound=Body)


def parse_body(raw: bytes, model: type[B]) -> B:
    """Parse a body.

    Raises:
        ErrorResponse: it isn't JSON, or its fields don't match the model.
    """
    if not raw.strip() and model is Nothing:
        return model()
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_without_duplicates, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        # From None, here and below: the original exception contains the body.
        raise bad_request("the request body isn't valid JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise bad_request("the request body must be a JSON object")
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
        # From None: the original exception contains the value.
        raise InvalidValue("the field `value` contains an unpaired surrogate, which isn't valid Unicode") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise bad_request("the request body has a duplicate field")
    return found


def _reject_constant(_: str) -> None:
    raise ValueError  # NaN and Infinity aren't JSON


def _sentence(error: ValidationError, model: type[Body]) -> str:
    """Describe the first mistake."""
    wrong = error.errors(include_input=False, include_context=False, include_url=False)[0]
    # A field's name that contains an unpaired surrogate isn't in the error.
    if wrong["type"] == "extra_forbidden" or not wrong["loc"]:
        fields = " and ".join(f"`{name}`" for name in model.model_fields)
        return f"the request body has an unknown field; allowed: {fields or 'none'}"
    field = wrong["loc"][0]
    if wrong["type"] == "missing":
        return f"the request body has no field `{field}`"
    return f"the field `{field}` must be a Unicode string"
