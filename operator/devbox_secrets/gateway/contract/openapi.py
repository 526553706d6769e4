"""The OpenAPI document: what it says of the endpoints beside their models."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

from fastapi import Header, Path, Query, Security
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.routing import BaseRoute

from devbox_secrets.api.validation import ACCOUNT_PATTERN, VARIABLE_MAX_LENGTH, VARIABLE_PATTERN
from devbox_secrets.gateway.contract.errors import ACCOUNT_HEADER, RETRY_AFTER_SECONDS
from devbox_secrets.gateway.contract.ids import ID_MAX_LENGTH, ID_PATTERN
from devbox_secrets.gateway.contract.requests import MAX_BYTES, MAX_LIMIT, Creation, Nothing, Update
from devbox_secrets.gateway.contract.responses import ErrorView

Json = dict[str, Any]

_DESCRIPTION = (
    "Runloop's contract for account secrets, on Kubernetes. A secret is an environment variable of every devbox of the"
    " account; its value is sealed on the way in, and no endpoint gives it out."
)
_BODIES: tuple[type[BaseModel], ...] = (Creation, Update, Nothing)

#: The operations on a secret that was created, by its name and by its id.
_LINKS = {
    f"{verb}{suffix}": {"operationId": f"{verb}{suffix}", "parameters": {key: f"$response.body#/{key}"}}
    for verb in ("getSecret", "updateSecret", "deleteSecret")
    for key, suffix in (("name", ""), ("id", "ById"))
}

_ERRORS = MappingProxyType(
    {
        HTTPStatus.BAD_REQUEST: "Something in the request is malformed, reserved or too long, or the name is taken.",
        HTTPStatus.UNAUTHORIZED: "There is no token, or the cluster doesn't know it.",
        HTTPStatus.FORBIDDEN: "The token's user may not do this in this account, or a quota forbids it.",
        HTTPStatus.NOT_FOUND: "The account has no such secret, or there is no such account.",
        HTTPStatus.REQUEST_TIMEOUT: "The body came too slowly.",
        HTTPStatus.UNPROCESSABLE_ENTITY: "A policy of the cluster refuses the object, or devboxes don't get its value.",
        HTTPStatus.TOO_MANY_REQUESTS: "The token's user makes too many calls, or the API server has too many requests.",
        HTTPStatus.SERVICE_UNAVAILABLE: "The API server is away, there is no sealing key yet, or a wait took too long.",
    }
)
_RETRY_AFTER = {
    "Retry-After": {
        "description": "When to come again, in seconds.",
        "schema": {"type": "integer", "example": RETRY_AFTER_SECONDS},
    },
    "Retry-After-Ms": {
        "description": "The same in milliseconds.",
        "schema": {"type": "integer", "example": RETRY_AFTER_SECONDS * 1000},
    },
}
_HEADERS = MappingProxyType(
    {
        HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}}},
        HTTPStatus.TOO_MANY_REQUESTS: _RETRY_AFTER,
        HTTPStatus.SERVICE_UNAVAILABLE: _RETRY_AFTER,
    }
)
#: The errors of any request with a token, of one about a secret, and of one that writes.
READING = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
READING_ONE = (*READING, HTTPStatus.NOT_FOUND)
WRITING = (*READING_ONE, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.UNPROCESSABLE_ENTITY)

BEARER = Security(
    HTTPBearer(
        scheme_name="bearer",
        auto_error=False,
        description="A token that the cluster knows: a ServiceAccount's, or one of the cluster's own users.",
    )
)
ACCOUNT = Header(
    alias=ACCOUNT_HEADER,
    description="The account, where it isn't the namespace of the ServiceAccount whose token it is.",
    json_schema_extra={"pattern": ACCOUNT_PATTERN},
)
REQUEST_ID = Header(
    alias="x-request-id",
    description="The same for each retry of a call, so that the call is done once.",
)
NAME = Path(
    alias="name",
    description="The environment variable's name.",
    json_schema_extra={"pattern": VARIABLE_PATTERN, "maxLength": VARIABLE_MAX_LENGTH},
)
_ID = {"pattern": ID_PATTERN, "maxLength": ID_MAX_LENGTH}
ID = Path(alias="id", description="The secret's id.", json_schema_extra=_ID)
LIMIT = Query(ge=0, le=MAX_LIMIT, description="How many at most.")
WAIT = Query(
    description="Whether the answer comes only when devboxes' Secret holds the value.",
    json_schema_extra={"enum": ["true", "false"]},
)
STARTING_AFTER = Query(description="The last id on the page before.", json_schema_extra=_ID)


def operation(
    operation_id: str,
    summary: str,
    errors: Iterable[HTTPStatus] = (),
    *,
    response: type[BaseModel] | None = None,
    body: type[BaseModel] | None = None,
) -> Json:
    """Give the arguments with which an endpoint is registered.

    The endpoint itself reads its body and writes its response: FastAPI only describes them.
    """
    responses = {
        status.value: {
            "model": ErrorView,
            "description": _ERRORS[status],
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in sorted(errors)
    }
    return {
        "operation_id": operation_id,
        "summary": summary,
        "response_model": response,
        "response_description": "Done.",
        "responses": responses,
        "openapi_extra": {"requestBody": _body(body)} if body else None,
    }


def document(routes: Sequence[BaseRoute]) -> Json:
    """Give the OpenAPI document of some endpoints."""
    found = get_openapi(
        title="devbox-secrets gateway",
        version=version("devbox-secrets"),
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        routes=routes,
    )
    found["paths"]["/v1/secrets"]["post"]["responses"]["200"]["links"] = _LINKS
    schemas = found["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own errors, which ours replace
        schemas.pop(name, None)
    schemas |= {model.__name__: model.model_json_schema() for model in _BODIES}
    for operations in found["paths"].values():
        for each in operations.values():
            _without_defaults(each)
    return found


def _without_defaults(described: Json) -> None:
    """Remove what FastAPI adds: docstrings, a 422 of its own, repeated titles, null for an optional parameter."""
    described.pop("description", None)
    default = described["responses"].get("422", {})
    if default.get("description") == "Validation Error":
        del described["responses"]["422"]
    for parameter in described.get("parameters", ()):
        schema = parameter["schema"]
        for repeated in ("title", "description"):
            schema.pop(repeated, None)
        for choice in schema.pop("anyOf", ()):
            if choice != {"type": "null"}:
                schema |= choice


def _body(model: type[BaseModel]) -> Json:
    return {
        "description": f"At most {MAX_BYTES:,} bytes of JSON in UTF-8, no field twice.",
        "required": bool(model.model_fields),
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}},
    }
