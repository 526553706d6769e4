"""What all servers' settings share; they are read from environment variables DEVBOX_SECRETS_*."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from devbox_secrets.api.validation import parse_duration
from devbox_secrets.errors import ConfigError, InvalidDuration
from devbox_secrets.serving.logs import LogFormat


def _duration_or_never(text: object) -> object:
    if text == "never":
        return None
    try:
        return parse_duration(text) if isinstance(text, str) else text
    except InvalidDuration as error:
        raise ValueError(f"{error}, or `never`") from None


DurationOrNever = Annotated[timedelta | None, BeforeValidator(_duration_or_never)]
"""A duration such as 90d; None for `never`."""


_PREFIX = "DEVBOX_SECRETS_"


class ServerSettings(BaseSettings):
    """A server's settings."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: LogFormat = "text"
    """The format of the log on standard error: lines of text, or one JSON object per line."""
    port: int = Field(default=8080, ge=1, le=65535)
    """The port of /healthz, /readyz and (except for the gateway) /metrics."""

    @classmethod
    def read(cls) -> Self:
        """Read the settings from the environment.

        Raises:
            ConfigError: a variable is invalid; the message names it, but doesn't repeat its value.
        """
        try:
            return cls()
        except ValidationError as error:
            raise ConfigError("; ".join(map(_sentence, error.errors(include_input=False)))) from None
        except SettingsError as error:
            raise ConfigError(str(error)) from None


def _sentence(problem: Mapping[str, Any]) -> str:
    variable = f"{_PREFIX}{problem['loc'][0]}".upper()
    return f"{variable}: {problem['msg'].removeprefix('Value error, ')}"
