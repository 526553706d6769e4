"""The errors: one class for each thing that a caller can act on.

A message says what is wrong, where, and what to do next. It never holds a secret's value, nor
text that might be one: a plain-text value pasted in the place of a sealed one, for instance.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class DevboxSecretsError(Exception):
    """Any error of this package; its text is meant for the person who caused it."""


class MissingExtra(DevboxSecretsError):
    """The packages that a server needs, an extra of this one, aren't installed."""


class InvalidName(DevboxSecretsError):
    """The name can't be an environment variable's."""


class ReservedName(InvalidName):
    """The name is one by which a value could become code, or break a devbox."""


class InvalidAccount(DevboxSecretsError):
    """The text can't be an account: no namespace has such a name."""


class InvalidDescription(DevboxSecretsError):
    """The text can't be an AccountSecret's description."""


class InvalidDuration(DevboxSecretsError):
    """The text isn't a duration such as 90d."""


class InvalidValue(DevboxSecretsError):
    """The value can't be an environment variable's: not UTF-8, or with a NUL."""


class InvalidText(DevboxSecretsError):
    """The bytes aren't UTF-8 text."""


class ValueTooLarge(DevboxSecretsError):
    """The value is larger than the kernel takes in one environment variable."""


class InvalidKey(DevboxSecretsError):
    """The text isn't a sealing key of this format."""


class InvalidPassphrase(DevboxSecretsError):
    """The text can't be a backup's passphrase."""


class InvalidBackup(DevboxSecretsError):
    """The file isn't a backup of the sealing keys."""


class BackupLocked(DevboxSecretsError):
    """The backup doesn't open: a wrong passphrase or a damaged file, which nobody can tell apart."""


class KeyInUse(DevboxSecretsError):
    """The sealing key can't be removed: values need it, or the next value will."""


class NotConfirmed(DevboxSecretsError):
    """What can't be undone needs a yes, and there was nobody to ask."""


class KeyTooWide(DevboxSecretsError):
    """An API key would allow more than was asked for."""


class NotOurs(DevboxSecretsError):
    """What is there was made by someone else, for something else, and is left as it is."""


class NotSealed(DevboxSecretsError):
    """The text isn't a sealed value: another version, or no envelope at all."""


class UnknownKey(DevboxSecretsError):
    """The value is sealed with a key that isn't here."""


class CannotOpen(DevboxSecretsError):
    """The sealed value doesn't open. There is one error for every way that this can happen."""


class AmbiguousName(DevboxSecretsError):
    """Several AccountSecrets have that name."""


class ConfigError(DevboxSecretsError):
    """It isn't known which cluster to connect to, or how: no kubeconfig, no such context, a damaged file."""


class APIError(DevboxSecretsError):
    """A request to the API server failed. A subclass says how.

    `details` is the `details` field of the server's Status (metav1.StatusDetails): `kind` and `name` of the
    object that it's about, and `causes`.
    """

    status: ClassVar[int] = 0
    """The HTTP status code that stands for this error; 0 where there was no response."""

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details = details or {}

    @property
    def is_permanent(self) -> bool:
        """Whether the server understood and said no, so that a retry alone doesn't help."""
        return self.status in {400, 403, 413, 422}


class BadRequest(APIError):
    """The request is malformed."""

    status = 400


class Unauthorized(APIError):
    """The API server doesn't know who asks."""

    status = 401


class Forbidden(APIError):
    """The caller lacks the right, or a policy or quota says no."""

    status = 403


class NotFound(APIError):
    """There is no such object, or the cluster doesn't know its kind."""

    status = 404


class Conflict(APIError):
    """The object is in another state by now, already exists, or other field managers own what would change."""

    status = 409


class Expired(APIError):
    """The resource version or the list's continuation is too old."""

    status = 410


class TooLarge(APIError):
    """The request is larger than the API server takes."""

    status = 413


class Invalid(APIError):
    """The object breaks a rule of its kind or of a policy."""

    status = 422


class TooManyRequests(APIError):
    """The API server has too many requests."""

    status = 429

    def __init__(self, message: str, *, retry_after: float = 1, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, details=details)
        self.retry_after = retry_after
        """Seconds until a retry makes sense."""


class ServerError(APIError):
    """The API server failed, or the response isn't an API server's."""

    status = 500


class NotReady(APIError):
    """The API server has only just started and refuses everyone, since it hasn't read yet who may do what."""

    status = 503


class Unreachable(APIError):
    """There was no response: no connection, or it broke."""


class RequestTimeout(Unreachable):
    """There was no response in time."""


class NotLeader(APIError):
    """A write wasn't sent: this replica doesn't hold the Lease any more."""


_BY_STATUS: Mapping[int, type[APIError]] = {
    each.status: each
    for each in (
        *(BadRequest, Unauthorized, Forbidden, NotFound, Conflict, Expired, TooLarge, Invalid, TooManyRequests),
        ServerError,
    )
}


def api_error(status: int, message: str, details: Mapping[str, Any] | None = None) -> APIError:
    """Give the error for an HTTP status code of the API server's."""
    return _BY_STATUS.get(status, ServerError)(message, details=details)
