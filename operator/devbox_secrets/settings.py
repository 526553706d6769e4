"""The operator's settings, from environment variables DEVBOX_SECRETS_*. Imports api, plan."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from devbox_secrets.api import OPERATOR_NAMESPACE, duration
from devbox_secrets.errors import InvalidDuration
from devbox_secrets.plan import RESERVED_NAMES


def _period(text: object) -> object:
    if text == "never":
        return None
    try:
        return duration(text) if isinstance(text, str) else text
    except InvalidDuration as error:
        raise ValueError(f"{error}; or never") from None


class Settings(BaseSettings):
    """What the chart decides for the operator's process."""

    model_config = SettingsConfigDict(env_prefix="DEVBOX_SECRETS_", frozen=True)

    namespace: str = OPERATOR_NAMESPACE
    """The operator's own namespace, where the sealing keys are."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    port: int = Field(default=8080, ge=1, le=65535)
    """Where /healthz, /readyz and /metrics are served."""
    reserved_names: tuple[str, ...] = RESERVED_NAMES
    """Variables that no AccountSecret may have; `*` stands for anything."""
    resync_seconds: float = Field(default=300, gt=0)
    """How often everything is listed anew, for what a watch may have missed."""
    keys_seconds: float = Field(default=15, gt=0)
    """How often the sealing keys are read anew: one request each time."""
    rotate_keys: Annotated[timedelta | None, BeforeValidator(_period)] = timedelta(days=90)
    """How old the newest sealing key becomes before the next is made, such as 90d; `never` switches that off."""
    lookout_seconds: float = Field(default=15, gt=0)
    """How often it's looked for what time alone changes, such as a rotation that falls due."""
    workers: int = Field(default=4, ge=1)
    """How many accounts are worked on at once."""
