"""Which names, values and durations are valid, and the errors for the others."""

from datetime import timedelta

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.validation import (
    RESERVED_NAMES,
    VARIABLE_MAX_BYTES,
    check_account,
    check_description,
    check_rotate_after,
    check_value,
    check_variable,
    is_reserved,
    parse_duration,
    reserved_name,
)
from devbox_secrets.errors import (
    DevboxSecretsError,
    InvalidAccount,
    InvalidDescription,
    InvalidDuration,
    InvalidName,
    InvalidValue,
    ReservedName,
    ValueTooLarge,
)

NAME_RULE = (
    "invalid name of an environment variable: use letters, digits and _,"
    " not starting with a digit, such as GITHUB_TOKEN"
)
BAD_NAMES = ["", "1A", "A-B", "A.B", "A B", " A", "A\n", "A=b", "É", "A٣", "A\0", "\udcff"]
BAD_DURATIONS = [
    "", "0d", "090d", "90", "d", "2w", "90s", "1.5d", "-1d", "90 d", "90d ", "90d\n", "1d12h", "100000d", "٣d",
]  # fmt: skip
ENCODE_IT = "encode binary data first, for example with base64"
NUL = f"the value of TOKEN contains a NUL byte, which environment variables can't contain; {ENCODE_IT}"
BINARY = f"the value of TOKEN isn't UTF-8 text; {ENCODE_IT}"
LARGE = "TOKEN and its value take 131,073 bytes; the maximum is 131,072"
LARGEST = VARIABLE_MAX_BYTES - len("TOKEN=\0")


@pytest.mark.parametrize("name", ["A", "_", "a", "GITHUB_TOKEN", "http_proxy", "_1", "A" * 253])
def test_a_variable_name_has_letters_digits_and_underscores(name: str) -> None:
    check_variable(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, NAME_RULE) for name in BAD_NAMES),
        ("A" * 254, "the name has 254 characters; the maximum is 253"),
    ],
)
def test_other_names_are_rejected_without_repeating_them(name: str, message: str) -> None:
    with pytest.raises(InvalidName) as caught:
        check_variable(name)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["a", "1", "team-a", "a--b", "a" * 63])
def test_an_account_is_a_namespace_s_name(name: str) -> None:
    check_account(name)


@pytest.mark.parametrize("name", ["", "Team", "team_a", "team.a", "-a", "a-", "a\n", "é", "a" * 64, "a/b", "\udcff"])
def test_an_invalid_namespace_name_is_no_account(name: str) -> None:
    with pytest.raises(InvalidAccount) as caught:
        check_account(name)
    assert str(caught.value) == (
        f"{name!r} isn't a valid account: an account is a namespace, so use up to 63 lowercase letters, digits and -,"
        " such as team-a"
    )


