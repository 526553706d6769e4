"""Settings of operator, webhook and gateway, from environment variables DEVBOX_SECRETS_*. Imports api, plan."""

import os
from datetime import timedelta
from pathlib import Path
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


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="DEVBOX_SECRETS_", frozen=True)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    port: int = Field(default=8080, ge=1, le=65535)
    """Where /healthz, /readyz and, but for the gateway, /metrics are served."""


class Settings(_Settings):
    """What the chart decides for the operator's process."""

    namespace: str = OPERATOR_NAMESPACE
    """The operator's own namespace, where the sealing keys are."""
    reserved_names: tuple[str, ...] = RESERVED_NAMES
    """Variables that no AccountSecret may have; `*` stands for anything."""
    resync_seconds: float = Field(default=300, gt=0)
    """How often everything is listed anew, for what a watch may have missed."""
    keys_seconds: float = Field(default=15, gt=0)
    """How often the sealing keys are read anew: one request each time."""
    rotate_keys: Annotated[timedelta | None, BeforeValidator(_period)] = timedelta(days=90)
    """How old the newest sealing key becomes before the next is made, such as 90d; `never` switches that off."""
    reseal_gateway_values: bool = False
    """Whether the gateway's values are sealed anew with each new key, which needs the right to patch AccountSecrets."""
    lookout_seconds: float = Field(default=15, gt=0)
    """How often it's looked for what no change announces, such as a rotation that falls due."""
    workers: int = Field(default=4, ge=1)
    """How many accounts are worked on at once, beside one with few changes."""


class WebhookSettings(_Settings):
    """What the chart decides for the webhook's process."""

    tls_port: int = Field(default=9443, ge=1, le=65535)
    """Where the API server asks, over TLS."""
    certificate: Path = Path("/etc/devbox-secrets/certificate")
    """The folder of tls.crt and tls.key."""
    certificate_seconds: float = Field(default=10, gt=0)
    """How often it's looked whether they are others."""
    leave_seconds: float = Field(default=10, ge=0)
    """How long requests are still answered after SIGTERM."""


def _in_cluster() -> str:
    """Give the API server's address as Kubernetes tells it to every container; nothing elsewhere."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return ""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


class GatewaySettings(_Settings):
    """What the chart decides for the gateway's process; its port serves the contract, too."""

    namespace: str = OPERATOR_NAMESPACE
    """The operator's namespace, where the public keys are."""
    reserved_names: tuple[str, ...] = RESERVED_NAMES
    """Variables that no secret may have; `*` stands for anything."""
    api_server: str = Field(default_factory=_in_cluster, pattern="^(https://.+)?$")
    """Its address, with which requests begin."""
    api_server_ca: Path = Path("/run/devbox-secrets/api-server/ca.crt")
    """The certificates of its CA; the gateway's pod has no ServiceAccount token, with which they would come."""
    api_server_seconds: float = Field(default=10, gt=0)
    """How long the API server may take for one answer."""
    certificate: Path | None = None
    """The folder of tls.crt and tls.key; without one there is no TLS."""
    certificate_seconds: float = Field(default=10, gt=0)
    """How often it's looked whether they, or those of the CA, are others."""
    metrics_port: int = Field(default=9090, ge=1, le=65535)
    """Where /metrics is served: not to everyone who may call."""
    audit: bool = True
    """Whether each call leaves a line on standard output."""
    rate_per_second: float = Field(default=0, ge=0)
    """How many calls a user may make in the long run, in this process; 0 is without a limit."""
    rate_burst: int = Field(default=20, ge=1)
    """How many at once."""
    body_seconds: float = Field(default=10, gt=0)
    """How long a request's body may take to come."""
    wait_seconds: float = Field(default=20, gt=0)
    """How long an answer may wait, with wait=true, until devboxes' Secret holds the value."""
    leave_seconds: float = Field(default=10, ge=0)
    """How long requests are still answered after SIGTERM."""
    answer_seconds: float = Field(default=30, gt=0)
    """How long a client may take to read its answer."""
    idle_seconds: float = Field(default=75, gt=0)
    """How long a connection may be without a request; more than load balancers keep theirs, or they would send into
    a closed one."""
    connections: int = Field(default=1000, ge=1)
    """How many there may be, of which one with TLS takes 0.3 MB: from then on, for a new one, the one that was idle
    for longest goes."""
