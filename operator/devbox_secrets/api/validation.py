"""Validates names, values, accounts, descriptions and durations; defines the reserved names.

Each check raises an error that says what to do. No error repeats the input if it could be a value.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING

from devbox_secrets.errors import (
    InvalidAccount,
    InvalidDescription,
    InvalidDuration,
    InvalidName,
    InvalidValue,
    ReservedName,
    ValueTooLarge,
)

if TYPE_CHECKING:  # the command line checks names before its slow imports
    from pydantic import SecretBytes

VARIABLE_PATTERN = "^[A-Za-z_][A-Za-z0-9_]*$"
VARIABLE_MAX_LENGTH = 253  # a Secret's key can't be longer
SEALED_PATTERN = "^dbs1[.][0-9a-f]{16}[.][A-Za-z0-9_-]+$"
#: The length for an empty value: the prefix (22 characters) and base64url of an encapsulated key
#: (1,120 bytes) with AES-GCM's tag (16 bytes).
SEALED_MIN_LENGTH = 22 + 1515
DESCRIPTION_MAX_LENGTH = 1024
#: The name of most objects (RFC 1123 subdomain, slightly relaxed); it becomes part of a URL.
OBJECT_NAME_PATTERN = "^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
#: The name of a namespace (RFC 1123 label).
ACCOUNT_PATTERN = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
ROTATE_AFTER_PATTERN = "^[1-9][0-9]{0,4}[dhm]$"

#: Linux's maximum for NAME=value with the final NUL, in bytes (MAX_ARG_STRLEN, execve(2)).
VARIABLE_MAX_BYTES = 131_072
#: Maximum size of all of a Secret's values, in bytes (MaxSecretSize, Kubernetes' core/v1 types).
SECRET_MAX_BYTES = 1_048_576
#: Maximum size of the variables' names besides the values, in bytes: etcd rejects objects of more than
#: 1,572,864 bytes (its --max-request-bytes), and the rest of the object needs some.
SECRET_NAMES_MAX_BYTES = 500_000
#: The length for the largest value, sealed and in base64url.
SEALED_MAX_LENGTH = 22 + -(-(1120 + VARIABLE_MAX_BYTES + 16) * 4 // 3)

#: Variables whose value could run code or break a devbox: those of the loader and of shells, start-up
#: hooks of runtimes, and those that choose programs, modules or certificates. Variables with tools'
#: credentials are allowed, such as NPM_TOKEN, COMPOSER_AUTH or CARGO_REGISTRY_TOKEN.
RESERVED_NAMES = (
    # The system, the loader, the C library.
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "HOSTNAME", "TMPDIR", "XDG_*", "KUBERNETES_*",
    "LD_*", "DYLD_*", "GCONV_PATH", "GETCONF_DIR", "LOCPATH", "NLSPATH", "GLIBC_TUNABLES", "MALLOC_*",
    "HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS", "RESOLV_HOST_CONF", "NIS_PATH", "TZDIR",
    # Shells, and what they run.
    "IFS", "ENV", "PS4", "BASH_ENV", "BASH_FUNC_*", "BASHOPTS", "SHELLOPTS", "PROMPT_COMMAND", "ZDOTDIR",
    "CDPATH", "FPATH", "GLOBIGNORE", "POSIXLY_CORRECT", "TMOUT", "INPUTRC", "NULLCMD", "READNULLCMD",
    "EDITOR", "VISUAL", "PAGER", "BROWSER", "LESSOPEN", "LESSCLOSE", "LESSKEY*", "MANPAGER", "SYSTEMD_PAGER",
    "VIMINIT", "EXINIT", "EMACSLOADPATH", "SUDO_ASKPASS", "SUDO_EDITOR", "SSH_ASKPASS", "RSYNC_RSH",
    "TERMCAP", "TERMINFO*",
    # Version control.
    "GIT_SSH", "GIT_SSH_COMMAND", "GIT_EXEC_PATH", "GIT_CONFIG*", "GIT_ASKPASS", "GIT_EDITOR",
    "GIT_SEQUENCE_EDITOR", "GIT_PAGER", "GIT_EXTERNAL_DIFF", "GIT_PROXY_COMMAND", "GIT_TEMPLATE_DIR",
    "GIT_ALLOW_PROTOCOL", "GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY", "GIT_SSL_NO_VERIFY", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "HGRCPATH", "SVN_SSH",
    # Runtimes.
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT", "PYTHONWARNINGS",
    "PYTHONUSERBASE", "PYTHONEXECUTABLE", "PYTHONPLATLIBDIR", "PYTHONPYCACHEPREFIX", "PYTHON_PRESITE",
    "IPYTHONDIR", "JUPYTER_CONFIG_*",
    "NODE_OPTIONS", "NODE_PATH", "NODE_EXTRA_CA_CERTS", "NODE_TLS_REJECT_UNAUTHORIZED", "NODE_CHANNEL_FD",
    "NODE_COMPILE_CACHE", "NODE_REPL_EXTERNAL_MODULE", "BUN_OPTIONS", "BUN_INSPECT*",
    "(?i)npm_config_*", "(?i)pnpm_config_*", "YARN_YARN_PATH", "YARN_RC_FILENAME",
    "PERL5LIB", "PERL5OPT", "PERL5DB", "PERLLIB", "PERLIO_DEBUG",
    "RUBYLIB", "RUBYOPT", "GEM_PATH", "GEM_HOME", "RUBYGEMS_GEMDEPS", "BUNDLE_GEMFILE", "BUNDLER_SETUP", "IRBRC",
    "PHPRC", "PHP_INI_SCAN_DIR",
    "LUA_INIT*", "LUA_PATH*", "LUA_CPATH*", "TCLLIBPATH", "TCL_LIBRARY", "GUILE_LOAD_*",
    "R_HOME", "R_PROFILE*", "R_ENVIRON*", "R_LIBS*", "R_DEFAULT_PACKAGES", "JULIA_*",
    "ERL_FLAGS", "ERL_AFLAGS", "ERL_ZFLAGS", "ERL_OTP*", "ERL_LIBS", "ERL_INETRC", "ELIXIR_ERL_OPTIONS",
    "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "IBM_JAVA_OPTIONS", "OPENJ9_JAVA_OPTIONS",
    "JAVA_HOME", "JAVA_OPTS", "CLASSPATH", "MAVEN_OPTS", "MAVEN_ARGS", "GRADLE_OPTS", "SBT_OPTS",
    "DOTNET_STARTUP_HOOKS", "DOTNET_ADDITIONAL_DEPS", "DOTNET_SHARED_STORE", "DOTNET_ROOT*", "DOTNET_HOST_PATH",
    "DOTNET_GCName", "DOTNET_GCPath", "DOTNET_DiagnosticPorts", "DOTNET_ENABLE_PROFILING", "DOTNET_PROFILER*",
    "CORECLR_*", "COR_ENABLE_PROFILING", "COR_PROFILER*", "COMPlus_*", "PSModulePath",
    "(?i)ASPNETCORE_HOSTINGSTARTUPASSEMBLIES",
    # Compilers and builds.
    "CC", "CXX", "GCC_EXEC_PREFIX", "COMPILER_PATH", "MAKEFLAGS", "GNUMAKEFLAGS", "MAKEFILES",
    "GOFLAGS", "GOROOT", "GOENV", "GOTOOLCHAIN", "GOAUTH",
    "RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC", "RUSTFLAGS", "RUSTDOCFLAGS",
    "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "CARGO_HOME", "CARGO_BUILD_*", "CARGO_TARGET_*",
    "CARGO_ENCODED_RUSTFLAGS", "CARGO_REGISTRY_CREDENTIAL_PROVIDER", "CARGO_CREDENTIAL_ALIAS_*",
    "GHCRTS", "GHC_ENVIRONMENT", "GHC_PACKAGE_PATH", "CAML_LD_LIBRARY_PATH",
    # Certificates.
    "OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ENGINES", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE",
    "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE",
)  # fmt: skip


def is_reserved(variable: str, reserved: Sequence[str]) -> bool:
    """Return whether a variable's name is reserved.

    `*` at the end of a pattern matches anything; `(?i)` at the beginning ignores case, as in regular expressions.
    """
    return _any_of(tuple(reserved)).match(variable) is not None


@lru_cache
def _any_of(reserved: tuple[str, ...]) -> re.Pattern[str]:
    ignoring_case = {pattern: pattern.removeprefix("(?i)") for pattern in reserved}
    patterns = (f"(?{'' if name == pattern else 'i'}:{translate(name)})" for pattern, name in ignoring_case.items())
    return re.compile("|".join(patterns) or "(?!)")


def reserved_name(variable: str) -> ReservedName:
    """Return the error for a reserved name."""
    return ReservedName(
        f"{variable} is reserved because it could run code in every devbox or break it;"
        " choose another name, and set this one inside the devbox if a program needs it"
    )


def check_variable(name: str) -> None:
    """Reject an invalid name of an environment variable.

    Raises:
        InvalidName: it isn't letters, digits and `_`, starts with a digit, or is longer than 253.
    """
    if not re.fullmatch(VARIABLE_PATTERN, name):
        # The input isn't repeated, since it may be a value.
        raise InvalidName(
            "invalid name of an environment variable: use letters, digits and _,"
            " not starting with a digit, such as GITHUB_TOKEN"
        )
    if len(name) > VARIABLE_MAX_LENGTH:
        raise InvalidName(f"the name has {len(name)} characters; the maximum is {VARIABLE_MAX_LENGTH}")


def check_account(name: str) -> None:
    """Reject an account that isn't a valid namespace name: a value sealed for it could be opened nowhere.

    Raises:
        InvalidAccount: it isn't lowercase letters, digits and `-`, or is longer than 63.
    """
    if not re.fullmatch(ACCOUNT_PATTERN, name):
        raise InvalidAccount(
            f"{name!r} isn't a valid account: an account is a namespace, so use up to 63 lowercase letters, digits"
            " and -, such as team-a"
        )


def check_description(text: str | None) -> None:
    """Reject an invalid `spec.description`.

    Raises:
        InvalidDescription: it isn't UTF-8, or is longer than 1,024 characters.
    """
    if text is None:
        return
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidDescription("the description isn't UTF-8 text")
    if len(text) > DESCRIPTION_MAX_LENGTH:
        raise InvalidDescription(
            f"the description has {len(text):,} characters; the maximum is {DESCRIPTION_MAX_LENGTH:,}"
        )


def check_rotate_after(duration: str | None) -> None:
    """Reject an invalid `spec.rotateAfter`.

    Raises:
        InvalidDuration: it isn't a number of days, hours or minutes.
    """
    if duration is not None and not re.fullmatch(ROTATE_AFTER_PATTERN, duration):
        raise InvalidDuration(f"{duration!r} isn't a number of days, hours or minutes, such as 90d or 12h")


def parse_duration(text: str) -> timedelta:
    """Parse a duration as in `spec.rotateAfter`, such as 90d, 12h or 30m.

    Raises:
        InvalidDuration: it isn't a number of days, hours or minutes.
    """
    check_rotate_after(text)
    unit = {"d": "days", "h": "hours", "m": "minutes"}[text[-1]]
    return timedelta(**{unit: int(text[:-1])})


def check_value(name: str, value: "SecretBytes") -> None:
    """Reject an invalid value for the environment variable `name`.

    Raises:
        InvalidValue: it isn't UTF-8, or contains a NUL.
        ValueTooLarge: `NAME=value` and its NUL take more than 131,072 bytes.
    """
    raw = value.get_secret_value()
    if b"\0" in raw:
        raise InvalidValue(
            f"the value of {name} contains a NUL byte, which environment variables can't contain;"
            " encode binary data first, for example with base64"
        )
    try:
        raw.decode()
    except UnicodeDecodeError:
        # From None: the original exception contains the value.
        raise InvalidValue(
            f"the value of {name} isn't UTF-8 text; encode binary data first, for example with base64"
        ) from None
    size = len(name) + 1 + len(raw) + 1
    if size > VARIABLE_MAX_BYTES:
        raise ValueTooLarge(f"{name} and its value take {size:,} bytes; the maximum is {VARIABLE_MAX_BYTES:,}")
