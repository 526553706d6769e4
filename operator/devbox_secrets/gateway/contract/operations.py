"""The contract's operations: what each is called, takes and gives. Pure."""

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
    """A part of a path or a query, or a header."""

    name: str
    where: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """What can be done at a path by a method."""

    method: str
    path: str
    id: str
    summary: str
    errors: tuple[HTTPStatus, ...] = ()
    """How it can fail; the probes, which need no token, can't."""
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
    "The account, where it isn't the namespace of the ServiceAccount whose token it is.",
    {"pattern": ACCOUNT_PATTERN},
)
_REQUEST_ID = Parameter(
    REQUEST_ID_HEADER, "header", "The same for each retry of a call, so that the call is done once."
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
    "How many at most.",
    {"type": "integer", "minimum": 0, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
)
_STARTING_AFTER = Parameter("starting_after", "query", "The last id on the page before.", _ID_SCHEMA)
_WAIT = Parameter(
    "wait",
    "query",
    "Whether the answer comes only when devboxes' Secret holds the value.",
    {"enum": ["true", "false"]},
)


def _create(path: str, operation_id: str) -> Operation:
    parameters = (_WAIT, _REQUEST_ID, _ACCOUNT)
    return Operation("POST", path, operation_id, "Create a secret", _WRITING, parameters, SecretView, Creation)


def _list(path: str, operation_id: str) -> Operation:
    parameters = (_LIMIT, _STARTING_AFTER, _ACCOUNT)
    return Operation("GET", path, operation_id, "List secrets, the newest first", _READING, parameters, SecretListView)


def _get(path: str, operation_id: str, key: Parameter) -> Operation:
    return Operation("GET", path, operation_id, "Get a secret", _READING_ONE, (key, _ACCOUNT), SecretView)


def _update(path: str, operation_id: str, key: Parameter) -> Operation:
    parameters = (key, _WAIT, _REQUEST_ID, _ACCOUNT)
    return Operation("POST", path, operation_id, "Give a secret a new value", _WRITING, parameters, SecretView, Update)


def _delete(path: str, operation_id: str, key: Parameter) -> Operation:
    return Operation("POST", path, operation_id, "Delete a secret", _WRITING, (key, _ACCOUNT), SecretView, Nothing)


#: By id before by name. POST /v1/secrets/id/delete is by name all the same, since it has one part less.
OPERATIONS = (
    _create("/v1/secrets", "createSecret"),
    _list("/v1/secrets", "listSecrets"),
    _get("/v1/secrets/id/{id}", "getSecretById", _ID),
    _update("/v1/secrets/id/{id}/update", "updateSecretById", _ID),
    _delete("/v1/secrets/id/{id}/delete", "deleteSecretById", _ID),
    _get("/v1/secrets/{name}", "getSecret", _NAME),
    _update("/v1/secrets/{name}", "updateSecret", _NAME),
    _delete("/v1/secrets/{name}/delete", "deleteSecret", _NAME),
    Operation("GET", "/readyz", "readyz", "Whether it takes requests"),
    Operation("GET", "/healthz", "healthz", "Whether the process lives"),
)
