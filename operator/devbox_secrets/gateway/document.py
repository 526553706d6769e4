"""What the OpenAPI document says of the endpoints, beside their types.

Imports answers, bodies, ids, views.
"""

from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Header, Path, Query, Security
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from devbox_secrets.api import ACCOUNT_PATTERN, VARIABLE_MAX_LENGTH, VARIABLE_PATTERN
from devbox_secrets.gateway.answers import ACCOUNT_HEADER, RETRY_AFTER_SECONDS
from devbox_secrets.gateway.bodies import MAX_BYTES, Creation, Nothing, Update
from devbox_secrets.gateway.ids import ID_MAX_LENGTH, ID_PATTERN
from devbox_secrets.gateway.views import Problem

Json = dict[str, Any]

_DESCRIPTION = (
    "Runloop's contract for account secrets, on Kubernetes. A secret is an environment variable of every devbox of the"
    " account; its value is sealed on the way in, and no endpoint gives it out."
)
_BODIES: tuple[type[BaseModel], ...] = (Creation, Update, Nothing)

#: With which call a secret that was made is handled further, by its name and by its id.
_LINKS = {
    f"{call}{suffix}": {"operationId": f"{call}{suffix}", "parameters": {key: f"$response.body#/{key}"}}
    for call in ("getSecret", "updateSecret", "deleteSecret")
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
_AGAIN = {
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
        HTTPStatus.TOO_MANY_REQUESTS: _AGAIN,
        HTTPStatus.SERVICE_UNAVAILABLE: _AGAIN,
    }
)
#: What any request with a token may get, one for a secret that is there, and one that writes.
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
STARTING_AFTER = Query(description="The last id on the page before.", json_schema_extra=_ID)


def told(
    operation: str,
    summary: str,
    errors: Iterable[HTTPStatus] = (),
    *,
    answer: type[BaseModel] | None = None,
    body: type[BaseModel] | None = None,
) -> Json:
    """Give what an endpoint is registered with.

    Its answer is written by its function and its body read by bodies.py: here they are described alone.
    """
    responses = {
        status.value: {
            "model": Problem,
            "description": _ERRORS[status],
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in sorted(errors)
    }
    return {
        "operation_id": operation,
        "summary": summary,
        "response_model": answer,
        "response_description": "Done.",
        "responses": responses,
        "openapi_extra": {"requestBody": _body(body)} if body else None,
    }


def document(app: FastAPI) -> Json:
    """Give the OpenAPI document of an application's endpoints."""
    found = get_openapi(
        title="devbox-secrets gateway",
        version=version("devbox-secrets"),
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        routes=app.routes,
    )
    found["paths"]["/v1/secrets"]["post"]["responses"]["200"]["links"] = _LINKS
    schemas = found["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):  # fastapi's own errors, which ours replace
        schemas.pop(name, None)
    schemas |= {model.__name__: model.model_json_schema() for model in _BODIES}
    for operations in found["paths"].values():
        for operation in operations.values():
            _without_defaults(operation)
    return found


def _without_defaults(operation: Json) -> None:
    """Remove what fastapi adds: a 422 of its own, what is said twice, null where a parameter isn't sent at all."""
    default = operation["responses"].get("422", {})
    if default.get("description") == "Validation Error":
        del operation["responses"]["422"]
    for parameter in operation.get("parameters", ()):
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
