"""The contract's endpoints. Imports the gateway's other rooms; no rule is here.

Nothing that was sent is repeated in an answer or a log, since anything in a request may be a value.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query
from fastapi.exceptions import RequestValidationError
from pydantic import SecretBytes, SecretStr
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from devbox_secrets.errors import ClusterError, DevboxSecretsError, InvalidValue
from devbox_secrets.gateway import calls
from devbox_secrets.gateway.answers import CODES, Declined, bad_request, declined_by_the_cluster
from devbox_secrets.gateway.bodies import Creation, Nothing, Update, read_body
from devbox_secrets.gateway.callers import ACCOUNT_HEADER, Caller, Callers
from devbox_secrets.gateway.rates import Rates
from devbox_secrets.gateway.record import Record
from devbox_secrets.gateway.store import Store
from devbox_secrets.gateway.upstream import Upstream

LOG = logging.getLogger(__name__)
DEFAULT_LIMIT = 20
MAX_LIMIT = 5000


def application(
    upstream: Upstream, store: Store, body_seconds: float, rates: Rates, audit: logging.Logger | None
) -> ASGIApp:
    """Give the gateway as an ASGI application; calls within the rates are let in, and each has its line in `audit`."""
    app = FastAPI(title="devbox-secrets", openapi_url=None, redirect_slashes=False)

    def meet(user: str) -> None:
        calls.met(user)
        rates.take(user)

    callers = Callers(upstream, meet)

    async def find_caller(request: Request) -> Caller:
        caller = await callers.find(request.headers.get("authorization"), request.headers.get(ACCOUNT_HEADER))
        if caller.at_home:
            calls.in_account(caller.account)
        return caller

    who = Depends(find_caller)
    _probes(app)
    _all(app, store, who, body_seconds)
    # By id before by name. POST /v1/secrets/id/delete is by name all the same, since it has one part less.
    _one(app, ("/v1/secrets/id/{key}", "/update"), store, _noting(store.by_id), who, body_seconds)
    _one(app, ("/v1/secrets/{key}", ""), store, _noting(store.by_name), who, body_seconds)
    _errors(app)
    return calls.Calls(_Guard(app), audit)


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
    @app.post("/v1/secrets")
    async def create(request: Request, caller: Annotated[Caller, who]) -> Response:
        body = await read_body(request, Creation, body_seconds)
        return _view(_note(caller, await store.create(caller, body.name, _bytes(body.value), _request_id(request))))

    @app.get("/v1/secrets")
    async def page(
        caller: Annotated[Caller, who],
        limit: Annotated[int, Query(ge=0, le=MAX_LIMIT)] = DEFAULT_LIMIT,
        starting_after: str | None = None,
    ) -> Response:
        found = await store.page(caller, limit, starting_after)
        if found.total:  # an account that has secrets is one
            calls.in_account(caller.account)
        views = [record.view for record in found.records]
        return JSONResponse({"secrets": views, "has_more": found.more, "total_count": found.total})


def _one(
    app: FastAPI,
    path: tuple[str, str],
    store: Store,
    find: Callable[[Caller, str], Awaitable[Record]],
    who: Any,  # noqa: ANN401 - fastapi's own
    body_seconds: float,
) -> None:
    """Serve one secret at a path, and its update there or below."""
    place, update_below = path

    @app.get(place)
    async def get(key: str, caller: Annotated[Caller, who]) -> Response:
        return _view(await find(caller, key))

    @app.post(place + update_below)
    async def update(request: Request, key: str, caller: Annotated[Caller, who]) -> Response:
        body = await read_body(request, Update, body_seconds)
        value, request_id = _bytes(body.value), _request_id(request)
        return _view(await store.update(caller, partial(find, caller, key), value, request_id))

    @app.post(f"{place}/delete")
    async def delete(request: Request, key: str, caller: Annotated[Caller, who]) -> Response:
        await read_body(request, Nothing, body_seconds)
        return _view(await store.delete(caller, partial(find, caller, key)))


def _probes(app: FastAPI) -> None:
    # Ready as soon as it serves: while the API server is away it says so, with 503.
    @app.get("/healthz")
    @app.get("/readyz")
    async def probe() -> Response:
        return PlainTextResponse("ok")


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
    async def astray(_: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        what = "method there" if status == HTTPStatus.METHOD_NOT_ALLOWED else "endpoint"
        return _answer(Declined(status, f"there is no such {what}"), error.headers)

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


def _answer(declined: Declined, headers: Any = None) -> Response:  # noqa: ANN401 - starlette's own
    code = CODES.get(declined.status, declined.status.phrase.title().replace(" ", ""))
    content = {"message": str(declined), "code": code}
    return JSONResponse(content, declined.status, {**(headers or {}), **declined.headers})


def _view(record: Record) -> Response:
    return JSONResponse(record.view)


def _bytes(value: SecretStr) -> SecretBytes:
    try:
        return SecretBytes(value.get_secret_value().encode())
    except UnicodeEncodeError:
        # From None: the exception in hand carries the value.
        raise InvalidValue("the field `value` holds half of a surrogate pair, which isn't Unicode text") from None


def _request_id(request: Request) -> str | None:
    return request.headers.get("x-request-id")
