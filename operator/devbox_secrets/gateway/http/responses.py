"""Writes responses: a model as JSON, and an error for each exception."""

import logging
from http import HTTPStatus

from starlette.responses import Response

from devbox_secrets.errors import DevboxSecretsError
from devbox_secrets.gateway.contract.errors import CODES, ErrorResponse, error_response
from devbox_secrets.gateway.contract.responses import ErrorView, ResponseBody

LOG = logging.getLogger(__name__)
JSON = "application/json"


def json_response(content: ResponseBody) -> Response:
    """Write a model as JSON."""
    return Response(content.model_dump_json(), media_type=JSON)


def json_error(error: DevboxSecretsError) -> Response:
    """Respond with an error of this package; log it if the caller isn't at fault."""
    response = error_response(error)
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR and response is not error:
        LOG.warning("%s", error)
    return _write(response)


def json_failure(error: Exception) -> Response:
    """Respond to an unexpected error; log only its type and place, since its text and traceback may contain a value."""
    LOG.error("%s: %s", _origin(error), type(error).__name__)
    return _write(ErrorResponse(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; see the gateway's log"))


def _write(error: ErrorResponse) -> Response:
    body = ErrorView(message=str(error), code=CODES[error.status])
    return Response(body.model_dump_json(), error.status, error.headers, JSON)


def _origin(error: BaseException) -> str:
    """Return the line of code that failed, which contains no value."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "nowhere"
