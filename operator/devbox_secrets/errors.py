"""What can go wrong: one class for each thing that a caller can act on. Imports nothing of ours.

A message says what is wrong, where, and what to do next. It never holds a secret's value, nor
text that might be one: a plain-text value pasted in the place of a sealed one, for instance.
"""


class DevboxSecretsError(Exception):
    """Any error of this package; its text is meant for the person who caused it."""


class InvalidName(DevboxSecretsError):
    """The name can't be an environment variable's."""


class InvalidAccount(DevboxSecretsError):
    """The text can't be an account: no namespace has such a name."""


class InvalidDescription(DevboxSecretsError):
    """The text can't be an AccountSecret's description."""


class InvalidDuration(DevboxSecretsError):
    """The text isn't a duration such as 90d."""


class InvalidValue(DevboxSecretsError):
    """The value can't be an environment variable's: not UTF-8, or with a NUL."""


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


class NotFound(DevboxSecretsError):
    """No AccountSecret has that name, or not one alone."""


class ClusterError(DevboxSecretsError):
    """The API server refused a request, or couldn't be reached.

    `status` is its HTTP status code, 0 where there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def final(self) -> bool:
        """Whether the server understood and said no, so that time alone doesn't mend it."""
        return self.status in {400, 403, 413, 422}
