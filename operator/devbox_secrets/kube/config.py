"""Loads the client's configuration: the kubeconfig, or the pod's own ServiceAccount."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import aiohttp
import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, KubeConfigMerger

from devbox_secrets.errors import ConfigError

_CONNECTIONS = 32
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# What the client makes of a file that is no kubeconfig.
_DAMAGED = (ConfigException, OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError)


async def load(kubeconfig: Path | None = None, context: str | None = None) -> Configuration:
    """Give the client's configuration as kubectl would: the kubeconfig, else, inside a cluster, the ServiceAccount.

    Raises:
        ConfigError: there is no configuration to connect with.
    """
    configuration = Configuration()
    configuration.connection_pool_maxsize = _CONNECTIONS
    # Otherwise ~/.netrc and the proxies are read again for each request, in another thread.
    configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
    with _readable("no cluster to connect to: {reason}"):
        if kubeconfig is None and context is None and _in_cluster():
            load_incluster_config(configuration)
        else:
            _require(kubeconfig)
            path = str(kubeconfig) if kubeconfig else None
            await load_kube_config(path, context, client_configuration=configuration, persist_config=False)
    return configuration


async def auth_headers(configuration: Any) -> dict[str, str]:  # noqa: ANN401 - its fields have no types
    """Give the headers that say who sends a request; a ServiceAccount's token changes now and then."""
    return {auth["key"]: auth["value"] for auth in (await configuration.auth_settings()).values()}


async def session(trace_configs: list[aiohttp.TraceConfig]) -> tuple[str, aiohttp.ClientSession]:
    """Give the API server's URL, and a session for it, as `load` configures it: for what can't use the client.

    Raises:
        ConfigError: there is no configuration to connect with.
    """
    configuration: Any = await load()  # its fields have no types
    trust = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    if configuration.cert_file:
        trust.load_cert_chain(configuration.cert_file, configuration.key_file)
    return configuration.host, aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust, limit=0),
        headers=await auth_headers(configuration),
        proxy=configuration.proxy,
        trace_configs=trace_configs,
        **configuration.client_session_kwargs,
    )


def current_namespace(kubeconfig: Path | None = None, context: str | None = None) -> str:
    """Give the namespace that kubectl would use: the context's, or `default`.

    Raises:
        ConfigError: there is no such context, or no kubeconfig.
    """
    if kubeconfig is None and context is None and _in_cluster():
        return (_SERVICE_ACCOUNT / "namespace").read_text().strip()
    with _readable("there is no kubeconfig to read the account from ({reason}); name it with --account"):
        _require(kubeconfig)
        merged = KubeConfigMerger(str(kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION)).config
        name = context or merged["current-context"]
        chosen = next((each["context"] for each in merged["contexts"].value if each["name"] == name), None)
        if chosen is not None:
            namespace: str = chosen.safe_get("namespace") or "default"
            return namespace
        if context is None:
            raise ConfigException("its current-context isn't one of its contexts")
    raise ConfigError(f"the kubeconfig has no context {context}")


@contextmanager
def _readable(message: str) -> Iterator[None]:
    """Raise a sentence for whatever the client makes of a kubeconfig that it can't use."""
    try:
        yield
    except _DAMAGED as error:
        raise ConfigError(message.format(reason=_reason(error))) from None


def _reason(error: Exception) -> str:
    """Say what a kubeconfig lacks, without what the client quotes of it: that may be a token."""
    if isinstance(error, ConfigException | OSError):
        return str(error).partition("/{")[0]
    return f"it's damaged: {type(error).__name__}"


def _in_cluster() -> bool:
    return not _existing_kubeconfigs() and (_SERVICE_ACCOUNT / "token").exists()


def _existing_kubeconfigs() -> list[Path]:
    paths = [Path(path).expanduser() for path in KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep) if path]
    return [path for path in paths if path.exists()]


def _require(kubeconfig: Path | None) -> None:
    """Say in a sentence what the client would log, and then trip over."""
    if kubeconfig is None and not _existing_kubeconfigs():
        raise ConfigException(f"there is no kubeconfig at {KUBE_CONFIG_DEFAULT_LOCATION}; name one with --kubeconfig")
