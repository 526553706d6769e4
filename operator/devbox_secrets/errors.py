"""The errors: one class for each condition that a caller can act on.

A message says what is wrong, where, and what to do next. It never contains a secret's value, nor
text that might be one, such as a plain-text value pasted in place of a sealed value.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class DevboxSecretsError(Exception):
    """Base class of this package's errors; the message is for the person who caused the error."""


class MissingExtra(DevboxSecretsError):
    """The packages that a server needs aren't installed; they are an extra of this package."""


class InvalidName(DevboxSecretsError):
    """The name isn't a valid environment variable name."""


class ReservedName(InvalidName):
    """The name is reserved: a value under it could run code in devboxes or break them."""


class InvalidAccount(DevboxSecretsError):
    """The account isn't a valid namespace name."""


class InvalidDescription(DevboxSecretsError):
    """The text isn't a valid description of an AccountSecret."""


class InvalidDuration(DevboxSecretsError):
    """The text isn't a duration such as 90d."""


class InvalidValue(DevboxSecretsError):
    """The value can't be stored in an environment variable: it isn't UTF-8, or it contains a NUL."""


class InvalidText(DevboxSecretsError):
    """The bytes aren't UTF-8 text."""


class ValueTooLarge(DevboxSecretsError):
    """The value is larger than the kernel's limit for one environment variable."""


class InvalidKey(DevboxSecretsError):
    """The text isn't a sealing key in this format."""


class InvalidPassphrase(DevboxSecretsError):
    """The text isn't a valid passphrase for a backup."""


class InvalidBackup(DevboxSecretsError):
    """The file isn't a backup of the sealing keys."""


class BackupLocked(DevboxSecretsError):
    """The backup can't be decrypted: the passphrase is wrong or the file is damaged, which look the same."""


class KeyInUse(DevboxSecretsError):
    """The sealing key can't be removed: it is needed to open values, or to seal new ones."""


class NotConfirmed(DevboxSecretsError):
    """An action that can't be undone needs a confirmation, and standard input isn't a terminal."""


class KeyTooWide(DevboxSecretsError):
    """An API key would have more permissions than requested."""


class NotOurs(DevboxSecretsError):
    """The existing object or file wasn't created by devbox-secrets, so it isn't changed."""


class NotSealed(DevboxSecretsError):
    """The text isn't a sealed value, or one of an unsupported version."""


class UnknownKey(DevboxSecretsError):
    """The value is sealed with a key that isn't available."""


class CannotOpen(DevboxSecretsError):
    """The sealed value can't be opened. Every cause raises the same error."""


class AmbiguousName(DevboxSecretsError):
    """Several AccountSecrets set the variable."""


class ConfigError(DevboxSecretsError):
    """The cluster's configuration can't be determined: no kubeconfig, no such context, or a damaged file."""


class APIError(DevboxSecretsError):
    """A request to the API server failed; each subclass is one kind of failure.

    `details` is the `details` field of the server's Status (metav1.StatusDetails): the `kind` and `name` of the
    object, and the `causes`.
    """

    status: ClassVar[int] = 0
    """The HTTP status code of this error; 0 if there was no response."""

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details = details or {}

    @property
    def is_permanent(self) -> bool:
        """Whether the server understood and rejected the request, so that a retry can't succeed."""
        return self.status in {400, 403, 413, 422}


class BadRequest(APIError):
    """The request is malformed."""

    status = 400


class Unauthorized(APIError):
    """The API server can't authenticate the caller."""

    status = 401


class Forbidden(APIError):
    """The caller lacks the permission, or a policy or quota rejected the request."""

    status = 403


class NotFound(APIError):
    """The object or its kind doesn't exist."""

    status = 404


class Conflict(APIError):
    """The object has changed or already exists, or other field managers own the fields to change."""

    status = 409


class Expired(APIError):
    """The resource version or the list's continue token has expired."""

    status = 410


class TooLarge(APIError):
    """The request is larger than the API server's limit."""

    status = 413


class Invalid(APIError):
    """The object violates its schema or a policy."""

    status = 422


class TooManyRequests(APIError):
    """The API server is limiting requests."""

    status = 429

    def __init__(self, message: str, *, retry_after: float = 1, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, details=details)
        self.retry_after = retry_after
        """Seconds to wait before the next attempt."""


class ServerError(APIError):
    """The API server failed, or the response didn't come from an API server."""

    status = 500


class NotReady(APIError):
    """The API server has just started and rejects every request until its authorizer is ready."""

    status = 503


class Unreachable(APIError):
    """There was no response: the connection failed or was lost."""


class RequestTimeout(Unreachable):
    """There was no response in time."""


class NotLeader(APIError):
    """A write wasn't sent because this replica no longer holds the Lease."""


_BY_STATUS: Mapping[int, type[APIError]] = {
    each.status: each
    for each in (
        *(BadRequest, Unauthorized, Forbidden, NotFound, Conflict, Expired, TooLarge, Invalid, TooManyRequests),
        ServerError,
    )
}


def api_error(status: int, message: str, details: Mapping[str, Any] | None = None) -> APIError:
    """Return the error for an HTTP status code from the API server."""
    return _BY_STATUS.get(status, ServerError)(message, details=details)
