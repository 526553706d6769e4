"""Reads a request's body as the contract has it, and says what is wrong with it. Imports api, answers.

A message names the contract's own fields alone: what else stands in a body may be a value.
"""

import asyncio
import json
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from starlette.requests import Request

from devbox_secrets.api import VARIABLE_MAX_BYTES, VARIABLE_MAX_LENGTH, VARIABLE_PATTERN
from devbox_secrets.gateway.answers import Declined, bad_request

#: The largest value with each of its bytes escaped (\u0001), and what stands around it.
MAX_BYTES = 1 << 20


# What a name and a value may be, for the OpenAPI document alone: api.py checks it, and has the sentences.
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


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class Creation(_Body):
    """A new secret."""

    name: Name
    value: Value


class Update(_Body):
    """A secret's new value."""

    value: Value


class Nothing(_Body):
    """A deletion's body: empty, or an empty object."""


B = TypeVar("B", bound=_Body)


async def read_body(request: Request, model: type[B], seconds: float) -> B:
    """Read a body.

    Raises:
        Declined: it is too long, comes too slowly, isn't JSON, or has other fields than it should.
    """
    try:
        async with asyncio.timeout(seconds):
            raw = await _receive(request)
    except TimeoutError:
        raise Declined(
            HTTPStatus.REQUEST_TIMEOUT, f"the request's body didn't come within {seconds:g} seconds"
        ) from None
    return parse_body(raw, model)


def parse_body(raw: bytes, model: type[B]) -> B:
    """Read what was received.

    Raises:
        Declined: it isn't JSON, or has other fields than it should.
    """
    if not raw.strip() and model is Nothing:
        return model()
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_once_each, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        # From None, here and below: the exception in hand carries the body.
        raise bad_request("the request's body isn't JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise bad_request("the request's body must be a JSON object")
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise bad_request(_sentence(error, model)) from None


async def _receive(request: Request) -> bytes:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BYTES:
            raise bad_request(f"the request's body is over {MAX_BYTES:,} bytes")
    return bytes(raw)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise bad_request("a field is in the request's body twice")
    return found


def _no_constant(_: str) -> None:
    raise ValueError  # NaN and Infinity aren't JSON


def _sentence(error: ValidationError, model: type[_Body]) -> str:
    """Say the first thing that is wrong."""
    wrong = error.errors(include_input=False, include_context=False, include_url=False)[0]
    if wrong["type"] == "extra_forbidden":
        fields = " and ".join(f"`{name}`" for name in model.model_fields)
        return f"the request's body has a field that isn't known here; it can have {fields or 'none'}"
    field = wrong["loc"][0]
    if wrong["type"] == "missing":
        return f"the request's body lacks the field `{field}`"
    return f"the field `{field}` must be a string of Unicode characters"
