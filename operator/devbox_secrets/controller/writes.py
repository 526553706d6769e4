"""Writes account Secrets, AccountSecrets, Events and the Lease: one method per permission. Not the sealing keys."""

import base64
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus

from pydantic import SecretBytes

from devbox_secrets.api.accounts import account_of
from devbox_secrets.api.models import AccountSecretStatus
from devbox_secrets.api.names import (
    ACCOUNT_LABEL,
    ACCOUNT_SECRET,
    CREATE_FIELD_MANAGER,
    FIELD_MANAGER,
    GROUP,
    LEASE,
    MANAGED_BY_LABEL,
    NAMESPACES_PATH,
    SECRET_TYPE,
    account_secrets_path,
)
from devbox_secrets.controller.rules.events import Event
from devbox_secrets.errors import Conflict, NotFound
from devbox_secrets.kube.client import APPLY, MERGE, METADATA, Body, Client

EVENTS_PATH = "/apis/events.k8s.io/v1"
LEASES_PATH = "/apis/coordination.k8s.io/v1"
#: Maximum size of an Event's note (events.k8s.io/v1).
_NOTE_MAX_BYTES = 1024
#: An Event's name is a prefix of its object's name, a dot and part of a hash (RFC 1123 subdomain: 253 characters).
_EVENT_NAME_PREFIX_LENGTH = 200
_AS_FIELD_MANAGER = {"fieldManager": FIELD_MANAGER}