@pytest.mark.parametrize("text", [None, "", "for CI", "für CI 🙂\n", "x" * 1024, "🙂" * 1024, "\ud7ff\ue000"])
def test_a_description_has_at_most_1024_characters(text: str | None) -> None:
    check_description(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x" * 1025, "the description has 1,025 characters; the maximum is 1,024"),
        *((f"caf{half}", "the description isn't UTF-8 text") for half in ("\ud800", "\udce9", "\udfff")),
    ],
)
def test_other_descriptions_are_rejected(text: str, message: str) -> None:
    with pytest.raises(InvalidDescription) as caught:
        check_description(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("duration", [None, "1d", "90d", "12h", "30m", "99999m"])
def test_a_duration_is_in_days_hours_or_minutes(duration: str | None) -> None:
    check_rotate_after(duration)


@pytest.mark.parametrize("duration", BAD_DURATIONS)
def test_other_durations_are_rejected(duration: str) -> None:
    with pytest.raises(InvalidDuration) as caught:
        check_rotate_after(duration)
    assert str(caught.value) == f"{duration!r} isn't a number of days, hours or minutes, such as 90d or 12h"


@pytest.mark.parametrize(
    ("text", "duration"),
    [("90d", timedelta(days=90)), ("12h", timedelta(hours=12)), ("30m", timedelta(minutes=30))],
)
def test_a_duration_is_parsed_in_its_unit(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", BAD_DURATIONS)
def test_other_durations_cannot_be_parsed(text: str) -> None:
    with pytest.raises(InvalidDuration):
        parse_duration(text)


@pytest.mark.parametrize("value", [b"", b"x", "né 🙂".encode(), b"a\nb\r\n", b"\x01\x7f", b"x" * LARGEST])
def test_a_value_is_utf_8_text_that_fits(value: bytes) -> None:
    check_value("TOKEN", SecretBytes(value))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (b"canary\0", InvalidValue, NUL),
        (b"\0\xff", InvalidValue, NUL),
        (b"canary\xff", InvalidValue, BINARY),
        (b"canary\xed\xb3\xbf", InvalidValue, BINARY),  # half of a surrogate pair
        (b"x" * (LARGEST + 1), ValueTooLarge, LARGE),
        ("é".encode() * (LARGEST // 2) + b"xx", ValueTooLarge, LARGE),  # the limit is in bytes, not characters
    ],
)
def test_other_values_are_rejected_without_showing_them(
    value: bytes, error: type[DevboxSecretsError], message: str
) -> None:
    with pytest.raises(error) as caught:
        check_value("TOKEN", SecretBytes(value))
    assert str(caught.value) == message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("variable", "reserved"),
    [
        ("PATH", True), ("HOME", True), ("LD_PRELOAD", True), ("LD_", True), ("BASH_ENV", True),
        ("KUBERNETES_SERVICE_HOST", True), ("PYTHONPATH", True), ("NODE_OPTIONS", True),
        ("GIT_CONFIG_COUNT", True), ("PATHS", False), ("path", False), ("MY_LD_PRELOAD", False),
        ("GITHUB_TOKEN", False), ("DATABASE_URL", False), ("SSL_KEY", False),
        # Start-up hooks of runtimes.
        ("DOTNET_STARTUP_HOOKS", True), ("DOTNET_ADDITIONAL_DEPS", True), ("DOTNET_ROOT_X64", True),
        ("CORECLR_ENABLE_PROFILING", True), ("CORECLR_PROFILER_PATH_64", True), ("COR_PROFILER", True),
        ("COMPlus_GCName", True), ("AspNetCore_HostingStartupAssemblies", True), ("PSModulePath", True),
        ("LUA_INIT", True), ("LUA_INIT_5_4", True), ("LUA_CPATH_5_4", True),
        ("R_PROFILE", True), ("R_PROFILE_USER", True), ("R_ENVIRON_USER", True), ("R_LIBS_SITE", True),
        ("PHPRC", True), ("PHP_INI_SCAN_DIR", True), ("JULIA_LOAD_PATH", True), ("JULIA_DEPOT_PATH", True),
        ("ERL_FLAGS", True), ("ERL_AFLAGS", True), ("ERL_ZFLAGS", True), ("ERL_OTP28_FLAGS", True),
        ("ELIXIR_ERL_OPTIONS", True), ("JDK_JAVA_OPTIONS", True), ("MAVEN_OPTS", True),
        ("RUSTC_WRAPPER", True), ("RUSTC_WORKSPACE_WRAPPER", True), ("CARGO_BUILD_RUSTC_WRAPPER", True),
        ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", True), ("GOFLAGS", True), ("MAKEFLAGS", True),
        ("npm_config_script_shell", True), ("NPM_CONFIG_SCRIPT_SHELL", True), ("Npm_Config_node_options", True),
        ("PNPM_CONFIG_SCRIPT_SHELL", True), ("BUN_OPTIONS", True), ("BUN_INSPECT_PRELOAD", True),
        ("BUNDLER_SETUP", True), ("RUBYGEMS_GEMDEPS", True), ("VIMINIT", True), ("ZDOTDIR", True),
        ("BASH_FUNC_ls", True), ("GCONV_PATH", True), ("GLIBC_TUNABLES", True), ("RES_OPTIONS", True),
        ("GIT_SSH_COMMAND", True), ("GIT_DIR", True), ("NODE_TLS_REJECT_UNAUTHORIZED", True),
        # Variables from which tools take credentials, and names that only resemble those above.
        ("NPM_TOKEN", False), ("NODE_AUTH_TOKEN", False), ("YARN_NPM_AUTH_TOKEN", False), ("GH_TOKEN", False),
        ("CARGO_REGISTRY_TOKEN", False), ("CARGO_REGISTRIES_COMPANY_TOKEN", False), ("PIP_INDEX_URL", False),
        ("COMPOSER_AUTH", False), ("BUNDLE_GEMS__EXAMPLE__COM", False), ("GOPROXY", False), ("HEX_API_KEY", False),
        ("ORG_GRADLE_PROJECT_password", False), ("ASPNETCORE_Kestrel__Certificates__Default__Password", False),
        ("DENO_AUTH_TOKENS", False), ("GIT_TOKEN", False), ("GIT_SSH_KEY", False), ("TF_VAR_password", False),
        ("AWS_SECRET_ACCESS_KEY", False), ("KUBECONFIG", False), ("HTTPS_PROXY", False), ("NIX_CONFIG", False),
        ("RPROFILE", False), ("MY_npm_config_x", False), ("NPMCONFIG", False), ("rustc_wrapper", False),
    ],
)  # fmt: skip
def test_names_that_could_run_code_are_reserved(variable: str, reserved: bool) -> None:
    assert is_reserved(variable, RESERVED_NAMES) is reserved


@pytest.mark.parametrize(
    ("variable", "pattern", "reserved"),
    [
        ("COMPANY_X", "COMPANY_*", True),
        ("COMPANY_", "COMPANY_*", True),
        ("MY_COMPANY_X", "COMPANY_*", False),
        ("company_x", "COMPANY_*", False),
        ("A", "*", True),
        ("A", "A", True),
        ("AA", "A", False),
        ("company_x", "(?i)COMPANY_*", True),
        ("COMPANY_X", "(?i)company_*", True),
        ("MY_COMPANY_X", "(?i)COMPANY_*", False),
        ("a", "(?i)A", True),
        ("aa", "(?i)A", False),
    ],
)
def test_a_pattern_can_end_with_a_star_and_ignore_case(variable: str, pattern: str, reserved: bool) -> None:
    assert is_reserved(variable, [pattern]) is reserved


def test_a_case_insensitive_pattern_does_not_affect_others() -> None:
    reserved = ["(?i)A_*", "B"]
    assert [is_reserved(name, reserved) for name in ("a_x", "B", "b")] == [True, True, False]


def test_nothing_is_reserved_without_patterns() -> None:
    assert not is_reserved("PATH", [])


def test_the_error_for_a_reserved_name_says_what_to_do() -> None:
    error = reserved_name("PATH")
    assert isinstance(error, ReservedName)
    assert str(error) == (
        "PATH is reserved because it could run code in every devbox or break it;"
        " choose another name, and set this one inside the devbox if a program needs it"
    )
