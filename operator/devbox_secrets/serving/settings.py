"""What every server's settings share: read from environment variables DEVBOX_SECRETS_*."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from devbox_secrets.api.validation import parse_duration
from devbox_secrets.errors import InvalidDuration
from devbox_secrets.serving.logs import LogFormat


def _duration_or_never(text: object) -> object:
    if text == "never":
        return None
    try:
        return parse_duration(text) if isinstance(text, str) else text
    except InvalidDuration as error:
        raise ValueError(f"{error}; or never") from None


DurationOrNever = Annotated[timedelta | None, BeforeValidator(_duration_or_never)]
"""A duration such as 90d; None for `never`."""


class ServerSettings(BaseSettings):
    """A server's settings."""

    model_config = SettingsConfigDict(env_prefix="DEVBOX_SECRETS_", frozen=True)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: LogFormat = "text"
    """How the log on standard error is written: lines of text, or one JSON object per line."""
    port: int = Field(default=8080, ge=1, le=65535)
    """Where /healthz, /readyz and, but for the gateway, /metrics are served."""
