"""The gateway as an application: authenticate, apply the rate limit, act, respond; and write an audit entry.

Responses and logs repeat nothing from a request, since anything in it may be a value.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Router as StarletteRouter
from starlette.types import ASGIApp, Receive, Scope, Send

from devbox_secrets.errors import DevboxSecretsError
from devbox_secrets.gateway.backend.auth import Authenticator, Caller
from devbox_secrets.gateway.backend.record import Record
from devbox_secrets.gateway.backend.store import Store
from devbox_secrets.gateway.backend.sync_wait import SyncWaiter
from devbox_secrets.gateway.contract import openapi_page
from devbox_secrets.gateway.contract.errors import ACCOUNT_HEADER, ErrorResponse, bad_request
from devbox_secrets.gateway.contract.openapi import document
from devbox_secrets.gateway.contract.operations import OPERATIONS, REQUEST_ID_HEADER
from devbox_secrets.gateway.contract.requests import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Body,
    Creation,
    Nothing,
    Update,
    parse_body,
    to_bytes,
)
from devbox_secrets.gateway.contract.responses import ResponseBody, SecretListView, SecretView
from devbox_secrets.gateway.http.audit import AuditEntry, audited
from devbox_secrets.gateway.http.rate_limit import RateLimiter
from devbox_secrets.gateway.http.receive import BodyReader, unless_disconnected
from devbox_secrets.gateway.http.responses import JSON, json_error, json_failure, json_response
from devbox_secrets.gateway.http.router import Match, Router, decoded_path

B = TypeVar("B", bound=Body)
_LIMIT = TypeAdapter[int](Annotated[int, Field(ge=0, le=MAX_LIMIT)])


@dataclass(frozen=True, slots=True)
class Services:
    """What the endpoints work with."""

    authenticator: Authenticator
    rate_limiter: RateLimiter
    store: Store
    sync_waiter: SyncWaiter
    body_reader: BodyReader


def application(services: Services, audit_log: logging.Logger | None) -> ASGIApp:
    """Return the gateway as an ASGI application; each request is logged in the audit log, if there is one."""
    return _Application(services, audit_log)


@dataclass(frozen=True, slots=True)
class _Application:
    services: Services
    audit_log: logging.Logger | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await _NOT_HTTP(scope, receive, send)
            return
        request, match = Request(scope, receive), _ROUTER.find(scope["method"], decoded_path(scope))
        # A disconnected client gets no response; a server may raise OSError then.
        with suppress(ClientDisconnect, OSError), audited(request, match.template, self.audit_log) as audit:
            response = await _respond(request, match, self.services, audit)
            audit.status = response.status_code
            await response(scope, receive, send)


async def _respond(request: Request, match: "Match[Endpoint]", services: Services, audit: AuditEntry) -> Response:
    """Return the response to a request; record in the audit entry what is known by then."""
    try:
        if isinstance(match.endpoint, Response):
            return match.endpoint
        if isinstance(match.endpoint, ErrorResponse):
            return json_error(match.endpoint)
        user = await services.authenticator.authenticate(request.headers.get("authorization"))
        audit.set_user(user.name)
        services.rate_limiter.acquire(user.name)
        caller = user.caller(request.headers.get(ACCOUNT_HEADER))
        if caller.is_own_account:
            audit.set_account(caller.account)
        return json_response(
            await match.endpoint(AuthenticatedRequest(request, match.parameters, services, caller, audit))
        )
    except DevboxSecretsError as error:
        return json_error(error)
    except ClientDisconnect:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is
        return json_failure(error)


# --- What an endpoint gets


@dataclass(frozen=True, slots=True)
class AuthenticatedRequest:
    """A request whose caller is known, and the services for it."""

    http: Request
    path: Mapping[str, str]
    """The parameters in its path."""
    services: Services
    caller: Caller
    audit: AuditEntry

    @property
    def id(self) -> str | None:
        """The id that all retries of the request share."""
        return self.http.headers.get(REQUEST_ID_HEADER)

    @property
    def wait(self) -> bool:
        """Whether to wait until devboxes have the value."""
        wait = self.http.query_params.get("wait", "false")
        if wait not in {"true", "false"}:
            raise bad_request("wait must be true or false")
        return wait == "true"

    @property
    def limit(self) -> int:
        """How many secrets it asks for."""
        try:
            return _LIMIT.validate_python(self.http.query_params.get("limit", DEFAULT_LIMIT))
        except ValidationError:
            # From None: the original exception contains what was sent.
            raise bad_request(f"limit must be a number from 0 to {MAX_LIMIT}") from None

    async def read(self, model: type[B]) -> B:
        """Read the body."""
        return parse_body(await self.services.body_reader.read(self.http), model)

    async def find(self) -> Record:
        """Find the secret whose id or name is in the path."""
        if "id" in self.path:
            return self.audited(await self.services.store.by_id(self.caller, self.path["id"]))
        return self.audited(await self.services.store.by_name(self.caller, self.path["name"]))

    def audited(self, record: Record) -> Record:
        """Record a secret in the audit entry."""
        self.audit.set_secret(self.caller.account, record.variable, record.id.text)
        return record


Endpoint = Callable[[AuthenticatedRequest], Awaitable[ResponseBody]] | Response
"""A function that acts with the caller's token, or a response that is the same for everyone and needs no token."""


