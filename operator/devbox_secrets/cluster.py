"""Everything that is asked of the API server, one method for each right that the chart grants. Imports connection."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

from pydantic import SecretBytes

from devbox_secrets.api import (
    ACCOUNT_SECRET,
    CREATOR,
    FIELD_MANAGER,
    GROUP,
    KEYS_SECRET,
    LEASE,
    MANAGED_BY_LABEL,
    PLURAL,
    PUBLIC_KEYS_CONFIGMAP,
    ROTATE_ANNOTATION,
    SECRET_TYPE,
    VERSION,
    AccountSecretStatus,
    account_secrets_path,
)
from devbox_secrets.connection import Body, Connection
from devbox_secrets.errors import ClusterError
from devbox_secrets.news import News
from devbox_secrets.sealing import SealingKey

T = TypeVar("T")

ACCOUNT_SECRETS = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
NAMESPACES = "/api/v1/namespaces"
SECRETS = "/api/v1/secrets"
ACCOUNT_SECRETS_ONLY = f"metadata.name={ACCOUNT_SECRET}"
EVENTS = "/apis/events.k8s.io/v1"
#: What an Event's note can hold (events.k8s.io/v1).
_NOTE_MAX_BYTES = 1024
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_PAGE = 500


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """The Secret of the sealing keys: what each is stored as, by its id, and what was asked of the operator."""

    entries: Mapping[str, SecretBytes]
    resource_version: str
    request: str | None = None
    """The annotation's text: the newest key must not be older than that."""


