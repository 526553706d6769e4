"""The contract's errors: a status, a code and a message for each failed request. Pure."""

from collections.abc import Iterable
from http import HTTPStatus
from math import ceil
from types import MappingProxyType

from devbox_secrets.errors import (
    APIError,
    BadRequest,
    DevboxSecretsError,
    Forbidden,
    Invalid,
    NotFound,
    NotReady,
    RequestTimeout,
    TooLarge,
    TooManyRequests,
    Unauthorized,
)

#: The code for each status; clients tell errors apart by the status, people by the message.
CODES = MappingProxyType(
    {
        HTTPStatus.BAD_REQUEST: "BadRequest",
        HTTPStatus.UNAUTHORIZED: "Unauthorized",
        HTTPStatus.FORBIDDEN: "Forbidden",
        HTTPStatus.NOT_FOUND: "NotFound",
        HTTPStatus.METHOD_NOT_ALLOWED: "MethodNotAllowed",
        HTTPStatus.REQUEST_TIMEOUT: "RequestTimeout",
        HTTPStatus.UNPROCESSABLE_ENTITY: "UnprocessableEntity",
        HTTPStatus.TOO_MANY_REQUESTS: "TooManyRequests",
        HTTPStatus.INTERNAL_SERVER_ERROR: "InternalServerError",
        HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailable",
    }
)
ACCOUNT_HEADER = "X-Devbox-Secrets-Account"
#: Seconds until a retry; the SDKs wait that long.
RETRY_AFTER_SECONDS = 2
#: The SDKs ignore a longer time and retry at once.
MAX_RETRY_AFTER_SECONDS = 60
#: Enough time for the client to open another connection.
_RESTART_SECONDS = 0.1


class ErrorResponse(DevboxSecretsError):
    """An error response; the text is its message. It repeats nothing from the request."""

    def __init__(self, status: HTTPStatus, message: str, retry_after: float = 0, allow: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.allow = allow
        """The methods that the path supports, for a request with another one."""
        self.retry_after = retry_after
        """Seconds until a retry makes sense; 0 if it doesn't."""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that say how to authenticate, which methods are allowed, or when to retry.

        The SDKs also read the time to retry in milliseconds.
        """
        if self.status == HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": "Bearer"}
        if self.status == HTTPStatus.METHOD_NOT_ALLOWED:
            return {"Allow": ", ".join(sorted(self.allow))}
        seconds = self.retry_after
        return {"Retry-After": str(ceil(seconds)), "Retry-After-Ms": str(ceil(seconds * 1000))} if seconds else {}


def bad_request(message: str) -> ErrorResponse:
    """Return the error for a request that is invalid."""
    return ErrorResponse(HTTPStatus.BAD_REQUEST, message)


def method_not_allowed(allow: Iterable[str]) -> ErrorResponse:
    """Return the error for a method that a path doesn't support; it supports those in `allow`."""
    return ErrorResponse(HTTPStatus.METHOD_NOT_ALLOWED, "method not allowed", allow=allow)


def not_found() -> ErrorResponse:
    """Return the error for a secret that doesn't exist; its name isn't repeated, since it may be a value."""
    return ErrorResponse(HTTPStatus.NOT_FOUND, "secret not found in this account")


def not_the_home(home: str) -> ErrorResponse:
    """Return the error for a creation in a namespace that belongs to another account."""
    return ErrorResponse(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"this namespace belongs to the account {home}; name that account in the header {ACCOUNT_HEADER}, and use a"
        f" token whose user has the role devbox-secrets-edit in {home}",
    )


def service_unavailable(message: str) -> ErrorResponse:
    """Return the error for what isn't possible at the moment."""
    return _retryable(HTTPStatus.SERVICE_UNAVAILABLE, message, RETRY_AFTER_SECONDS)


def restarting() -> ErrorResponse:
    """Return the error for a request on a connection that is about to be closed; it had no effect."""
    return _retryable(HTTPStatus.SERVICE_UNAVAILABLE, "this connection is being closed", _RESTART_SECONDS)


def too_many_requests(message: str, retry_after: float) -> ErrorResponse:
    """Return the error for too many requests; the caller may retry after `retry_after` seconds."""
    seconds = min(max(retry_after, 0.001), MAX_RETRY_AFTER_SECONDS)
    return _retryable(HTTPStatus.TOO_MANY_REQUESTS, message, seconds)


def _retryable(status: HTTPStatus, message: str, seconds: float) -> ErrorResponse:
    unit = "second" if ceil(seconds) == 1 else "seconds"
    return ErrorResponse(status, f"{message}; try again in {ceil(seconds)} {unit}", seconds)


def error_response(error: DevboxSecretsError) -> ErrorResponse:
    """Return the response for any error of this package."""
    match error:
        case ErrorResponse():
            return error
        case APIError():
            return _from_api_server(error)
        case _:  # from api.validation, about names and values
            return bad_request(str(error))


def _from_api_server(error: APIError) -> ErrorResponse:
    """Describe the API server's error in the contract's words; none of its own text is passed on."""
    match error:
        case Unauthorized():
            return ErrorResponse(
                HTTPStatus.UNAUTHORIZED,
                "the token is invalid or has expired; create a new one with devbox-secrets apikey create",
            )
        case Forbidden():
            return ErrorResponse(
                HTTPStatus.FORBIDDEN,
                "the token's user isn't allowed to do this in this account; reading needs the role"
                " devbox-secrets-view, writing devbox-secrets-edit. A quota or a policy may also forbid it",
            )
        case NotFound():
            return not_found()
        case BadRequest() | TooLarge() | Invalid():
            return ErrorResponse(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "the cluster rejected the secret; ask its administrators which policies apply",
            )
        case _:
            return _later(error)


def _later(error: APIError) -> ErrorResponse:
    match error:
        case TooManyRequests():
            return too_many_requests("the Kubernetes API server has too many requests", error.retry_after)
        case RequestTimeout():
            return service_unavailable("the Kubernetes API server took too long to respond")
        case NotReady():
            return service_unavailable("the Kubernetes API server is starting and hasn't loaded the roles yet")
        case _:
            return service_unavailable("the Kubernetes API server is unavailable")
