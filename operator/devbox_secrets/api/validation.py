"""Validates names, values, accounts, descriptions and durations; has the reserved names.

Each check raises an error that says what to do. None repeats what was given where it could be a value.
"""

import re
from collections.abc import Iterable
from datetime import timedelta
from fnmatch import fnmatchcase

from pydantic import SecretBytes

from devbox_secrets.errors import (
    InvalidAccount,
    InvalidDescription,
    InvalidDuration,
    InvalidName,
    InvalidValue,
    ReservedName,
    ValueTooLarge,
)

VARIABLE_PATTERN = "^[A-Za-z_][A-Za-z0-9_]*$"
VARIABLE_MAX_LENGTH = 253  # a Secret's key can't be longer
SEALED_PATTERN = "^dbs1[.][0-9a-f]{16}[.][A-Za-z0-9_-]+$"
#: An empty value's: the prefix (22 characters) and base64url of an encapsulated key (1,120 bytes)
#: with AES-GCM's tag (16 bytes).
SEALED_MIN_LENGTH = 22 + 1515
DESCRIPTION_MAX_LENGTH = 1024
#: What names most objects (RFC 1123's subdomain, and a little more); it becomes a part of a URL.
OBJECT_NAME_PATTERN = "^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
#: What names a namespace (RFC 1123's label).
ACCOUNT_PATTERN = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
ROTATE_AFTER_PATTERN = "^[1-9][0-9]{0,4}[dhm]$"

