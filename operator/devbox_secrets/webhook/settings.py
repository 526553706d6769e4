"""The webhook's settings."""

from pathlib import Path

from pydantic import Field

from devbox_secrets.serving.settings import ServerSettings


class WebhookSettings(ServerSettings):
    """The webhook's settings, which the chart sets."""

    tls_port: int = Field(default=9443, ge=1, le=65535)
    """The port for the API server's requests, with TLS."""
    certificate_dir: Path = Path("/etc/devbox-secrets/certificate")
    """The directory with tls.crt and tls.key."""
    certificate_refresh_seconds: float = Field(default=10, gt=0)
    """How often these files are checked for changes."""
    drain_seconds: float = Field(default=10, ge=0)
    """How long requests are still served after SIGTERM."""
