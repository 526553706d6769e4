"""The gateway's settings, from environment variables DEVBOX_SECRETS_*. Imports api, plan."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from devbox_secrets.api import OPERATOR_NAMESPACE
from devbox_secrets.plan import RESERVED_NAMES


def _in_cluster() -> str:
    """Give the API server's address as Kubernetes tells it to every container; nothing elsewhere."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return ""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


class Settings(BaseSettings):
    """What the chart decides for the gateway's process."""

    model_config = SettingsConfigDict(env_prefix="DEVBOX_SECRETS_", frozen=True)

    namespace: str = OPERATOR_NAMESPACE
    """The operator's namespace, where the public keys are."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    port: int = Field(default=8080, ge=1, le=65535)
    """Where HTTP/1.1 and HTTP/2 are served."""
    reserved_names: tuple[str, ...] = RESERVED_NAMES
    """Variables that no secret may have; `*` stands for anything."""
    api_server: str = Field(default_factory=_in_cluster, pattern="^(https://.+)?$")
    """Its address, with which requests begin."""
    api_server_ca: Path = Path("/run/devbox-secrets/api-server/ca.crt")
    """The certificates of its CA; the gateway's pod has no ServiceAccount token, with which they would come."""
    api_server_seconds: float = Field(default=10, gt=0)
    """How long the API server may take for one answer."""
    body_seconds: float = Field(default=10, gt=0)
    """How long a request's body may take to come."""
