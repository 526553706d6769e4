"""The contract's operations: paths, parameters, bodies and responses. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from devbox_secrets.api.validation import ACCOUNT_PATTERN, VARIABLE_MAX_LENGTH, VARIABLE_PATTERN
from devbox_secrets.gateway.contract.errors import ACCOUNT_HEADER
from devbox_secrets.gateway.contract.ids import ID_MAX_LENGTH, ID_PATTERN
from devbox_secrets.gateway.contract.requests import DEFAULT_LIMIT, MAX_LIMIT, Body, Creation, Nothing, Update
from devbox_secrets.gateway.contract.responses import ResponseBody, SecretListView, SecretView

REQUEST_ID_HEADER = "x-request-id"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A path parameter, a query parameter or a header."""

    name: str
    where: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """A method on a path."""

    method: str
    path: str
    id: str
    summary: str
    errors: tuple[HTTPStatus, ...] = ()
    """The error statuses; the probes, which need no token, have none."""
    parameters: tuple[Parameter, ...] = ()
    response: type[ResponseBody] | None = None
    """The model of the response's body; None for plain text."""
    body: type[Body] | None = None


_READING = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_READING_ONE = (*_READING, HTTPStatus.NOT_FOUND)
_WRITING = (*_READING_ONE, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.UNPROCESSABLE_ENTITY)

_ACCOUNT = Parameter(
    ACCOUNT_HEADER,
    "header",
    "The account. Defaults to the namespace of the token's ServiceAccount.",
    {"pattern": ACCOUNT_PATTERN},
)
_REQUEST_ID = Parameter(
    REQUEST_ID_HEADER, "header", "An id that all retries of a request share, so that it takes effect once."
)
_NAME = Parameter(
    "name",
    "path",
    "The environment variable's name.",
    {"pattern": VARIABLE_PATTERN, "maxLength": VARIABLE_MAX_LENGTH},
)
_ID_SCHEMA = {"pattern": ID_PATTERN, "maxLength": ID_MAX_LENGTH}
_ID = Parameter("id", "path", "The secret's id.", _ID_SCHEMA)
_LIMIT = Parameter(
    "limit",
    "query",
    "The maximum number of secrets.",
    {"type": "integer", "minimum": 0, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
)
_STARTING_AFTER = Parameter("starting_after", "query", "The last id on the previous page.", _ID_SCHEMA)
_WAIT = Parameter(
    "wait",
    "query",
    "Whether to respond only when the Secret that devboxes read contains the value.",
    {"enum": ["true", "false"]},
)


def _create(path: str, operation_id: str) -> Operation:
    parameters = (_WAIT, _REQUEST_ID, _ACCOUNT)
    return Operation("POST", path, operation_id, "Create a secret", _WRITING, parameters, SecretView, Creation)


def _list(path: str, operation_id: str) -> Operation:
    parameters = (_LIMIT, _STARTING_AFTER, _ACCOUNT)
    return Operation("GET", path, operation_id, "List secrets, newest first", _READING, parameters, SecretListView)


def _get(path: str, operation_id: str, key: Parameter) -> Operation:
    return Operation("GET", path, operation_id, "Get a secret", _READING_ONE, (key, _ACCOUNT), SecretView)


def _update(path: str, operation_id: str, key: Parameter) -> Operation:
    parameters = (key, _WAIT, _REQUEST_ID, _ACCOUNT)
    return Operation("POST", path, operation_id, "Update a secret's value", _WRITING, parameters, SecretView, Update)


def _delete(path: str, operation_id: str, key: Parameter) -> Operation:
    return Operation("POST", path, operation_id, "Delete a secret", _WRITING, (key, _ACCOUNT), SecretView, Nothing)


#: By id before by name. POST /v1/secrets/id/delete still matches by name, since it has one segment less.
OPERATIONS = (
    _create("/v1/secrets", "createSecret"),
    _list("/v1/secrets", "listSecrets"),
    _get("/v1/secrets/id/{id}", "getSecretById", _ID),
    _update("/v1/secrets/id/{id}/update", "updateSecretById", _ID),
    _delete("/v1/secrets/id/{id}/delete", "deleteSecretById", _ID),
    _get("/v1/secrets/{name}", "getSecret", _NAME),
    _update("/v1/secrets/{name}", "updateSecret", _NAME),
    _delete("/v1/secrets/{name}/delete", "deleteSecret", _NAME),
    Operation("GET", "/readyz", "readyz", "Check whether the gateway accepts requests"),
    Operation("GET", "/healthz", "healthz", "Check whether the process is alive"),
)
