"""What the gateway answers when it can't do what was asked: a status, a code and a sentence. Imports errors alone."""

from http import HTTPStatus
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
        HTTPStatus.INTERNAL_SERVER_ERROR: "InternalServerError",
        HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailable",
    }
)
ACCOUNT_HEADER = "X-Devbox-Secrets-Account"
#: When to come again, in seconds; the SDKs wait that long before they do.
RETRY_AFTER_SECONDS = 2
#: What goes with a status besides its sentence.
MORE_HEADERS = MappingProxyType(
    {
        HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
        HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": str(RETRY_AFTER_SECONDS)},
    }
)


class Declined(DevboxSecretsError):
    """What was asked for isn't done; the text is the answer's message. It repeats nothing of the request."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


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
    return Declined(HTTPStatus.SERVICE_UNAVAILABLE, f"{message}; try again in {RETRY_AFTER_SECONDS} seconds")


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
            return later("the cluster's API server doesn't answer as it should")