# --- All secrets of an account


async def create_secret(request: AuthenticatedRequest) -> SecretView:
    """Create a secret."""
    wait, body = request.wait, await request.read(Creation)
    record = await request.services.store.create(request.caller, body.name, to_bytes(body.value), request.id)
    return await _written(request, request.audited(record), wait=wait)


async def list_secrets(request: AuthenticatedRequest) -> SecretListView:
    """List secrets."""
    starting_after = request.http.query_params.get("starting_after")
    page = await request.services.store.page(request.caller, request.limit, starting_after)
    if page.total:  # an account that has secrets exists
        request.audit.set_account(request.caller.account)
    views = [record.view for record in page.records]
    return SecretListView(secrets=views, has_more=page.has_more, total_count=page.total)


# --- One secret, by id or by name


async def get_secret(request: AuthenticatedRequest) -> SecretView:
    """Get a secret."""
    return (await request.find()).view


async def update_secret(request: AuthenticatedRequest) -> SecretView:
    """Update a secret's value."""
    wait, body = request.wait, await request.read(Update)
    record = await request.services.store.update(request.caller, request.find, to_bytes(body.value), request.id)
    return await _written(request, record, wait=wait)


async def delete_secret(request: AuthenticatedRequest) -> SecretView:
    """Delete a secret."""
    if request.wait:  # rejected rather than ignored
        raise bad_request(
            "wait=true isn't supported for deletions; new devboxes usually stop getting a deleted secret within a"
            " second"
        )
    await request.read(Nothing)
    return (await request.services.store.delete(request.caller, request.find)).view


async def _written(request: AuthenticatedRequest, record: Record, *, wait: bool) -> SecretView:
    """Respond with the written secret; with `wait`, once devboxes have the value."""
    if wait:
        await unless_disconnected(request.http, request.services.sync_waiter.wait(request.caller, record))
    return record.view


# --- Probes and the OpenAPI document: the same for everyone, without a token

# Ready as soon as it serves: while the API server is unavailable, requests get a 503 that says so.
_OK = PlainTextResponse("ok")
DOCUMENT: Mapping[str, Any] = MappingProxyType(document(OPERATIONS))

_ENDPOINTS: Mapping[str, Endpoint] = MappingProxyType(
    {
        "createSecret": create_secret,
        "listSecrets": list_secrets,
        "getSecret": get_secret,
        "getSecretById": get_secret,
        "updateSecret": update_secret,
        "updateSecretById": update_secret,
        "deleteSecret": delete_secret,
        "deleteSecretById": delete_secret,
        "readyz": _OK,
        "healthz": _OK,
    }
)
_ROUTER = Router[Endpoint](
    [
        *((operation.method, operation.path, _ENDPOINTS[operation.id]) for operation in OPERATIONS),
        ("GET", "/openapi.json", Response(json.dumps(dict(DOCUMENT)), media_type=JSON)),
        ("GET", "/docs", HTMLResponse(openapi_page.render(DOCUMENT), headers=openapi_page.HEADERS)),
    ]
)
#: Handles a server's lifespan events, and rejects WebSockets.
_NOT_HTTP = StarletteRouter()
