"""The contract's endpoints: authenticate, rate limit, audit, act, respond.

Nothing that was sent is repeated in a response or a log, since anything in a request may be a value.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from devbox_secrets.gateway.backend.auth import Authenticator, Caller
from devbox_secrets.gateway.backend.record import Record
from devbox_secrets.gateway.backend.store import Find, Store
from devbox_secrets.gateway.backend.sync_wait import SyncWaiter
from devbox_secrets.gateway.contract import openapi_page
from devbox_secrets.gateway.contract.errors import bad_request
from devbox_secrets.gateway.contract.openapi import (
    ACCOUNT,
    BEARER,
    ID,
    LIMIT,
    NAME,
    READING,
    READING_ONE,
    REQUEST_ID,
    STARTING_AFTER,
    WAIT,
    WRITING,
    document,
    operation,
)
from devbox_secrets.gateway.contract.requests import (
    DEFAULT_LIMIT,
    Body,
    Creation,
    Nothing,
    Update,
    parse_body,
    to_bytes,
)
from devbox_secrets.gateway.contract.responses import SecretListView, SecretView
from devbox_secrets.gateway.http.audit import AuditMiddleware, audit_entry
from devbox_secrets.gateway.http.guard import GuardMiddleware
from devbox_secrets.gateway.http.rate_limit import RateLimiter
from devbox_secrets.gateway.http.receive import read_body, unless_disconnected
from devbox_secrets.gateway.http.responses import EXCEPTION_HANDLERS, json_response

_SCOPE_KEY = "devbox_secrets.services"
B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class Services:
    """What the endpoints work with."""

    authenticator: Authenticator
    rate_limiter: RateLimiter
    store: Store
    sync_waiter: SyncWaiter
    body_timeout_seconds: float


def application(services: Services, audit_log: logging.Logger | None) -> ASGIApp:
    """Give the gateway as an ASGI application; each request has a line in the audit log, if there is one."""
    return AuditMiddleware(GuardMiddleware(_Application(services)), audit_log)


class _Application:
    """The endpoints, with the services in each request's scope."""

    def __init__(self, services: Services) -> None:
        self._services = services
        # The routes themselves: include_router would hide their methods from the handler of a 405.
        self._app = FastAPI(
            routes=router.routes,
            openapi_url=None,
            redirect_slashes=False,
            exception_handlers=dict(EXCEPTION_HANDLERS),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_SCOPE_KEY] = self._services
        await self._app(scope, receive, send)


# --- What an endpoint gets


@dataclass(frozen=True, slots=True)
class AuthenticatedRequest:
    """A request whose caller is known, and the services for it."""

    http: Request
    services: Services
    caller: Caller

    async def read(self, model: type[B]) -> B:
        """Read the body."""
        return parse_body(await read_body(self.http, self.services.body_timeout_seconds), model)

    async def find(self, look_up: Callable[[Caller, str], Awaitable[Record]], key: str) -> Record:
        """Find a secret, and name it in the audit log."""
        return self.audited(await look_up(self.caller, key))

    def audited(self, record: Record) -> Record:
        """Name a secret in the audit log."""
        audit_entry(self.http.scope).set_secret(self.caller.account, record.variable, str(record.id))
        return record


async def _authenticate(
    request: Request, _: Annotated[object, BEARER], account: Annotated[str | None, ACCOUNT] = None
) -> AuthenticatedRequest:
    """Authenticate a request, count it against its user's rate, and find its account; the audit log hears of both."""
    services: Services = request.scope[_SCOPE_KEY]
    audit = audit_entry(request.scope)
    user = await services.authenticator.authenticate(request.headers.get("authorization"))
    audit.set_user(user.name)
    services.rate_limiter.acquire(user.name)
    caller = user.caller(account)
    if caller.is_own_account:
        audit.set_account(caller.account)
    return AuthenticatedRequest(request, services, caller)


async def _wait(wait: Annotated[str | None, WAIT] = None) -> bool:
    return _is_true(wait)


def _is_true(wait: str | None) -> bool:
    if wait not in {"true", "false", None}:
        raise bad_request("wait must be true or false")
    return wait == "true"


Authenticated = Annotated[AuthenticatedRequest, Depends(_authenticate)]
Wait = Annotated[bool, Depends(_wait)]
Name = Annotated[str, NAME]
Id = Annotated[str, ID]
RequestId = Annotated[str | None, REQUEST_ID]
Limit = Annotated[int, LIMIT]
StartingAfter = Annotated[str | None, STARTING_AFTER]

router = APIRouter(redirect_slashes=False)


# --- All secrets of an account


@router.post("/v1/secrets", **operation("createSecret", "Create a secret", WRITING, response=SecretView, body=Creation))
async def create_secret(request: Authenticated, wait: Wait, request_id: RequestId = None) -> Response:
    """Create a secret."""
    body = await request.read(Creation)
    record = await request.services.store.create(request.caller, body.name, to_bytes(body.value), request_id)
    return await _written(request, request.audited(record), wait=wait)


