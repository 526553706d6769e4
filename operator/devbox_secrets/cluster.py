"""Everything that talks to the API server, one method for each right that the chart grants.

Bodies are plain dictionaries: the client's model objects cost more CPU than the requests do.
An error names the request and the server's reason, never a body.
"""

import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
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
from pydantic import SecretBytes

from devbox_secrets.api import (
    ACCOUNT_SECRET,
    FIELD_MANAGER,
    GROUP,
    KEYS_SECRET,
    LEASE,
    MANAGED_BY_LABEL,
    PLURAL,
    PUBLIC_KEYS_CONFIGMAP,
    SECRET_TYPE,
    VERSION,
    AccountSecretStatus,
)
from devbox_secrets.errors import ClusterError
from devbox_secrets.sealing import SealingKey

Body = dict[str, Any]
T = TypeVar("T")

ACCOUNT_SECRETS = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
NAMESPACES = "/api/v1/namespaces"
SECRETS = "/api/v1/secrets"
ACCOUNT_SECRETS_ONLY = f"metadata.name={ACCOUNT_SECRET}"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_TIMEOUT_SECONDS = 30
_PAGE = 500
_CONNECTIONS = 32
# What the client makes of a file that is no kubeconfig.
_NO_KUBECONFIG = (ConfigException, OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError)


