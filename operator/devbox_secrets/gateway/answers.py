"""What the gateway answers when it can't do what was asked: a status, a code and a sentence. Imports errors alone."""

from http import HTTPStatus
from math import ceil
from types import MappingProxyType

from devbox_secrets.errors import ClusterError, DevboxSecretsError

#: The word beside each status; clients tell errors apart by the status, people by the sentence.
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
#: When to come again, in seconds; the SDKs wait that long before they do.
RETRY_AFTER_SECONDS = 2
#: A longer time the SDKs wouldn't wait, but come at once.
MOST_RETRY_AFTER_SECONDS = 60


class Busy(ClusterError):
    """The API server has too many requests, and says after how many seconds to come again."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message, HTTPStatus.TOO_MANY_REQUESTS)
        self.seconds = seconds


class Late(ClusterError):
    """The API server didn't answer within so many seconds."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class Declined(DevboxSecretsError):
    """What was asked for isn't done; the text is the answer's message. It repeats nothing of the request."""

    def __init__(self, status: HTTPStatus, message: str, retry_seconds: float = 0) -> None:
        super().__init__(message)
        self.status = status
        self._retry_seconds = retry_seconds

    @property
    def headers(self) -> dict[str, str]:
        """Say what to come with, or when to come again: in seconds, and to the millisecond for the SDKs."""
        if self.status == HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": "Bearer"}
        wait = self._retry_seconds
        return {"Retry-After": str(ceil(wait)), "Retry-After-Ms": str(ceil(wait * 1000))} if wait else {}


def bad_request(message: str) -> Declined:
    """Decline what can't be right as it was sent."""
    return Declined(HTTPStatus.BAD_REQUEST, message)


def not_found() -> Declined:
    """Decline what speaks of a secret that isn't there; a name isn't repeated, since it may be a value."""
    return Declined(HTTPStatus.NOT_FOUND, "the account has no such secret")


def not_the_home(home: str) -> Declined:
    """Decline what a policy of ours refused, since its namespace belongs to another account by a label."""
    return Declined(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"a label gives this namespace to the account {home}, and secrets are made there alone: name it in the header"
        f" {ACCOUNT_HEADER}, with a token whose user has the role devbox-secrets-edit in {home}",
    )


def later(message: str) -> Declined:
    """Decline for now."""
    return _again(HTTPStatus.SERVICE_UNAVAILABLE, message, RETRY_AFTER_SECONDS)


def too_many(message: str, seconds: float) -> Declined:
    """Decline because there are too many calls."""
    return _again(HTTPStatus.TOO_MANY_REQUESTS, message, min(max(seconds, 0.001), MOST_RETRY_AFTER_SECONDS))


def _again(status: HTTPStatus, message: str, seconds: float) -> Declined:
    return Declined(status, f"{message}; try again in {ceil(seconds)} second{'s' * (ceil(seconds) != 1)}", seconds)


def declined_by_the_cluster(error: ClusterError) -> Declined:
    """Say in the contract's words what the API server refused."""
    match error.status:
        case HTTPStatus.UNAUTHORIZED:
            return Declined(
                HTTPStatus.UNAUTHORIZED,
                "the cluster doesn't know this token, or its time is over: make another with devbox-secrets token",
            )
        case HTTPStatus.FORBIDDEN:
            return Declined(
                HTTPStatus.FORBIDDEN,
                "the cluster doesn't allow this to the token's user in this account: the role devbox-secrets-view"
                " lets it read there, devbox-secrets-edit also write; a quota or a policy may forbid it as well",
            )
        case HTTPStatus.NOT_FOUND:
            return not_found()
        case HTTPStatus.BAD_REQUEST | HTTPStatus.REQUEST_ENTITY_TOO_LARGE | HTTPStatus.UNPROCESSABLE_ENTITY:
            return Declined(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "the cluster doesn't take the secret as it is; ask its administrators for their policies",
            )
        case _:
            return _for_now(error)


def _for_now(error: ClusterError) -> Declined:
    match error:
        case Busy():
            return too_many("the cluster's API server has too many requests", error.seconds)
        case Late():
            return later(f"the cluster's API server took longer than {error.seconds:g} seconds")
        case _:
            return later("the cluster's API server doesn't answer as it should")
