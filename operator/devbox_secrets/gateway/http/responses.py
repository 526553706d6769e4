"""Writes responses: a model as JSON, and an error for each exception."""

import logging
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from devbox_secrets.errors import DevboxSecretsError
from devbox_secrets.gateway.contract.errors import CODES, ErrorResponse, bad_request, error_response
from devbox_secrets.gateway.contract.requests import MAX_LIMIT
from devbox_secrets.gateway.contract.responses import ErrorView

LOG = logging.getLogger(__name__)
Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]


def json_response(
    content: BaseModel, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """Write a model as JSON."""
    return Response(content.model_dump_json(), status, headers, "application/json")


def _error(error: ErrorResponse, headers: Mapping[str, str] | None = None) -> Response:
    body = ErrorView(message=str(error), code=CODES[error.status])
    return json_response(body, error.status, {**(headers or {}), **error.headers})


async def _on_error(_: Request, error: DevboxSecretsError) -> Response:
    response = error_response(error)
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR and response is not error:
        LOG.warning("%s", error)
    return _error(response)


async def _on_invalid_parameter(_: Request, __: RequestValidationError) -> Response:
    return _error(bad_request(f"limit must be a number from 0 to {MAX_LIMIT}"))


async def _on_no_route(request: Request, error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    if status != HTTPStatus.METHOD_NOT_ALLOWED:
        return _error(ErrorResponse(status, "there is no such endpoint"))
    # Starlette names the methods of the first route that has the path; another may have it, too.
    matching = [route for route in request.app.routes if route.matches(request.scope)[0] != Match.NONE]
    methods = sorted({method for route in matching for method in getattr(route, "methods", ())})
    return _error(ErrorResponse(status, "there is no such method there"), {"Allow": ", ".join(methods)})


async def _on_unexpected(_: Request, __: Exception) -> Response:
    return _error(ErrorResponse(HTTPStatus.INTERNAL_SERVER_ERROR, "the gateway failed; its log says at what"))


EXCEPTION_HANDLERS: Mapping[int | type[Exception], Handler] = MappingProxyType(
    {
        DevboxSecretsError: _on_error,
        RequestValidationError: _on_invalid_parameter,
        HTTPException: _on_no_route,
        Exception: _on_unexpected,
    }
)
