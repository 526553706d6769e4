"""Creates, reads, updates and deletes AccountSecrets with the caller's token; seals values with the public key.

Only the public key is cached, and only briefly, so several gateways behind one Service behave like one.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pydantic import SecretBytes

from devbox_secrets.api.accounts import account_of
from devbox_secrets.api.manifest import manifest, object_name, object_names
from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.api.names import (
    GATEWAY_FIELD_MANAGER,
    NAMESPACES_PATH,
    PUBLIC_KEYS_CONFIGMAP,
    account_secrets_path,
)
from devbox_secrets.api.validation import check_value, check_variable, is_reserved, reserved_name
from devbox_secrets.crypto.envelope import PublicKey
from devbox_secrets.errors import (
    APIError,
    Conflict,
    DevboxSecretsError,
    Invalid,
    InvalidKey,
    InvalidName,
    NotFound,
)
from devbox_secrets.gateway.backend.auth import Caller
from devbox_secrets.gateway.backend.record import (
    Body,
    Record,
    creation_annotations,
    idempotency_key,
    read_object,
    read_table,
    update_annotations,
)
from devbox_secrets.gateway.backend.upstream import MERGE, TABLE, Upstream
from devbox_secrets.gateway.contract.errors import bad_request, not_found, not_the_home, service_unavailable
from devbox_secrets.gateway.contract.ids import SecretId

#: How long a new sealing key may go unnoticed.
KEY_SECONDS = 15
_PAGE_SIZE = 1000
_MAX_ATTEMPTS = 5
#: Includes the objects' metadata in a table's rows.
_METADATA = {"includeObject": "Metadata"}
_WRITE = {"fieldManager": GATEWAY_FIELD_MANAGER}

Find = Callable[[], Awaitable[Record]]
"""Finds the secret that a request is about; called again if the secret has changed meanwhile."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of an account's secrets."""

    records: Sequence[Record]
    has_more: bool
    total: int


