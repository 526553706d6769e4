"""The OpenAPI document: the contract's operations, and the models of what they take and give. Pure."""

from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from devbox_secrets.gateway.contract.errors import RETRY_AFTER_SECONDS
from devbox_secrets.gateway.contract.operations import Operation, Parameter
from devbox_secrets.gateway.contract.requests import MAX_BYTES, Body
from devbox_secrets.gateway.contract.responses import ErrorView

Json = dict[str, Any]

_DESCRIPTION = (
    "Runloop's contract for account secrets, on Kubernetes. A secret is an environment variable of every devbox of the"
    " account; its value is sealed on the way in, and no endpoint gives it out."
)
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token that the cluster knows: a ServiceAccount's, or one of the cluster's own users.",
}
_REFERENCE = "#/components/schemas/{model}"

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


def document(operations: Sequence[Operation]) -> Json:
    """Give the OpenAPI document of some operations."""
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    paths["/v1/secrets"]["post"]["responses"]["200"]["links"] = _LINKS
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "devbox-secrets gateway",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "version": version("devbox-secrets"),
        },
        "paths": paths,
        "components": {"schemas": _schemas(operations), "securitySchemes": {"bearer": _BEARER}},
    }


def _operation(it: Operation) -> Json:
    found: Json = {"summary": it.summary, "operationId": it.id}
    if it.errors:
        found["security"] = [{"bearer": []}]
    if it.parameters:
        found["parameters"] = [_parameter(each) for each in it.parameters]
    found["responses"] = {"200": {"description": "Done.", "content": _content(it.response)}}
    for status in sorted(it.errors):
        headers = {"headers": _HEADERS[status]} if status in _HEADERS else {}
        found["responses"][str(status.value)] = {
            "description": _ERRORS[status],
            **headers,
            "content": _content(ErrorView),
        }
    if it.body:
        found["requestBody"] = _body(it.body)
    return found


def _parameter(it: Parameter) -> Json:
    return {
        "name": it.name,
        "in": it.where,
        "required": it.where == "path",
        "schema": {"type": "string", **it.schema},
        "description": it.description,
    }


def _body(model: type[Body]) -> Json:
    return {
        "description": f"At most {MAX_BYTES:,} bytes of JSON in UTF-8, no field twice.",
        "required": bool(model.model_fields),
        "content": _content(model),
    }


def _content(model: type[BaseModel] | None) -> Json:
    if model is None:
        return {"text/plain": {"schema": {"type": "string"}}}
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}}


def _schemas(operations: Sequence[Operation]) -> Json:
    """Give the schemas of all models: a body as it is taken, a response as it is given."""
    models: dict[type[BaseModel], JsonSchemaMode] = {ErrorView: "serialization"}
    for each in operations:
        if each.response:
            models[each.response] = "serialization"
        if each.body:
            models[each.body] = "validation"
    _, schemas = models_json_schema([*models.items()], ref_template=_REFERENCE)
    found: Json = schemas["$defs"]
    return found