class Cluster(Connection):
    """What the operator and the command ask of the cluster."""

    async def list_all(self, path: str, read: Callable[[Body], T], field_selector: str = "") -> tuple[list[T], int]:
        """List every object of a kind, reading page by page; give all and the list's resourceVersion."""
        items: list[T] = []
        version = 0
        async for page in self.pages(path, {"fieldSelector": field_selector}, _PAGE):
            items += map(read, page["items"])
            version = int(page["metadata"]["resourceVersion"])
        return items, version

    async def create_account_secret(self, namespace: str) -> tuple[Body, bool]:
        """Create an empty account Secret where there is none; give what is there, and whether it's new.

        Only then is there a resource version that `apply_account_secret` can insist on. A Secret
        that comes up between the look and the creation keeps all that it holds: this names its type
        alone, and as a field manager of its own takes nothing away.
        """
        try:
            return await self.request("GET", _account_secret(namespace)), False
        except ClusterError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
        query = {"fieldManager": CREATOR}
        path = _account_secret(namespace)
        answer = await self.answer(
            "PATCH", path, query=query, body=_manifest({"name": ACCOUNT_SECRET}), media_type=_APPLY
        )
        return answer.body, answer.status == HTTPStatus.CREATED

    async def apply_account_secret(
        self, namespace: str, values: Mapping[str, SecretBytes], resource_version: str
    ) -> Body:
        """Write a namespace's account Secret, if it's still in that state: these values and no others.

        Raises:
            ClusterError: 409, it's in another state by now.
        """
        body = {
            **_manifest(
                {
                    "name": ACCOUNT_SECRET,
                    "labels": {MANAGED_BY_LABEL: FIELD_MANAGER},
                    "resourceVersion": resource_version,
                }
            ),
            "data": {name: _base64(value) for name, value in values.items()},
        }
        # Forced: what someone else wrote into our own Secret is drift.
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = _account_secret(namespace)
        return await self.request("PATCH", path, query=query, body=body, media_type=_APPLY)

    async def remove_account_secret_keys(self, namespace: str, names: list[str], resource_version: str) -> Body:
        """Remove keys that someone else put into a namespace's account Secret."""
        body = {
            "metadata": {"resourceVersion": resource_version},
            "data": dict.fromkeys(names),
        }
        query = {"fieldManager": FIELD_MANAGER}
        path = _account_secret(namespace)
        return await self.request("PATCH", path, query=query, body=body, media_type=_MERGE)

    async def delete_account_secret(self, namespace: str, resource_version: str) -> None:
        """Delete an account Secret, if it's still in that state (else ClusterError 409)."""
        body = {"preconditions": {"resourceVersion": resource_version}}
        try:
            await self.request("DELETE", _account_secret(namespace), body=body)
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
        path = f"{account_secrets_path(namespace, name)}/status"
        return await self.request("PATCH", path, body=body, media_type=_MERGE)

    async def write_sealed(self, namespace: str, name: str, sealed: str, resource_version: str) -> Body:
        """Replace an AccountSecret's sealed value, if it's still in that state (else ClusterError 409)."""
        body = {"metadata": {"resourceVersion": resource_version}, "spec": {"sealed": sealed}}
        query = {"fieldManager": FIELD_MANAGER}
        path = account_secrets_path(namespace, name)
        return await self.request("PATCH", path, query=query, body=body, media_type=_MERGE, quote=True)

    async def post_event(self, regarding: Mapping[str, str], news: News, time: str, reporter: str) -> None:
        """Post an Event about an object, in its namespace; nothing where the same one is there already.

        `regarding` is an ObjectReference; `time` is RFC 3339 with microseconds.
        """
        told = "\n".join([*regarding.values(), news.reason, news.message])
        namespace, name = regarding["namespace"], regarding["name"]
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{name[:200]}.{hashlib.sha256(told.encode()).hexdigest()[:16]}"},
            "type": "Warning" if news.warning else "Normal",
            "reason": news.reason,
            "note": news.message.encode()[:_NOTE_MAX_BYTES].decode(errors="ignore"),
            "action": "Sync",
            "regarding": regarding,
            "eventTime": time,
            "reportingController": GROUP,
            "reportingInstance": reporter,
        }
        try:
            await self.request("POST", f"{EVENTS}/namespaces/{namespace}/events", body=body)
        except ClusterError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise

    async def read_keys(self, namespace: str) -> StoredKeys:
        """Read the Secret of the sealing keys."""
        secret = await self.request("GET", _keys(namespace))
        entries = {name: SecretBytes(base64.b64decode(value)) for name, value in (secret.get("data") or {}).items()}
        annotations = secret["metadata"].get("annotations") or {}
        return StoredKeys(entries, secret["metadata"]["resourceVersion"], annotations.get(ROTATE_ANNOTATION))

    async def write_keys(
        self, namespace: str, entries: Mapping[str, SecretBytes | None], resource_version: str
    ) -> None:
        """Add sealing keys, and remove those that are None, if their Secret is still in that state.

        Raises:
            ClusterError: 409, it's in another state by now.
        """
        data = {name: None if key is None else _base64(key) for name, key in entries.items()}
        body = {"metadata": {"resourceVersion": resource_version}, "data": data}
        query = {"fieldManager": FIELD_MANAGER}
        await self.request("PATCH", _keys(namespace), query=query, body=body, media_type=_MERGE)

    async def request_key(self, namespace: str, since: str) -> None:
        """Ask the leader for a sealing key that isn't older than an RFC 3339 time."""
        body = {"metadata": {"annotations": {ROTATE_ANNOTATION: since}}}
        query = {"fieldManager": FIELD_MANAGER}
        await self.request("PATCH", _keys(namespace), query=query, body=body, media_type=_MERGE)

    async def read_public_keys(self, namespace: str) -> dict[str, str]:
        """Read the ConfigMap of the public keys: text by key id, and once more as `newest`."""
        path = f"{NAMESPACES}/{namespace}/configmaps/{PUBLIC_KEYS_CONFIGMAP}"
        return (await self.request("GET", path)).get("data") or {}

    async def publish_keys(self, namespace: str, keys: Sequence[SealingKey]) -> None:
        """Write the public keys' ConfigMap: these and no others, the newest first; nothing where it's so already."""
        want: dict[str, str] = {key.id: str(key) for key in keys}
        want["newest"] = str(keys[0])
        path = f"{NAMESPACES}/{namespace}/configmaps/{PUBLIC_KEYS_CONFIGMAP}"
        found = await self.request("GET", path)
        have = found.get("data") or {}
        if have == want:
            return
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        body = {"metadata": version, "data": {**dict.fromkeys(have), **want}}
        await self.request("PATCH", path, body=body, media_type=_MERGE)

    async def read_lease(self, namespace: str) -> Body:
        """Read the Lease of the operator's replicas."""
        return await self.request("GET", _lease(namespace))

    async def write_lease(self, namespace: str, spec: Body, resource_version: str) -> None:
        """Change the Lease, if it's still in that state (else ClusterError 409)."""
        body = {"metadata": {"resourceVersion": resource_version}, "spec": spec}
        await self.request("PATCH", _lease(namespace), body=body, media_type=_MERGE)


def _account_secret(namespace: str) -> str:
    return f"{NAMESPACES}/{namespace}/secrets/{ACCOUNT_SECRET}"


def _keys(namespace: str) -> str:
    return f"{NAMESPACES}/{namespace}/secrets/{KEYS_SECRET}"


def _base64(value: SecretBytes) -> str:
    return base64.b64encode(value.get_secret_value()).decode()


def _manifest(metadata: Body) -> Body:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": SECRET_TYPE}


def _lease(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}"