#: Bytes of NAME=value with the NUL at its end that Linux takes (MAX_ARG_STRLEN, execve(2)).
VARIABLE_MAX_BYTES = 131_072
#: Bytes of all of a Secret's values (MaxSecretSize, Kubernetes' core/v1 types).
SECRET_MAX_BYTES = 1_048_576
#: Bytes that its variables' names may take beside them: etcd refuses an object of more than
#: 1,572,864 bytes (its --max-request-bytes), and some are for the rest of it.
SECRET_NAMES_MAX_BYTES = 500_000
#: base64url of the largest value, sealed.
SEALED_MAX_LENGTH = 22 + -(-(1120 + VARIABLE_MAX_BYTES + 16) * 4 // 3)

#: Variables by which a value becomes code, or a devbox stops being itself: the loader's and the
#: shell's, the interpreters' start-up hooks, what decides which programs and certificates are used.
RESERVED_NAMES = (
    "PATH", "HOME", "USER", "SHELL", "PWD", "HOSTNAME", "IFS", "ENV", "PS4", "TMPDIR",
    "LD_*", "DYLD_*", "GCONV_PATH", "LOCPATH", "NLSPATH", "GLIBC_TUNABLES", "MALLOC_*",
    "BASH_ENV", "BASH_FUNC_*", "BASHOPTS", "SHELLOPTS", "PROMPT_COMMAND", "ZDOTDIR",
    "KUBERNETES_*",
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT",
    "PYTHONWARNINGS", "PYTHONUSERBASE", "PYTHONEXECUTABLE",
    "NODE_OPTIONS", "NODE_PATH", "NODE_EXTRA_CA_CERTS",
    "PERL5LIB", "PERL5OPT", "PERL5DB", "PERLLIB", "RUBYLIB", "RUBYOPT", "GEM_PATH", "GEM_HOME",
    "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH",
    "GIT_SSH", "GIT_SSH_COMMAND", "GIT_EXEC_PATH", "GIT_CONFIG*", "GIT_ASKPASS", "GIT_EDITOR",
    "GIT_PAGER", "GIT_EXTERNAL_DIFF", "GIT_PROXY_COMMAND", "GIT_TEMPLATE_DIR", "SSH_ASKPASS",
    "EDITOR", "VISUAL", "PAGER", "BROWSER", "LESSOPEN", "LESSCLOSE", "MANPAGER",
    "OPENSSL_CONF", "OPENSSL_MODULES", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip


def is_reserved(variable: str, reserved: Iterable[str]) -> bool:
    """Tell whether a variable is reserved; `*` at a pattern's end stands for anything."""
    return any(fnmatchcase(variable, pattern) for pattern in reserved)


def reserved_name(variable: str) -> ReservedName:
    """Give the error for a reserved name."""
    return ReservedName(
        f"{variable} is reserved, since it could run code in every devbox or break it;"
        " choose another name, and map it inside the devbox if a program needs this one"
    )


def check_variable(name: str) -> None:
    """Refuse a name that no environment variable can have.

    Raises:
        InvalidName: it isn't letters, digits and `_`, starts with a digit, or is longer than 253.
    """
    if not re.fullmatch(VARIABLE_PATTERN, name, re.ASCII):
        # What was given in the name's place may be a value: it isn't repeated.
        raise InvalidName(
            "that can't be the name of an environment variable: use letters, digits and _,"
            " not starting with a digit, such as GITHUB_TOKEN"
        )
    if len(name) > VARIABLE_MAX_LENGTH:
        raise InvalidName(f"the name has {len(name)} characters; {VARIABLE_MAX_LENGTH} is the most")


def check_account(name: str) -> None:
    """Refuse an account that no namespace can be: a value sealed for it would open nowhere.

    Raises:
        InvalidAccount: it isn't lowercase letters, digits and `-`, or is longer than 63.
    """
    if not re.fullmatch(ACCOUNT_PATTERN, name, re.ASCII):
        raise InvalidAccount(
            f"{name!r} can't be an account, which is a namespace: use up to 63 small letters, digits"
            " and -, such as team-a"
        )


def check_description(text: str | None) -> None:
    """Refuse a description that `spec.description` can't have.

    Raises:
        InvalidDescription: it isn't UTF-8, or is longer than 1,024 characters.
    """
    if text is None:
        return
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidDescription("the description isn't UTF-8 text")
    if len(text) > DESCRIPTION_MAX_LENGTH:
        raise InvalidDescription(
            f"the description has {len(text):,} characters; {DESCRIPTION_MAX_LENGTH:,} is the most"
        )


def check_rotate_after(duration: str | None) -> None:
    """Refuse a duration that `spec.rotateAfter` can't have.

    Raises:
        InvalidDuration: it isn't a number of days, hours or minutes.
    """
    if duration is not None and not re.fullmatch(ROTATE_AFTER_PATTERN, duration):
        raise InvalidDuration(f"{duration!r} isn't a number of days, hours or minutes, such as 90d or 12h")


def parse_duration(text: str) -> timedelta:
    """Read a duration as `spec.rotateAfter` has it: 90d, 12h, 30m.

    Raises:
        InvalidDuration: it isn't a number of days, hours or minutes.
    """
    check_rotate_after(text)
    unit = {"d": "days", "h": "hours", "m": "minutes"}[text[-1]]
    return timedelta(**{unit: int(text[:-1])})


def check_value(name: str, value: SecretBytes) -> None:
    """Refuse a value that the environment variable `name` can't have.

    Raises:
        InvalidValue: it isn't UTF-8, or holds a NUL.
        ValueTooLarge: `NAME=value` and its NUL are over 131,072 bytes.
    """
    raw = value.get_secret_value()
    if b"\0" in raw:
        raise InvalidValue(
            f"the value of {name} holds a NUL byte, which ends an environment variable;"
            " encode binary data first, for instance with base64"
        )
    try:
        raw.decode()
    except UnicodeDecodeError:
        # From None: the exception in hand carries the value.
        raise InvalidValue(
            f"the value of {name} isn't UTF-8 text; encode binary data first, for instance with base64"
        ) from None
    size = len(name) + 1 + len(raw) + 1
    if size > VARIABLE_MAX_BYTES:
        raise ValueTooLarge(
            f"{name} and its value take {size:,} bytes; an environment variable can have {VARIABLE_MAX_BYTES:,}"
        )
