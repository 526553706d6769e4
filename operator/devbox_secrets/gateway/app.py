"""The contract's endpoints. Imports the gateway's other rooms; no rule is here.

Nothing that was sent is repeated in an answer or a log, since anything in a request may be a value.
"""

import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Depends, FastAPI, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, SecretBytes, SecretStr
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from devbox_secrets.errors import ClusterError, DevboxSecretsError, InvalidValue
from devbox_secrets.gateway import calls
from devbox_secrets.gateway.answers import CODES, Declined, bad_request, declined_by_the_cluster
from devbox_secrets.gateway.bodies import Creation, Nothing, Update, read_body
from devbox_secrets.gateway.callers import Caller, Callers
from devbox_secrets.gateway.document import (
    ACCOUNT,
    BEARER,
    ID,
    NAME,
    READING,
    READING_ONE,
    REQUEST_ID,
    STARTING_AFTER,
    WRITING,
    document,
    told,
)
from devbox_secrets.gateway.page import POLICY, page_of
from devbox_secrets.gateway.rates import Rates
from devbox_secrets.gateway.record import Record
from devbox_secrets.gateway.store import Store
from devbox_secrets.gateway.upstream import Upstream
from devbox_secrets.gateway.views import Problem, SecretListView, SecretView
from devbox_secrets.gateway.waiting import Hold, Waiting, hold_of, refuse_wait

LOG = logging.getLogger(__name__)
DEFAULT_LIMIT = 20
MAX_LIMIT = 5000
_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)
Holds = Annotated[Hold, Depends(hold_of)]


def application(
    upstream: Upstream,
    store: Store,
    waiting: Waiting,
    body_seconds: float,
    rates: Rates,
    audit: logging.Logger | None,
) -> ASGIApp:
    """Give the gateway as an ASGI application; calls within the rates are let in, and each has its line in `audit`."""
    return calls.Calls(_Guard(endpoints(upstream, store, waiting, body_seconds, rates)), audit)


def endpoints(upstream: Upstream, store: Store, waiting: Waiting, body_seconds: float, rates: Rates) -> FastAPI:
    """Give the endpoints, and those that describe them."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.state.waiting = waiting

    def meet(user: str) -> None:
        calls.met(user)
        rates.take(user)

    callers = Callers(upstream, meet)

    async def find_caller(
        request: Request, _: Annotated[object, BEARER], account: Annotated[str | None, ACCOUNT] = None
    ) -> Caller:
        caller = await callers.find(request.headers.get("authorization"), account)
        if caller.at_home:
            calls.in_account(caller.account)
        return caller

    who = Depends(find_caller)
    _all(app, store, who, body_seconds)
    # By id before by name. POST /v1/secrets/id/delete is by name all the same, since it has one part less.
    _one(app, _Place("/v1/secrets/id/{id}", "/update", ID, "ById"), store, _noting(store.by_id), who, body_seconds)
    _one(app, _Place("/v1/secrets/{name}", "", NAME, ""), store, _noting(store.by_name), who, body_seconds)
    _probes(app)
    _description(app)
    _errors(app)
    return app


def _noting(find: Callable[[Caller, str], Awaitable[Record]]) -> Callable[[Caller, str], Awaitable[Record]]:
    """Have the audit log name what is found."""

    async def noted(caller: Caller, key: str) -> Record:
        return _note(caller, await find(caller, key))

    return noted


def _note(caller: Caller, record: Record) -> Record:
    calls.in_account(caller.account)
    calls.found(record.variable, str(record.id))
    return record


def _all(app: FastAPI, store: Store, who: Any, body_seconds: float) -> None:  # noqa: ANN401 - fastapi's own
    @app.post("/v1/secrets", **told("createSecret", "Create a secret", WRITING, answer=SecretView, body=Creation))
    async def create(
        request: Request,
        caller: Annotated[Caller, who],
        hold: Holds,
        request_id: Annotated[str | None, REQUEST_ID] = None,
    ) -> Response:
        body = await read_body(request, Creation, body_seconds)
        made = _note(caller, await store.create(caller, body.name, _bytes(body.value), request_id))
        return _view(await hold(caller, made))

    @app.get("/v1/secrets", **told("listSecrets", "List secrets, the newest first", READING, answer=SecretListView))
    async def page(
        caller: Annotated[Caller, who],
        limit: Annotated[int, Query(ge=0, le=MAX_LIMIT, description="How many at most.")] = DEFAULT_LIMIT,
        starting_after: Annotated[str | None, STARTING_AFTER] = None,
    ) -> Response:
        found = await store.page(caller, limit, starting_after)
        if found.total:  # an account that has secrets is one
            calls.in_account(caller.account)
        views = [record.view for record in found.records]
        return _json(SecretListView(secrets=views, has_more=found.more, total_count=found.total))


@dataclass(frozen=True)
class _Place:
    """Where one secret is served, what is below it to update it, and by what it is found."""

    path: str
    update_below: str
    key: Any
    suffix: str


def _one(
    app: FastAPI,
    place: _Place,
    store: Store,
    find: Callable[[Caller, str], Awaitable[Record]],
    who: Any,  # noqa: ANN401 - fastapi's own
    body_seconds: float,
) -> None:
    """Serve one secret at a path, and its update there or below."""

    def one(operation: str, summary: str, errors: Iterable[HTTPStatus], body: type[BaseModel] | None = None) -> Any:  # noqa: ANN401
        return told(f"{operation}{place.suffix}", summary, errors, answer=SecretView, body=body)

    @app.get(place.path, **one("getSecret", "Get a secret", READING_ONE))
    async def get(key: Annotated[str, place.key], caller: Annotated[Caller, who]) -> Response:
        return _view(await find(caller, key))

    @app.post(place.path + place.update_below, **one("updateSecret", "Give a secret a new value", WRITING, Update))
    async def update(
        request: Request,
        key: Annotated[str, place.key],
        caller: Annotated[Caller, who],
        hold: Holds,
        request_id: Annotated[str | None, REQUEST_ID] = None,
    ) -> Response:
        body = await read_body(request, Update, body_seconds)
        updated = await store.update(caller, partial(find, caller, key), _bytes(body.value), request_id)
        return _view(await hold(caller, updated))

    @app.post(f"{place.path}/delete", **one("deleteSecret", "Delete a secret", WRITING, Nothing))
    async def delete(request: Request, key: Annotated[str, place.key], caller: Annotated[Caller, who]) -> Response:
        refuse_wait(request)
        await read_body(request, Nothing, body_seconds)
        return _view(await store.delete(caller, partial(find, caller, key)))


def _probes(app: FastAPI) -> None:
    # Ready as soon as it serves: while the API server is away it says so, with 503.
    @app.get("/healthz", response_class=PlainTextResponse, **told("healthz", "Whether the process lives"))
    @app.get("/readyz", response_class=PlainTextResponse, **told("readyz", "Whether it takes requests"))
    async def probe() -> Response:
        return PlainTextResponse("ok")


def _description(app: FastAPI) -> None:
    """Serve the OpenAPI document and its page, without a token: both say what everyone's copy of them says."""
    found = document(app)
    text, page = json.dumps(found), page_of(found)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(text, media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page, headers=POLICY)


