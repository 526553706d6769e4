"""The way to the API server: who connects, one request, and what an error may say. Imports errors alone.

Bodies are plain dictionaries: the client's model objects cost more CPU than the requests do.
An error names the request and the server's reason, never a body.
"""

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import getproxies

import aiohttp
import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, KubeConfigMerger

from devbox_secrets.errors import ClusterError

Body = dict[str, Any]

_TIMEOUT_SECONDS = 30
_CONNECTIONS = 32
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# What the client makes of a file that is no kubeconfig.
_NO_KUBECONFIG = (ConfigException, OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the API server: the HTTP status and the body."""

    status: int
    body: Body = field(repr=False)


class Connection:
    """A connection to one API server, with the rights of whoever it was opened for."""

    def __init__(self, client: ApiClient, may_write: Callable[[], bool] = lambda: True) -> None:
        self._client = client
        self._may_write = may_write

    def fenced(self, may_write: Callable[[], bool]) -> Self:
        """Give the same connection, on which nothing is written unless it may be at that moment."""
        return type(self)(self._client, may_write)

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig: Path | None = None, context: str | None = None) -> AsyncIterator[Self]:
        """Connect as kubectl would: with the kubeconfig, else, inside a cluster, as the pod's ServiceAccount.

        Raises:
            ClusterError: there is no configuration to connect with.
        """
        configuration = Configuration()
        configuration.connection_pool_maxsize = _CONNECTIONS
        # Otherwise ~/.netrc and the proxies are read anew for each request, in another thread.
        configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
        try:
            if kubeconfig is None and context is None and _in_cluster():
                load_incluster_config(configuration)
            else:
                _look_for(kubeconfig)
                path = str(kubeconfig) if kubeconfig else None
                await load_kube_config(path, context, client_configuration=configuration, persist_config=False)
        except _NO_KUBECONFIG as error:
            raise ClusterError(f"no cluster to connect to: {_trouble(error)}") from None
        async with ApiClient(configuration) as client:
            yield cls(client)

    async def request(self, method: str, path: str, **options: Any) -> Body:  # noqa: ANN401 - as answer has them
        """Send a request as `answer` does, and give the answer's body."""
        return (await self.answer(method, path, **options)).body

    async def pages(self, path: str, query: Mapping[str, str], limit: int) -> AsyncIterator[Body]:
        """Read a list page by page; no page is kept while the next is read."""
        asked = {**query, "limit": str(limit)}
        while True:
            page = await self.request("GET", path, query=asked)
            asked["continue"] = page["metadata"].get("continue", "")
            yield page
            del page
            if not asked["continue"]:
                return

    async def answer(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        media_type: str = "application/json",
        quote: bool = False,
    ) -> Answer:
        """Send one request.

        With `quote`, an error repeats the server's own words also for a write: for one that holds no value.

        Raises:
            ClusterError: there was no answer, or a refusal; or it was a write that may not be sent now.
        """
        client = self._client
        headers = {"Accept": "application/json", "Content-Type": media_type}
        for auth in (await client.configuration.auth_settings()).values():
            headers[auth["key"]] = auth["value"]
        url = f"{client.configuration.host}{path}"
        if query:
            url += "?" + urlencode({key: value for key, value in query.items() if value})
        # The last look before the request goes: whatever was awaited until here may have taken long.
        if method != "GET" and not self._may_write():
            raise ClusterError(f"{method} {path}: not sent, since another replica may be writing now")
        try:
            response = await client.call_api(method, url, headers, body, _request_timeout=_TIMEOUT_SECONDS)
            raw = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ClusterError(f"{method} {path}: {type(error).__name__}") from error
        if response.status >= HTTPStatus.BAD_REQUEST:
            reason = _reason(method, path, response.status, raw, quote=quote or method == "GET")
            raise ClusterError(reason, response.status)
        try:
            return Answer(response.status, json.loads(raw))
        except ValueError:
            # From None: what a proxy's page says may be anything.
            raise ClusterError(f"{method} {path}: the answer isn't an API server's, but a proxy's perhaps") from None


def present_namespace(kubeconfig: Path | None = None, context: str | None = None) -> str:
    """Give the namespace that kubectl would use: the context's, or `default`.

    Raises:
        ClusterError: there is no such context, or no kubeconfig.
    """
    if kubeconfig is None and context is None and _in_cluster():
        return (_SERVICE_ACCOUNT / "namespace").read_text().strip()
    try:
        _look_for(kubeconfig)
        merged = KubeConfigMerger(str(kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION)).config
        name = context or merged["current-context"]
        chosen = next((each["context"] for each in merged["contexts"].value if each["name"] == name), None)
        if chosen is not None:
            namespace: str = chosen.safe_get("namespace") or "default"
            return namespace
        if context is None:
            raise ConfigException("its current-context isn't one of its contexts")
    except _NO_KUBECONFIG as error:
        raise ClusterError(
            f"there is no kubeconfig to read the account from ({_trouble(error)}); name it with --account"
        ) from None
    raise ClusterError(f"the kubeconfig has no context {context}")


def _trouble(error: Exception) -> str:
    """Say what a kubeconfig lacks, without what the client quotes of it: that may be a token."""
    if isinstance(error, ConfigException | OSError):
        return str(error).partition("/{")[0]
    return f"it's damaged: {type(error).__name__}"


def _in_cluster() -> bool:
    return not _kubeconfigs() and (_SERVICE_ACCOUNT / "token").exists()


def _kubeconfigs() -> list[Path]:
    paths = [Path(path).expanduser() for path in KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep) if path]
    return [path for path in paths if path.exists()]


def _look_for(kubeconfig: Path | None) -> None:
    """Say in a sentence what the client would log, and then trip over."""
    if kubeconfig is None and not _kubeconfigs():
        raise ConfigException(f"there is no kubeconfig at {KUBE_CONFIG_DEFAULT_LOCATION}; name one with --kubeconfig")


def _reason(method: str, path: str, status: int, raw: bytes, *, quote: bool) -> str:
    """Say what the server refused; in its own words, or else, as those may repeat what was written, in one."""
    try:
        answer = json.loads(raw)
        said = answer["message"] if quote else answer["reason"]
    except (ValueError, KeyError, TypeError):
        said = "no reason given"
    return f"{method} {path}: {status} {said}"