class Store:
    """The AccountSecrets of every account that a caller may use."""

    def __init__(self, upstream: Upstream, namespace: str, reserved: Sequence[str]) -> None:
        self._upstream = upstream
        self._namespace = namespace
        self._reserved = reserved
        self._key: tuple[PublicKey, float] | None = None

    async def create(self, caller: Caller, variable: str, value: SecretBytes, request_id: str | None) -> Record:
        """Create a secret, once for each request.

        Raises:
            ErrorResponse: the name is taken, or the namespace belongs to another account.
            InvalidName, InvalidValue, ValueTooLarge: the name or the value isn't allowed.
            APIError: the API server rejects it.
        """
        check_variable(variable)
        check_value(variable, value)
        if is_reserved(variable, self._reserved):
            raise reserved_name(variable)
        key = idempotency_key(request_id, caller.token, f"create {variable}", value)
        existing = await self._with_variable(caller, variable)
        sealed = await self._seal(caller, variable, value)
        # Users can choose any object name, so ours may be taken by another variable.
        for name in object_names(variable):
            if existing:
                break
            body = manifest(caller.account, AccountSecretSpec(name=variable, sealed=sealed), name)
            body["metadata"]["annotations"] = creation_annotations(_now_ms(), key)
            try:
                return read_object(await self._request(caller, "POST", query=_WRITE, body=body))
            except Conflict:
                existing = await self._with_variable(caller, variable)
            except Invalid as error:  # rejected by a policy
                raise await self._explained(caller, error) from None
        if not existing:
            raise bad_request(
                "other variables' AccountSecrets already use the object names for this secret;"
                " create it with kubectl under another object name"
            )
        if key in existing[0].idempotency_keys:
            return existing[0]
        raise bad_request("a secret with this name already exists; update it, or delete it first")

    async def page(self, caller: Caller, limit: int, starting_after: str | None) -> Page:
        """List an account's secrets, newest first."""
        records = sorted(await self._list(caller), key=lambda record: record.id.order, reverse=True)
        rest = records
        if starting_after is not None:
            after = SecretId.parse(starting_after)
            if after is None:
                raise bad_request("starting_after must be the id of the last secret on the previous page")
            rest = [record for record in records if record.id.order < after.order]
        return Page(rest[:limit], len(rest) > limit, len(records))

    async def by_name(self, caller: Caller, variable: str) -> Record:
        """Find a secret by its name; if kubectl created several, the one that devboxes get."""
        try:
            check_variable(variable)
        except InvalidName:
            raise not_found() from None
        # For the API server, reading one object is cheaper than searching for a variable.
        with suppress(NotFound):
            record = await self._read(caller, object_name(variable))
            if record.variable == variable and record.is_ready:
                return record
        found = await self._with_variable(caller, variable)
        if not found:
            raise not_found()
        return found[0]

    async def by_id(self, caller: Caller, text: str) -> Record:
        """Find a secret by its id."""
        wanted = SecretId.parse(text)
        if wanted is None:
            raise not_found()
        record = await self._read(caller, wanted.name)
        if record.id.uid != wanted.uid:
            raise not_found()
        return record

    async def update(self, caller: Caller, find: Find, value: SecretBytes, request_id: str | None) -> Record:
        """Set a secret's value, once for each request."""
        key = idempotency_key(request_id, caller.token, "update", value)
        for _ in range(_MAX_ATTEMPTS):
            record = await find()
            if key in record.idempotency_keys:
                return record
            check_value(record.variable, value)
            body: Body = {
                "metadata": {
                    "resourceVersion": record.resource_version,
                    "annotations": update_annotations(_now_ms(), record.idempotency_keys, key),
                },
                "spec": {"sealed": await self._seal(caller, record.variable, value)},
            }
            headers = {"Content-Type": MERGE}
            try:
                updated = await self._request(caller, "PATCH", record.id.name, query=_WRITE, body=body, headers=headers)
            except Conflict:  # changed meanwhile, for example by the operator's status update
                continue
            return read_object(updated)
        raise service_unavailable("the secret is being changed by other requests")

    async def delete(self, caller: Caller, find: Find) -> Record:
        """Delete a secret; return its last state."""
        record = await find()
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": str(record.id.uid)}}
        try:
            await self._request(caller, "DELETE", record.id.name, body=body)
        except Conflict:  # deleted and recreated meanwhile
            raise not_found() from None
        return record

    async def _read(self, caller: Caller, name: str) -> Record:
        # Not as a table, which costs the API server about a tenth more CPU than the object.
        return read_object(await self._request(caller, "GET", name))

    async def _with_variable(self, caller: Caller, variable: str) -> list[Record]:
        """Return the AccountSecrets of a variable, starting with the one that devboxes get."""
        return sorted(await self._list(caller, f"spec.name={variable}"), key=lambda record: record.precedence)

    async def _list(self, caller: Caller, field_selector: str = "") -> list[Record]:
        records: list[Record] = []
        query = {**_METADATA, "limit": str(_PAGE_SIZE), "fieldSelector": field_selector}
        headers = {"Accept": TABLE}
        while True:
            try:
                table = await self._request(caller, "GET", query=query, headers=headers)
            except NotFound:
                raise service_unavailable("the AccountSecret CRD isn't installed in the cluster") from None
            records += read_table(table)
            query["continue"] = table["metadata"].get("continue", "")
            if not query["continue"]:
                return records

    async def _explained(self, caller: Caller, error: APIError) -> DevboxSecretsError:
        """Explain a rejected creation: the reason may be that the caller's namespace belongs to another account.

        The namespace is read with the caller's token; without permission to read it, the error stays unchanged.
        """
        try:
            namespace = await self._upstream.request(caller.token, "GET", f"{NAMESPACES_PATH}/{caller.account}")
        except APIError:
            return error
        home = account_of(caller.account, namespace["metadata"].get("labels") or {})
        return error if home == caller.account else not_the_home(home)

    async def _seal(self, caller: Caller, variable: str, value: SecretBytes) -> str:
        key = await self._newest_key(caller)
        return key.seal(value, account=caller.account, name=variable)

    async def _newest_key(self, caller: Caller) -> PublicKey:
        """Read the public key; every authenticated user can read it, so it is cached for all."""
        now = time.monotonic()
        if self._key and now - self._key[1] < KEY_SECONDS:
            return self._key[0]
        path = f"{NAMESPACES_PATH}/{self._namespace}/configmaps/{PUBLIC_KEYS_CONFIGMAP}"
        try:
            keys = (await self._upstream.request(caller.token, "GET", path)).get("data") or {}
            key = PublicKey.parse(keys["newest"])
        except (KeyError, InvalidKey):
            raise service_unavailable("there is no sealing key (see devbox-secrets check)") from None
        except NotFound:
            raise service_unavailable("the ConfigMap with the public keys doesn't exist") from None
        self._key = key, now
        return key

    async def _request(
        self,
        caller: Caller,
        method: str,
        name: str = "",
        *,
        query: dict[str, str] | None = None,
        body: Body | None = None,
        headers: dict[str, str] | None = None,
    ) -> Body:
        path = account_secrets_path(caller.account, name)
        return await self._upstream.request(caller.token, method, path, query=query, body=body, headers=headers)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
