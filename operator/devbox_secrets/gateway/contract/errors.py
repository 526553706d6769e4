"""The contract's errors: a status, a code and a sentence for each request that fails. Pure."""

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

#: The word for each status; clients tell errors apart by the status, people by the sentence.
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
#: When to retry, in seconds; the SDKs wait that long.
RETRY_AFTER_SECONDS = 2
#: The SDKs ignore a longer time and retry at once.
MAX_RETRY_AFTER_SECONDS = 60
#: As soon as the client has another connection.
_RESTART_SECONDS = 0.1


class ErrorResponse(DevboxSecretsError):
    """The request gets this error as its response; the text is the message. It repeats nothing of the request."""

    def __init__(self, status: HTTPStatus, message: str, retry_after: float = 0, allow: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.allow = allow
        """The methods that a path has, for a request with another one."""
        self.retry_after = retry_after
        """Seconds until a retry makes sense; 0 where it makes none."""

    @property
    def headers(self) -> dict[str, str]:
        """Say how to authenticate, which methods there are, or when to retry: for the SDKs also in milliseconds."""
        if self.status == HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": "Bearer"}
        if self.status == HTTPStatus.METHOD_NOT_ALLOWED:
            return {"Allow": ", ".join(sorted(self.allow))}
        seconds = self.retry_after
        return {"Retry-After": str(ceil(seconds)), "Retry-After-Ms": str(ceil(seconds * 1000))} if seconds else {}


def bad_request(message: str) -> ErrorResponse:
    """Give the error for a request that can't be right as it was sent."""
    return ErrorResponse(HTTPStatus.BAD_REQUEST, message)


def method_not_allowed(allow: Iterable[str]) -> ErrorResponse:
    """Give the error for a method that a path doesn't have, which has those."""
    return ErrorResponse(HTTPStatus.METHOD_NOT_ALLOWED, "there is no such method there", allow=allow)


def not_found() -> ErrorResponse:
    """Give the error for a secret that doesn't exist; its name isn't repeated, since it may be a value."""
    return ErrorResponse(HTTPStatus.NOT_FOUND, "the account has no such secret")


def not_the_home(home: str) -> ErrorResponse:
    """Give the error for a creation in a namespace that a label gives to another account."""
    return ErrorResponse(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"a label gives this namespace to the account {home}, and secrets are made there alone: name it in the header"
        f" {ACCOUNT_HEADER}, with a token whose user has the role devbox-secrets-edit in {home}",
    )


def service_unavailable(message: str) -> ErrorResponse:
    """Give the error for what can't be done at the moment."""
    return _retryable(HTTPStatus.SERVICE_UNAVAILABLE, message, RETRY_AFTER_SECONDS)


def restarting() -> ErrorResponse:
    """Give the error for a request that came on a connection that is about to be closed; nothing of it was done."""
    return _retryable(HTTPStatus.SERVICE_UNAVAILABLE, "this connection ends, and another one serves", _RESTART_SECONDS)


def too_many_requests(message: str, retry_after: float) -> ErrorResponse:
    """Give the error for one request too many; the caller may retry after so many seconds."""
    seconds = min(max(retry_after, 0.001), MAX_RETRY_AFTER_SECONDS)
    return _retryable(HTTPStatus.TOO_MANY_REQUESTS, message, seconds)


def _retryable(status: HTTPStatus, message: str, seconds: float) -> ErrorResponse:
    unit = "second" if ceil(seconds) == 1 else "seconds"
    return ErrorResponse(status, f"{message}; try again in {ceil(seconds)} {unit}", seconds)


def error_response(error: DevboxSecretsError) -> ErrorResponse:
    """Give the response for any error of this package."""
    match error:
        case ErrorResponse():
            return error
        case APIError():
            return _from_api_server(error)
        case _:  # what api.validation says of names and values
            return bad_request(str(error))


def _from_api_server(error: APIError) -> ErrorResponse:
    """Say in the contract's words what the API server refused. None of its own words are passed on."""
    match error:
        case Unauthorized():
            return ErrorResponse(
                HTTPStatus.UNAUTHORIZED,
                "the cluster doesn't know this token, or it has expired: create one with devbox-secrets apikey create",
            )
        case Forbidden():
            return ErrorResponse(
                HTTPStatus.FORBIDDEN,
                "the cluster doesn't allow this to the token's user in this account: the role devbox-secrets-view"
                " lets it read there, devbox-secrets-edit also write; a quota or a policy may forbid it as well",
            )
        case NotFound():
            return not_found()
        case BadRequest() | TooLarge() | Invalid():
            return ErrorResponse(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "the cluster doesn't take the secret as it is; ask its administrators for their policies",
            )
        case _:
            return _later(error)


def _later(error: APIError) -> ErrorResponse:
    match error:
        case TooManyRequests():
            return too_many_requests("the cluster's API server has too many requests", error.retry_after)
        case RequestTimeout():
            return service_unavailable("the cluster's API server took too long to answer")
        case NotReady():
            return service_unavailable("the cluster's API server is starting, and can't tell yet who may do what")
        case _:
            return service_unavailable("the cluster's API server doesn't answer as it should")
