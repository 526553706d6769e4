"""The settings of the servers, which the chart sets as environment variables."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from devbox_secrets.api.validation import RESERVED_NAMES
from devbox_secrets.controller.settings import ControllerSettings
from devbox_secrets.errors import ConfigError
from devbox_secrets.gateway.settings import GatewaySettings
from devbox_secrets.webhook.settings import WebhookSettings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ControllerSettings.model_fields | WebhookSettings.model_fields | GatewaySettings.model_fields:
        monkeypatch.delenv(f"DEVBOX_SECRETS_{name.upper()}", raising=False)


def test_the_operator_needs_no_variables() -> None:
    settings = ControllerSettings()
    assert settings.namespace == "devbox-secrets"
    assert settings.log_level == "INFO"
    assert settings.log_format == "text"
    assert settings.port == 8080
    assert settings.reserved_names == RESERVED_NAMES
    assert settings.resync_seconds == 300
    assert settings.keys_refresh_seconds == 15
    assert settings.rotate_keys == timedelta(days=90)
    assert settings.workers == 4
    assert not settings.reseal_gateway_values  # it needs a permission that the operator doesn't have by default


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("NAMESPACE", "elsewhere", "namespace", "elsewhere"),
        ("LOG_LEVEL", "DEBUG", "log_level", "DEBUG"),
        ("LOG_FORMAT", "json", "log_format", "json"),
        ("PORT", "9090", "port", 9090),
        ("RESERVED_NAMES", '["PATH", "COMPANY_*"]', "reserved_names", ("PATH", "COMPANY_*")),
        ("RESERVED_NAMES", "[]", "reserved_names", ()),
        ("RESYNC_SECONDS", "0.5", "resync_seconds", 0.5),
        ("KEYS_REFRESH_SECONDS", "60", "keys_refresh_seconds", 60),
        ("ROTATE_KEYS", "12h", "rotate_keys", timedelta(hours=12)),
        ("ROTATE_KEYS", "never", "rotate_keys", None),
        ("WORKERS", "1", "workers", 1),
        ("RESEAL_GATEWAY_VALUES", "true", "reseal_gateway_values", True),
    ],
)
def test_each_setting_of_the_operator_has_an_environment_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: object
) -> None:
    monkeypatch.setenv(f"DEVBOX_SECRETS_{variable}", text)
    assert getattr(ControllerSettings(), field) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("LOG_LEVEL", "TRACE"),
        ("LOG_LEVEL", "info"),
        ("LOG_FORMAT", "JSON"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "tcp://10.0.0.1:8080"),  # as Kubernetes sets it for a Service devbox-secrets
        ("RESERVED_NAMES", "PATH"),
        ("RESERVED_NAMES", '"PATH"'),
        ("RESERVED_NAMES", "[1]"),
        ("RESYNC_SECONDS", "0"),
        ("KEYS_REFRESH_SECONDS", "-1"),
        ("ROTATE_KEYS", ""),
        ("ROTATE_KEYS", "0d"),
        ("ROTATE_KEYS", "P90D"),
        ("ROTATE_KEYS", "Never"),
        ("WORKERS", "0"),
        ("RESEAL_GATEWAY_VALUES", ""),
    ],
)
def test_an_invalid_setting_is_rejected_by_name(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    monkeypatch.setenv(f"DEVBOX_SECRETS_{variable}", text)
    with pytest.raises(ConfigError, match=f"(?i){variable}") as caught:
        ControllerSettings.read()
    assert "\n" not in str(caught.value)


def test_the_webhook_needs_no_variables() -> None:
    settings = WebhookSettings()
    assert settings.log_level == "INFO"
    assert settings.port == 8080
    assert settings.tls_port == 9443
    assert settings.certificate_dir == Path("/etc/devbox-secrets/certificate")
    assert settings.certificate_refresh_seconds == 10
    assert settings.drain_seconds == 10


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("LOG_LEVEL", "DEBUG", "log_level", "DEBUG"),
        ("PORT", "9090", "port", 9090),
        ("TLS_PORT", "443", "tls_port", 443),
        ("CERTIFICATE_DIR", "/tls", "certificate_dir", Path("/tls")),
        ("CERTIFICATE_REFRESH_SECONDS", "0.1", "certificate_refresh_seconds", 0.1),
        ("DRAIN_SECONDS", "0", "drain_seconds", 0),
    ],
)
def test_each_setting_of_the_webhook_has_an_environment_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: object
) -> None:
    monkeypatch.setenv(f"DEVBOX_SECRETS_{variable}", text)
    assert getattr(WebhookSettings(), field) == value


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("METRICS_PORT", "9091", "metrics_port", 9091),
        ("AUDIT", "false", "audit", False),
        ("RATE_LIMIT_PER_SECOND", "2.5", "rate_limit_per_second", 2.5),
        ("RATE_LIMIT_BURST", "5", "rate_limit_burst", 5),
        ("RESPONSE_TIMEOUT_SECONDS", "1", "response_timeout_seconds", 1),
        ("IDLE_TIMEOUT_SECONDS", "1", "idle_timeout_seconds", 1),
        ("MAX_CONNECTIONS", "5", "max_connections", 5),
    ],
)
def test_each_setting_of_the_gateway_has_an_environment_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: object
) -> None:
    monkeypatch.setenv(f"DEVBOX_SECRETS_{variable}", text)
    assert getattr(GatewaySettings(), field) == value


def test_the_gateway_has_no_rate_limit_and_an_audit_log_by_default() -> None:
    settings = GatewaySettings()
    assert (settings.rate_limit_per_second, settings.audit, settings.metrics_port) == (0, True, 9090)


def test_other_variables_with_the_prefix_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVBOX_SECRETS_SERVICE_HOST", "10.0.0.1")
    assert ControllerSettings() == ControllerSettings.model_construct()


def test_the_settings_are_immutable() -> None:
    settings = ControllerSettings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1


@pytest.mark.parametrize(
    ("host", "address"),
    [("", ""), ("10.96.0.1", "https://10.96.0.1:6443"), ("fd00::1", "https://[fd00::1]:6443")],
)
def test_the_gateway_finds_the_api_server_in_the_variables_of_kubernetes(
    host: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    assert GatewaySettings().api_server == address
    assert GatewaySettings().certificate_dir is None


@pytest.mark.parametrize("address", ["http://10.96.0.1", "10.96.0.1"])
def test_the_gateway_rejects_an_api_server_without_tls(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVBOX_SECRETS_API_SERVER", address)
    with pytest.raises(ValidationError):
        GatewaySettings()
