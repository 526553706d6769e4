"""The gateway's settings."""

import os
from pathlib import Path

from pydantic import Field

from devbox_secrets.api.names import OPERATOR_NAMESPACE
from devbox_secrets.api.validation import RESERVED_NAMES
from devbox_secrets.serving.settings import ServerSettings


def _api_server_in_cluster() -> str:
    """Return the API server's address from the environment of every container; empty outside a cluster."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return ""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


class GatewaySettings(ServerSettings):
    """The gateway's settings, which the chart sets; its port serves the API as well."""

    namespace: str = OPERATOR_NAMESPACE
    """The operator's namespace, where the public keys are."""
    reserved_names: tuple[str, ...] = RESERVED_NAMES
    """Names that no variable may have; `*` matches anything, and a leading `(?i)` ignores case."""
    api_server: str = Field(default_factory=_api_server_in_cluster, pattern="^(https://.+)?$")
    """The API server's URL."""
    api_server_ca: Path = Path("/run/devbox-secrets/api-server/ca.crt")
    """Its CA certificates; they don't come with a ServiceAccount token, since the gateway's pod has none."""
    api_server_timeout_seconds: float = Field(default=10, gt=0)
    """How long the API server may take to respond."""
    certificate_dir: Path | None = None
    """The directory with tls.crt and tls.key; without it, TLS is off."""
    certificate_refresh_seconds: float = Field(default=10, gt=0)
    """How often these files and the CA certificates are checked for changes."""
    metrics_port: int = Field(default=9090, ge=1, le=65535)
    """The port of /metrics, separate so that callers can't reach it."""
    audit: bool = True
    """Whether to log each request on standard output."""
    rate_limit_per_second: float = Field(default=0, ge=0)
    """Requests per second and user in the long run, in this process; 0 means no limit."""
    rate_limit_burst: int = Field(default=20, ge=1)
    """Requests at once per user."""
    body_timeout_seconds: float = Field(default=10, gt=0)
    """How long a request's body may take to arrive."""
    sync_wait_timeout_seconds: float = Field(default=20, gt=0)
    """How long a request with wait=true may wait until the Secret that devboxes read contains the value."""
    response_timeout_seconds: float = Field(default=30, gt=0)
    """How long a client may take to read its response."""
    idle_timeout_seconds: float = Field(default=75, gt=0)
    """How long a connection may be idle; longer than load balancers keep idle connections, since they would otherwise
    send requests on closed ones."""
    max_connections: int = Field(default=1000, ge=1)
    """The maximum number of connections; when it is reached, idle ones are closed for new ones."""
