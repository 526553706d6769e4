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
from devbox_secrets.gateway.answers import (
    ACCOUNT_HEADER,
    CODES,
    RETRY_AFTER_SECONDS,
    Declined,
    bad_request,
    declined_by_the_cluster,
)
from devbox_secrets.gateway.bodies import Creation, Nothing, Update, read_body
from devbox_secrets.gateway.callers import Caller, Callers
from devbox_secrets.gateway.record import Record
from devbox_secrets.gateway.store import Store
from devbox_secrets.gateway.upstream import Upstream
from devbox_secrets.gateway.waiting import Hold, Waiting, hold_of, refuse_wait

LOG = logging.getLogger(__name__)
DEFAULT_LIMIT = 20
MAX_LIMIT = 5000
Holds = Annotated[Hold, Depends(hold_of)]


def application(upstream: Upstream, store: Store, waiting: Waiting, body_seconds: float) -> ASGIApp:
    """Give the gateway as an ASGI application."""
    app = FastAPI(title="devbox-secrets", openapi_url=None, redirect_slashes=False)
    app.state.waiting = waiting
    callers = Callers(upstream)

    async def find_caller(request: Request) -> Caller:
        return await callers.find(request.headers.get("authorization"), request.headers.get(ACCOUNT_HEADER))

    who = Depends(find_caller)
    _probes(app)
    _all(app, store, who, body_seconds)
    # By id before by name. POST /v1/secrets/id/delete is by name all the same, since it has one part less.
    _one(app, ("/v1/secrets/id/{key}", "/update"), store, store.by_id, who, body_seconds)
    _one(app, ("/v1/secrets/{key}", ""), store, store.by_name, who, body_seconds)
    _errors(app)
    return _Guard(app)


def _all(app: FastAPI, store: Store, who: Any, body_seconds: float) -> None:  # noqa: ANN401 - fastapi's own
    @app.post("/v1/secrets")
    async def create(request: Request, caller: Annotated[Caller, who], hold: Holds) -> Response:
        body = await read_body(request, Creation, body_seconds)
        made = await store.create(caller, body.name, _bytes(body.value), _request_id(request))
        return _view(await hold(caller, made))

    @app.get("/v1/secrets")
    async def page(
        caller: Annotated[Caller, who],
        limit: Annotated[int, Query(ge=0, le=MAX_LIMIT)] = DEFAULT_LIMIT,
        starting_after: str | None = None,
    ) -> Response:
        found = await store.page(caller, limit, starting_after)
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
    async def update(request: Request, key: str, caller: Annotated[Caller, who], hold: Holds) -> Response:
        body = await read_body(request, Update, body_seconds)
        value, request_id = _bytes(body.value), _request_id(request)
        updated = await store.update(caller, partial(find, caller, key), value, request_id)
        return _view(await hold(caller, updated))

    @app.post(f"{place}/delete")
    async def delete(request: Request, key: str, caller: Annotated[Caller, who]) -> Response:
        refuse_wait(request)
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
    more = {"Retry-After": str(RETRY_AFTER_SECONDS)} if declined.status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return JSONResponse(content, declined.status, {**(headers or {}), **more})


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