def _errors(app: FastAPI) -> None:
    @app.exception_handler(DevboxSecretsError)
    async def ours(_: Request, error: DevboxSecretsError) -> Response:
        match error:
            case Declined():
                return _answer(error)
            case ClusterError():
                declined = declined_by_the_cluster(error)
                if declined.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    LOG.warning("%s", error)
                return _answer(declined)
            case _:  # what api.py says of names and values
                return _answer(bad_request(str(error)))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, __: RequestValidationError) -> Response:
        return _answer(bad_request(f"limit must be a number from 0 to {MAX_LIMIT}"))

    @app.exception_handler(HTTPException)
    async def astray(request: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        if status != HTTPStatus.METHOD_NOT_ALLOWED:
            return _answer(Declined(status, "there is no such endpoint"))
        # Starlette names the methods of the first route that has the path; another may have it, too.
        matching = [route for route in app.routes if route.matches(request.scope)[0] != Match.NONE]
        methods = sorted({method for route in matching for method in getattr(route, "methods", ())})
        return _answer(Declined(status, "there is no such method there"), {"Allow": ", ".join(methods)})

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        return _answer(Declined(HTTPStatus.INTERNAL_SERVER_ERROR, "the gateway failed; its log says at what"))


class _Guard:
    """Keeps an exception from the server, which would log it: its text or its traceback may hold a value."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        if b"%2f" in scope.get("raw_path", b"").lower():
            # A slash that is encoded belongs to a name: A%2Fdelete is no deletion of A.
            raw = scope["raw_path"].decode("latin-1")
            scope = {**scope, "path": unquote(_ENCODED_SLASH.sub("%252F", raw))}
        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is
            LOG.error("%s: %s", _where(error), type(error).__name__)


def _where(error: BaseException) -> str:
    """Name the line that failed, which is code of ours or a library's and holds no value."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "nowhere"


def _answer(declined: Declined, headers: Mapping[str, str] | None = None) -> Response:
    problem = Problem(message=str(declined), code=CODES[declined.status])
    return _json(problem, declined.status, {**(headers or {}), **declined.headers})


def _view(record: Record) -> Response:
    return _json(record.view)


def _json(content: BaseModel, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content.model_dump_json(), status, headers, "application/json")


def _bytes(value: SecretStr) -> SecretBytes:
    try:
        return SecretBytes(value.get_secret_value().encode())
    except UnicodeEncodeError:
        # From None: the exception in hand carries the value.
        raise InvalidValue("the field `value` holds half of a surrogate pair, which isn't Unicode text") from None
