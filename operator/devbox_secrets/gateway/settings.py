"""The gateway's settings."""

import os
from pathlib import Path

from pydantic import Field

from devbox_secrets.api.names import OPERATOR_NAMESPACE
from devbox_secrets.api.validation import RESERVED_NAMES
from devbox_secrets.serving.settings import ServerSettings


def _api_server_in_cluster() -> str:
    """Give the API server's address as Kubernetes tells it to every container; nothing elsewhere."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return ""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


class GatewaySettings(ServerSettings):
    """What the chart decides for the gateway's process; its port serves the contract, too."""

    namespace: str = OPERATOR_NAMESPACE
    """The operator's namespace, where the public keys are."""
    reserved_names: tuple[str, ...] = RESERVED_NAMES
    """Variables that no secret may have; `*` stands for anything, `(?i)` in front ignores case."""
    api_server: str = Field(default_factory=_api_server_in_cluster, pattern="^(https://.+)?$")
    """Its address, with which requests begin."""
    api_server_ca: Path = Path("/run/devbox-secrets/api-server/ca.crt")
    """The certificates of its CA; the gateway's pod has no ServiceAccount token, with which they would come."""
    api_server_timeout_seconds: float = Field(default=10, gt=0)
    """How long the API server may take for one response."""
    certificate_dir: Path | None = None
    """The folder of tls.crt and tls.key; without one there is no TLS."""
    certificate_refresh_seconds: float = Field(default=10, gt=0)
    """How often these files, and those of the CA, are checked for changes."""
    metrics_port: int = Field(default=9090, ge=1, le=65535)
    """Where /metrics is served: not to everyone who may call."""
    audit: bool = True
    """Whether each request leaves a line on standard output."""
    rate_limit_per_second: float = Field(default=0, ge=0)
    """How many requests a user may make in the long run, in this process; 0 is without a limit."""
    rate_limit_burst: int = Field(default=20, ge=1)
    """How many at once."""
    body_timeout_seconds: float = Field(default=10, gt=0)
    """How long a request's body may take to come."""
    sync_wait_timeout_seconds: float = Field(default=20, gt=0)
    """How long a response may wait, with wait=true, until devboxes' Secret holds the value."""
    response_timeout_seconds: float = Field(default=30, gt=0)
    """How long a client may take to read its response."""
    idle_timeout_seconds: float = Field(default=75, gt=0)
    """How long a connection may be without a request; more than load balancers keep theirs, or they would send into
    a closed one."""
    max_connections: int = Field(default=1000, ge=1)
    """How many connections there may be; when they are taken, those without a request are closed for new ones."""