class Writer:
    """Writes account Secrets, AccountSecrets, Events and the Lease."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def has_namespace(self, name: str, uid: str, account: str) -> bool:
        """Return whether a namespace still has this uid and account, so that it may get the account's values."""
        query = {"fieldSelector": f"metadata.name={name}"}  # the operator may list namespaces, but not get them
        found = (await self._client.request("GET", NAMESPACES_PATH, query=query))["items"]
        return any(
            metadata["uid"] == uid
            and "deletionTimestamp" not in metadata
            and account_of(name, metadata.get("labels") or {}) == account
            for metadata in (each["metadata"] for each in found)
        )

    async def create_account_secret(self, namespace: str) -> tuple[Body, bool]:
        """Create an empty account Secret if there is none; return the Secret, and whether it is new.

        `apply_account_secret` needs the resourceVersion of an existing Secret. If someone else creates
        the Secret after the read, it keeps its content: this request applies only the type, and with a
        separate field manager it removes nothing.
        """
        path = _account_secret_path(namespace)
        try:
            return await self.read_account_secret(namespace), False
        except NotFound:
            body = _secret({"name": ACCOUNT_SECRET})
        query = {"fieldManager": CREATE_FIELD_MANAGER}
        response = await self._client.send("PATCH", path, query=query, body=body, media_type=APPLY)
        return response.body, response.status == HTTPStatus.CREATED

    async def read_account_secret(self, namespace: str) -> Body:
        """Read a namespace's account Secret.

        Raises:
            NotFound: there is none.
        """
        return await self._client.request("GET", _account_secret_path(namespace))

    async def read_sealed(self, namespace: str, name: str) -> str | None:
        """Read an AccountSecret's sealed text with a list request; None if there is no such object."""
        query = {"fieldSelector": f"metadata.name={name}"}
        body = await self._client.request("GET", account_secrets_path(namespace), query=query)
        return next((item["spec"]["sealed"] for item in body["items"]), None)

    async def apply_account_secret(
        self, namespace: str, account: str, values: Mapping[str, SecretBytes], uid: str, resource_version: str
    ) -> Body:
        """Write a namespace's account Secret with these values and no others, if it hasn't changed since.

        Raises:
            Conflict: it was changed or deleted.
        """
        labels = {MANAGED_BY_LABEL: FIELD_MANAGER, ACCOUNT_LABEL: account}
        # Without the uid, a deleted Secret would be created again: server-side apply compares resourceVersions
        # only if the object exists.
        metadata = {"name": ACCOUNT_SECRET, "labels": labels, "uid": uid, "resourceVersion": resource_version}
        body = {
            **_secret(metadata),
            "data": {name: base64.b64encode(value.get_secret_value()).decode() for name, value in values.items()},
        }
        # Forced: what others write into our Secret is drift.
        query = {**_AS_FIELD_MANAGER, "force": "true"}
        path = _account_secret_path(namespace)
        return await self._client.request("PATCH", path, query=query, body=body, media_type=APPLY)

    async def remove_account_secret_keys(self, namespace: str, names: list[str], resource_version: str) -> Body:
        """Remove keys that someone else added to a namespace's account Secret.

        Raises:
            Conflict: it was changed.
        """
        body = {"metadata": {"resourceVersion": resource_version}, "data": dict.fromkeys(names)}
        path = _account_secret_path(namespace)
        return await self._client.request("PATCH", path, query=_AS_FIELD_MANAGER, body=body, media_type=MERGE)

    async def delete_account_secret(self, namespace: str, resource_version: str) -> None:
        """Delete an account Secret, if it hasn't changed since.

        Raises:
            Conflict: it was changed.
        """
        body = {"preconditions": {"resourceVersion": resource_version}}
        with suppress(NotFound):
            await self._client.request("DELETE", _account_secret_path(namespace), body=body)

    async def write_status(self, namespace: str, name: str, status: AccountSecretStatus, resource_version: str) -> str:
        """Write an AccountSecret's status, if it hasn't changed since; return the new resourceVersion.

        Raises:
            Conflict: it was changed.
            NotFound: it was deleted.
        """
        body = {
            "metadata": {"resourceVersion": resource_version},
            # Including None: in a merge patch, null removes a field.
            "status": status.model_dump(by_alias=True, mode="json"),
        }
        path = f"{account_secrets_path(namespace, name)}/status"
        written = await self._client.request("PATCH", path, body=body, media_type=MERGE, accept=METADATA)
        version: str = written["metadata"]["resourceVersion"]
        return version

    async def write_sealed(self, namespace: str, name: str, sealed: str, resource_version: str) -> Body:
        """Replace an AccountSecret's sealed value, if it hasn't changed since.

        Raises:
            Conflict: it was changed.
            NotFound: it was deleted.
        """
        body = {"metadata": {"resourceVersion": resource_version}, "spec": {"sealed": sealed}}
        path = account_secrets_path(namespace, name)
        return await self._client.request(
            "PATCH", path, query=_AS_FIELD_MANAGER, body=body, media_type=MERGE, quote=True
        )

    async def create_event(self, regarding: Mapping[str, str], event: Event, time: str, reporter: str) -> None:
        """Create an Event about an object in its namespace, unless the same Event already exists.

        `regarding` is an ObjectReference; `time` is RFC 3339 with microseconds.
        """
        content = "\n".join([*regarding.values(), event.reason, event.message])
        namespace, name = regarding["namespace"], regarding["name"][:_EVENT_NAME_PREFIX_LENGTH].rstrip("-.")
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{hashlib.sha256(content.encode()).hexdigest()[:16]}"},
            "type": event.type,
            "reason": event.reason,
            "note": event.message.encode()[:_NOTE_MAX_BYTES].decode(errors="ignore"),
            "action": "Sync",
            "regarding": regarding,
            "eventTime": time,
            "reportingController": GROUP,
            "reportingInstance": reporter,
        }
        with suppress(Conflict):
            await self._client.request("POST", f"{EVENTS_PATH}/namespaces/{namespace}/events", body=body)

    async def read_lease(self, namespace: str) -> Body:
        """Read the Lease of the operator's replicas."""
        return await self._client.request("GET", _lease_path(namespace))

    async def write_lease(self, namespace: str, spec: Body, resource_version: str) -> Body:
        """Update the Lease, if it hasn't changed since; return the new state.

        Raises:
            Conflict: it was changed.
        """
        body = {"metadata": {"resourceVersion": resource_version}, "spec": spec}
        return await self._client.request("PATCH", _lease_path(namespace), body=body, media_type=MERGE)


def _account_secret_path(namespace: str) -> str:
    return f"{NAMESPACES_PATH}/{namespace}/secrets/{ACCOUNT_SECRET}"


def _lease_path(namespace: str) -> str:
    return f"{LEASES_PATH}/namespaces/{namespace}/leases/{LEASE}"


def _secret(metadata: Body) -> Body:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": SECRET_TYPE}
