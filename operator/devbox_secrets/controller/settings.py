"""The operator's settings."""

from datetime import timedelta

from pydantic import Field

from devbox_secrets.api.names import OPERATOR_NAMESPACE
from devbox_secrets.api.validation import RESERVED_NAMES
from devbox_secrets.serving.settings import DurationOrNever, ServerSettings


class ControllerSettings(ServerSettings):
    """The operator's settings, which the chart sets."""

    namespace: str = OPERATOR_NAMESPACE
    """The operator's namespace, which contains the sealing keys."""
    reserved_names: tuple[str, ...] = RESERVED_NAMES
    """Names that no variable may have; `*` matches anything, and a leading `(?i)` ignores case."""
    resync_seconds: float = Field(default=300, gt=0)
    """How often everything is listed again, in case a watch missed something."""
    keys_refresh_seconds: float = Field(default=15, gt=0)
    """How often the sealing keys are read again, with one request."""
    rotate_keys: DurationOrNever = timedelta(days=90)
    """The age of the newest sealing key at which the next one is created, such as 90d; `never` turns this off."""
    reseal_gateway_values: bool = False
    """Whether to reseal the gateway's values with each new key; needs permission to patch AccountSecrets."""
    rescan_seconds: float = Field(default=15, gt=0)
    """How often to scan the cache for what no change announces, such as a rotation that becomes due."""
    workers: int = Field(default=4, ge=1)
    """How many accounts are reconciled at once, besides one with few changes."""
