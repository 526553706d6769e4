"""The way to the API server: who connects, one request, and what an error may say. Imports errors alone.

Bodies are plain dictionaries: the client's model objects cost more CPU than the requests do.
An error names the request and the server's reason, never a body.
"""

import json
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
from kubernetes.aio.config import (
    ConfigException,
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)

from devbox_secrets.errors import ClusterError

Body = dict[str, Any]

_TIMEOUT_SECONDS = 30
_CONNECTIONS = 32
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
        """Connect as the pod's ServiceAccount inside a cluster, else as kubectl would.

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
                path = str(kubeconfig) if kubeconfig else None
                await load_kube_config(path, context, client_configuration=configuration, persist_config=False)
        except _NO_KUBECONFIG as error:
            raise ClusterError(f"no cluster to connect to: {_trouble(error)}") from None
        async with ApiClient(configuration) as client:
            yield cls(client)

    async def request(self, method: str, path: str, **options: Any) -> Body:  # noqa: ANN401 - as answer has them
        """Send a request as `answer` does, and give the answer's body."""
        return (await self.answer(method, path, **options)).body

    async def answer(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        media_type: str = "application/json",
    ) -> Answer:
        """Send one request.

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
            raise ClusterError(_reason(method, path, response.status, raw), response.status)
        return Answer(response.status, json.loads(raw))


def present_namespace(kubeconfig: Path | None = None, context: str | None = None) -> str:
    """Give the namespace that kubectl would use: the context's, or `default`.

    Raises:
        ClusterError: there is no such context, or no kubeconfig.
    """
    try:
        contexts, active = list_kube_config_contexts(str(kubeconfig) if kubeconfig else None)
    except _NO_KUBECONFIG as error:
        raise ClusterError(
            f"there is no kubeconfig to read the account from ({_trouble(error)}); name it with --account"
        ) from None
    chosen = next((one for one in contexts if one["name"] == context), None) if context else active
    if chosen is None:
        raise ClusterError(f"the kubeconfig has no context {context}")
    namespace: str = chosen["context"].get("namespace", "default")
    return namespace


def _trouble(error: Exception) -> str:
    """Say what a kubeconfig lacks, without what the client quotes of it: that may be a token."""
    if isinstance(error, ConfigException | OSError):
        return str(error).partition("/{")[0]
    return f"it's damaged: {type(error).__name__}"


def _in_cluster() -> bool:
    return Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()


def _reason(method: str, path: str, status: int, raw: bytes) -> str:
    """Say what the server refused. Its own words only for reads: for a write they may repeat it."""
    try:
        answer = json.loads(raw)
        said = answer["message"] if method == "GET" else answer["reason"]
    except (ValueError, KeyError, TypeError):
        said = "no reason given"
    return f"{method} {path}: {status} {said}"
