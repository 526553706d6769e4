"""The OpenAPI document: the contract's operations and the models of their requests and responses. Pure."""

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
    "Runloop's API for account secrets, on Kubernetes. A secret is an environment variable in every devbox of the"
    " account. The gateway seals its value; no endpoint returns it."
)
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token for the cluster: a ServiceAccount's or any other user's.",
}
_REFERENCE = "#/components/schemas/{model}"

#: The operations on a created secret, by its name and by its id.
_LINKS = {
    f"{verb}{suffix}": {"operationId": f"{verb}{suffix}", "parameters": {key: f"$response.body#/{key}"}}
    for verb in ("getSecret", "updateSecret", "deleteSecret")
    for key, suffix in (("name", ""), ("id", "ById"))
}

_ERRORS = MappingProxyType(
    {
        HTTPStatus.BAD_REQUEST: "The request is malformed, or the name is reserved, too long or already in use.",
        HTTPStatus.UNAUTHORIZED: "The token is missing, invalid or expired.",
        HTTPStatus.FORBIDDEN: "The token's user isn't allowed to do this in this account, or a quota forbids it.",
        HTTPStatus.NOT_FOUND: "The secret or the account doesn't exist.",
        HTTPStatus.REQUEST_TIMEOUT: "The request body arrived too slowly.",
        HTTPStatus.UNPROCESSABLE_ENTITY: "A cluster policy rejects the secret, or devboxes don't get its value.",
        HTTPStatus.TOO_MANY_REQUESTS: "Too many requests, by the token's user or to the Kubernetes API server.",
        HTTPStatus.SERVICE_UNAVAILABLE: "The API server is unavailable, there is no sealing key, or a wait timed out.",
    }
)
_RETRY_AFTER = {
    "Retry-After": {
        "description": "When to retry, in seconds.",
        "schema": {"type": "integer", "example": RETRY_AFTER_SECONDS},
    },
    "Retry-After-Ms": {
        "description": "When to retry, in milliseconds.",
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
    """Return the OpenAPI document for some operations."""
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
    found["responses"] = {"200": {"description": "Success.", "content": _content(it.response)}}
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
        "description": f"JSON in UTF-8, at most {MAX_BYTES:,} bytes, without duplicate fields.",
        "required": bool(model.model_fields),
        "content": _content(model),
    }


def _content(model: type[BaseModel] | None) -> Json:
    if model is None:
        return {"text/plain": {"schema": {"type": "string"}}}
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}}


def _schemas(operations: Sequence[Operation]) -> Json:
    """Return the schemas of all models: of a body for validation, of a response for serialization."""
    models: dict[type[BaseModel], JsonSchemaMode] = {ErrorView: "serialization"}
    for each in operations:
        if each.response:
            models[each.response] = "serialization"
        if each.body:
            models[each.body] = "validation"
    _, schemas = models_json_schema([*models.items()], ref_template=_REFERENCE)
    found: Json = schemas["$defs"]
    return found