@router.get(
    "/v1/secrets", **operation("listSecrets", "List secrets, the newest first", READING, response=SecretListView)
)
async def list_secrets(
    request: Authenticated, limit: Limit = DEFAULT_LIMIT, starting_after: StartingAfter = None
) -> Response:
    """List secrets."""
    page = await request.services.store.page(request.caller, limit, starting_after)
    if page.total:  # an account that has secrets exists
        audit_entry(request.http.scope).set_account(request.caller.account)
    views = [record.view for record in page.records]
    return json_response(SecretListView(secrets=views, has_more=page.has_more, total_count=page.total))


# --- One secret: by id before by name. POST /v1/secrets/id/delete is by name all the same, since it has one part less.


@router.get("/v1/secrets/id/{id}", **operation("getSecretById", "Get a secret", READING_ONE, response=SecretView))
async def get_secret_by_id(request: Authenticated, id: Id) -> Response:  # noqa: A002 - as in the path
    """Get a secret."""
    return json_response((await request.find(request.services.store.by_id, id)).view)


@router.post(
    "/v1/secrets/id/{id}/update",
    **operation("updateSecretById", "Give a secret a new value", WRITING, response=SecretView, body=Update),
)
async def update_secret_by_id(
    request: Authenticated,
    id: Id,  # noqa: A002 - as in the path
    wait: Wait,
    request_id: RequestId = None,
) -> Response:
    """Give a secret a new value."""
    return await _update(request, partial(request.find, request.services.store.by_id, id), request_id, wait=wait)


@router.post(
    "/v1/secrets/id/{id}/delete",
    **operation("deleteSecretById", "Delete a secret", WRITING, response=SecretView, body=Nothing),
)
async def delete_secret_by_id(request: Authenticated, id: Id) -> Response:  # noqa: A002 - as in the path
    """Delete a secret."""
    return await _delete(request, partial(request.find, request.services.store.by_id, id))


@router.get("/v1/secrets/{name}", **operation("getSecret", "Get a secret", READING_ONE, response=SecretView))
async def get_secret(request: Authenticated, name: Name) -> Response:
    """Get a secret."""
    return json_response((await request.find(request.services.store.by_name, name)).view)


@router.post(
    "/v1/secrets/{name}",
    **operation("updateSecret", "Give a secret a new value", WRITING, response=SecretView, body=Update),
)
async def update_secret(request: Authenticated, name: Name, wait: Wait, request_id: RequestId = None) -> Response:
    """Give a secret a new value."""
    return await _update(request, partial(request.find, request.services.store.by_name, name), request_id, wait=wait)


@router.post(
    "/v1/secrets/{name}/delete",
    **operation("deleteSecret", "Delete a secret", WRITING, response=SecretView, body=Nothing),
)
async def delete_secret(request: Authenticated, name: Name) -> Response:
    """Delete a secret."""
    return await _delete(request, partial(request.find, request.services.store.by_name, name))


async def _update(request: AuthenticatedRequest, find: Find, request_id: str | None, *, wait: bool) -> Response:
    body = await request.read(Update)
    record = await request.services.store.update(request.caller, find, to_bytes(body.value), request_id)
    return await _written(request, record, wait=wait)


async def _delete(request: AuthenticatedRequest, find: Find) -> Response:
    if _is_true(request.http.query_params.get("wait")):  # refused, rather than ignored
        raise bad_request(
            "wait=true is for creating and updating: of a secret that is deleted nothing is left that could tell"
            " when devboxes' Secret follows, usually within a second; delete it without"
        )
    await request.read(Nothing)
    return json_response((await request.services.store.delete(request.caller, find)).view)


async def _written(request: AuthenticatedRequest, record: Record, *, wait: bool) -> Response:
    """Respond with what was written; with `wait`, once devboxes have it."""
    if wait:
        await unless_disconnected(request.http, request.services.sync_waiter.wait(request.caller, record))
    return json_response(record.view)


# --- Probes and the OpenAPI document, without a token: the document says the same to everyone


# Ready as soon as it serves: while the API server is away it says so, with 503.
@router.get("/healthz", response_class=PlainTextResponse, **operation("healthz", "Whether the process lives"))
@router.get("/readyz", response_class=PlainTextResponse, **operation("readyz", "Whether it takes requests"))
async def probe() -> Response:
    """Tell the kubelet that the process serves."""
    return PlainTextResponse("ok")


DOCUMENT: Mapping[str, Any] = MappingProxyType(document(router.routes))


@router.get("/openapi.json", include_in_schema=False)
async def openapi() -> Response:
    """Give the OpenAPI document."""
    return Response(_DOCUMENT_JSON, media_type="application/json")


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """Give the OpenAPI document as a page."""
    return HTMLResponse(_DOCUMENT_PAGE, headers=openapi_page.HEADERS)


_DOCUMENT_JSON = json.dumps(dict(DOCUMENT))
_DOCUMENT_PAGE = openapi_page.render(DOCUMENT)