class Cluster:
    """A connection to one API server, with the rights of whoever it was opened for."""

    def __init__(self, client: ApiClient, may_write: Callable[[], bool] = lambda: True) -> None:
        self._client = client
        self._may_write = may_write

    def fenced(self, may_write: Callable[[], bool]) -> "Cluster":
        """Give the same connection, on which nothing is written unless it may be at that moment."""
        return Cluster(self._client, may_write)

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig: Path | None = None, context: str | None = None) -> AsyncIterator["Cluster"]:
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

    async def list_all(self, path: str, read: Callable[[Body], T], field_selector: str = "") -> tuple[list[T], int]:
        """List every object of a kind, reading page by page; give all and the list's resourceVersion."""
        items: list[T] = []
        query = {"limit": str(_PAGE), "fieldSelector": field_selector}
        while True:
            page = await self._request("GET", path, query=query)
            items += map(read, page["items"])
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return items, int(page["metadata"]["resourceVersion"])

    async def create_account_secret(self, namespace: str) -> tuple[Body, bool]:
        """Create an empty account Secret where there is none; give what is there, and whether it's new.

        Only then is there a resource version that `apply_account_secret` can insist on. A Secret
        that came up meanwhile isn't touched: not by the creation, which is tried only where none
        is, and not in what it holds, since this is a field manager of its own.
        """
        try:
            return await self._request("GET", _account_secret(namespace)), False
        except ClusterError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
        query = {"fieldManager": f"{FIELD_MANAGER}-create"}
        path = _account_secret(namespace)
        answer = await self._answer("PATCH", path, query=query, body=_manifest({}), media_type=_APPLY)
        return answer.body, answer.status == HTTPStatus.CREATED

    async def apply_account_secret(
        self, namespace: str, values: Mapping[str, SecretBytes], resource_version: str
    ) -> Body:
        """Write a namespace's account Secret, if it's still in that state: these values and no others.

        Raises:
            ClusterError: 409, it's in another state by now.
        """
        body = {
            **_manifest({"resourceVersion": resource_version}),
            "data": {name: base64.b64encode(value.get_secret_value()).decode() for name, value in values.items()},
        }
        # Forced: what someone else wrote into our own Secret is drift.
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = _account_secret(namespace)
        return await self._request("PATCH", path, query=query, body=body, media_type=_APPLY)

    async def remove_account_secret_keys(self, namespace: str, names: list[str], resource_version: str) -> Body:
        """Remove keys that someone else put into a namespace's account Secret."""
        body = {
            "metadata": {"resourceVersion": resource_version},
            "data": dict.fromkeys(names),
        }
        query = {"fieldManager": FIELD_MANAGER}
        path = _account_secret(namespace)
        return await self._request("PATCH", path, query=query, body=body, media_type=_MERGE)

    async def delete_account_secret(self, namespace: str, resource_version: str) -> None:
        """Delete an account Secret, if it's still in that state (else ClusterError 409)."""
        body = {"preconditions": {"resourceVersion": resource_version}}
        try:
            await self._request("DELETE", _account_secret(namespace), body=body)
        except ClusterError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    async def write_status(self, namespace: str, name: str, status: AccountSecretStatus, resource_version: str) -> Body:
        """Write an AccountSecret's status, if it's still in that state (else ClusterError 409)."""
        body = {
            "metadata": {"resourceVersion": resource_version},
            # With its None: that is how a merge patch takes a field away.
            "status": status.model_dump(by_alias=True, mode="json"),
        }
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status"
        return await self._request("PATCH", path, body=body, media_type=_MERGE)

    async def read_keys(self, namespace: str) -> tuple[dict[str, SecretBytes], str]:
        """Read the Secret of the sealing keys: its entries and its resource version."""
        secret = await self._request("GET", f"{NAMESPACES}/{namespace}/secrets/{KEYS_SECRET}")
        entries = {name: SecretBytes(base64.b64decode(value)) for name, value in (secret.get("data") or {}).items()}
        return entries, secret["metadata"]["resourceVersion"]

    async def add_key(self, namespace: str, key_id: str, dump: SecretBytes, resource_version: str) -> None:
        """Add a sealing key, if its Secret is still in that state (else ClusterError 409)."""
        body = {
            "metadata": {"resourceVersion": resource_version},
            "data": {key_id: base64.b64encode(dump.get_secret_value()).decode()},
        }
        path = f"{NAMESPACES}/{namespace}/secrets/{KEYS_SECRET}"
        await self._request("PATCH", path, body=body, media_type=_MERGE)

    async def read_public_keys(self, namespace: str) -> dict[str, str]:
        """Read the ConfigMap of the public keys: text by key id, and once more as `newest`."""
        path = f"{NAMESPACES}/{namespace}/configmaps/{PUBLIC_KEYS_CONFIGMAP}"
        return (await self._request("GET", path)).get("data") or {}

    async def publish_keys(self, namespace: str, keys: list[SealingKey], newest: str) -> None:
        """Write the public keys' ConfigMap: these and no others; nothing where it's so already."""
        want: dict[str, str] = {key.id: str(key) for key in keys}
        want["newest"] = want[newest]
        path = f"{NAMESPACES}/{namespace}/configmaps/{PUBLIC_KEYS_CONFIGMAP}"
        found = await self._request("GET", path)
        have = found.get("data") or {}
        if have == want:
            return
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        body = {"metadata": version, "data": {**dict.fromkeys(have), **want}}
        await self._request("PATCH", path, body=body, media_type=_MERGE)

    async def read_lease(self, namespace: str) -> Body:
        """Read the Lease of the operator's replicas."""
        return await self._request("GET", _lease(namespace))

    async def write_lease(self, namespace: str, spec: Body, resource_version: str) -> None:
        """Change the Lease, if it's still in that state (else ClusterError 409)."""
        body = {"metadata": {"resourceVersion": resource_version}, "spec": spec}
        await self._request("PATCH", _lease(namespace), body=body, media_type=_MERGE)

    async def _request(self, method: str, path: str, **options: Any) -> Body:  # noqa: ANN401 - as _answer has them
        return (await self._answer(method, path, **options)).body

    async def _answer(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        media_type: str = "application/json",
    ) -> "_Answer":
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
        return _Answer(response.status, json.loads(raw))


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: Body = field(repr=False)


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


def _account_secret(namespace: str) -> str:
    return f"{NAMESPACES}/{namespace}/secrets/{ACCOUNT_SECRET}"


def _manifest(metadata: Body) -> Body:
    """Give the account Secret as we write it, but for its data."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": ACCOUNT_SECRET, "labels": {MANAGED_BY_LABEL: FIELD_MANAGER}, **metadata},
        "type": SECRET_TYPE,
    }


def _lease(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}"


def _reason(method: str, path: str, status: int, raw: bytes) -> str:
    """Say what the server refused. Its own words only for reads: for a write they may repeat it."""
    try:
        answer = json.loads(raw)
        said = answer["message"] if method == "GET" else answer["reason"]
    except (ValueError, KeyError, TypeError):
        said = "no reason given"
    return f"{method} {path}: {status} {said}"
