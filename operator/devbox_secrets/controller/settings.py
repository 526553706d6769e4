"""The operator's settings."""

from datetime import timedelta

from pydantic import Field

from devbox_secrets.api.names import OPERATOR_NAMESPACE
from devbox_secrets.api.validation import RESERVED_NAMES
from devbox_secrets.serving.settings import DurationOrNever, ServerSettings


class ControllerSettings(ServerSettings):
    """What the chart decides for the operator's process."""

    namespace: str = OPERATOR_NAMESPACE
    """The operator's own namespace, where the sealing keys are."""
    reserved_names: tuple[str, ...] = RESERVED_NAMES
    """Variables that no AccountSecret may have; `*` stands for anything, `(?i)` in front ignores case."""
    resync_seconds: float = Field(default=300, gt=0)
    """How often everything is listed again, for what a watch may have missed."""
    keys_refresh_seconds: float = Field(default=15, gt=0)
    """How often the sealing keys are read again: one request each time."""
    rotate_keys: DurationOrNever = timedelta(days=90)
    """How old the newest sealing key becomes before the next is made, such as 90d; `never` switches that off."""
    reseal_gateway_values: bool = False
    """Whether the gateway's values are sealed with each new key, which needs the right to patch AccountSecrets."""
    rescan_seconds: float = Field(default=15, gt=0)
    """How often the cache is searched for what no change announces, such as a rotation that falls due."""
    workers: int = Field(default=4, ge=1)
    """How many accounts are worked on at once, beside one with few changes."""
