"""What can be done with an account's secrets, in a caller's name. Imports record, upstream and sealing.

No state is kept but the public key, for a short time: two gateways behind one Service behave as one.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pydantic import SecretBytes

from devbox_secrets.api import (
    GATEWAY_MANAGER,
    PUBLIC_KEYS_CONFIGMAP,
    AccountSecretSpec,
    account_secrets_path,
    check_value,
    check_variable,
)
from devbox_secrets.errors import ClusterError, InvalidKey, InvalidName
from devbox_secrets.gateway.answers import bad_request, later, not_found
from devbox_secrets.gateway.callers import Caller
from devbox_secrets.gateway.ids import SecretId
from devbox_secrets.gateway.record import (
    Body,
    Record,
    mark_of,
    notes_of_creation,
    notes_of_update,
    read_object,
    read_table,
)
from devbox_secrets.gateway.upstream import MERGE, TABLE, Upstream
from devbox_secrets.manifest import manifest, object_names
from devbox_secrets.plan import is_reserved
from devbox_secrets.refusals import reserved_name
from devbox_secrets.sealing import SealingKey

#: How long a new sealing key may stay unnoticed.
KEY_SECONDS = 15
_PAGE = 1000
_ATTEMPTS = 5
_NOT_FOUND, _CONFLICT = 404, 409

Find = Callable[[], Awaitable[Record]]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of an account's secrets."""

    records: Sequence[Record]
    more: bool
    total: int


class Store:
    """The AccountSecrets of whichever account a caller may use."""

    def __init__(self, upstream: Upstream, namespace: str, reserved: Sequence[str]) -> None:
        self._upstream = upstream
        self._namespace = namespace
        self._reserved = reserved
        self._key: tuple[SealingKey, float] | None = None

    async def create(self, caller: Caller, variable: str, value: SecretBytes, request_id: str | None) -> Record:
        """Make a secret.

        Raises:
            Declined: there is one of that name.
            InvalidName: no variable can have it; or InvalidValue, ValueTooLarge.
            ClusterError: the API server refuses it.
        """
        check_variable(variable)
        check_value(variable, value)
        if is_reserved(variable, self._reserved):
            raise InvalidName(reserved_name(variable).message)
        mark = mark_of(request_id, f"create {variable}")
        found = await self._named(caller, variable)
        sealed = await self._seal(caller, variable, value)
        # An object's name is free for its user to choose, so someone may have ours for another variable.
        for name in object_names(variable):
            if found:
                break
            body = manifest(caller.account, AccountSecretSpec(name=variable, sealed=sealed), name)
            body["metadata"]["annotations"] = notes_of_creation(_now_ms(), mark)
            query = {"fieldManager": GATEWAY_MANAGER}
            try:
                return read_object(await self._ask(caller, "POST", query=query, body=body))
            except ClusterError as error:
                if error.status != _CONFLICT:
                    raise
            found = await self._named(caller, variable)
        if not found:
            raise bad_request(
                "the AccountSecrets that would bear this secret's names in Kubernetes are there with other variables;"
                " make it with kubectl, under a name of your choice"
            )
        if mark in found[0].requests:
            return found[0]
        raise bad_request("the account has a secret of this name already; update that one, or delete it first")

    async def page(self, caller: Caller, limit: int, starting_after: str | None) -> Page:
        """List secrets, the newest first, beginning after the one with this id."""
        records = sorted(await self._list(caller), key=lambda record: record.id.order, reverse=True)
        rest = records
        if starting_after is not None:
            after = SecretId.parse(starting_after)
            if after is None:
                raise bad_request("starting_after must be the id of the last secret on the page before")
            rest = [record for record in records if record.id.order < after.order]
        return Page(rest[:limit], len(rest) > limit, len(records))

    async def by_name(self, caller: Caller, variable: str) -> Record:
        """Find a secret by its name; of several that kubectl made, the one that devboxes get."""
        try:
            check_variable(variable)
        except InvalidName:
            raise not_found() from None
        found = await self._named(caller, variable)
        if not found:
            raise not_found()
        return found[0]

    async def by_id(self, caller: Caller, text: str) -> Record:
        """Find a secret by its id."""
        sought = SecretId.parse(text)
        if sought is None:
            raise not_found()
        table = await self._ask(caller, "GET", sought.name, query=_METADATA, headers={"Accept": TABLE})
        (record,) = read_table(table)
        if record.id.uid != sought.uid:
            raise not_found()
        return record

    async def update(self, caller: Caller, find: Find, value: SecretBytes, request_id: str | None) -> Record:
        """Give a secret a new value, once for each request."""
        mark = mark_of(request_id, "update")
        for _ in range(_ATTEMPTS):
            found = await find()
            if mark in found.requests:
                return found
            check_value(found.variable, value)
            body: Body = {
                "metadata": {
                    "resourceVersion": found.resource_version,
                    "annotations": notes_of_update(_now_ms(), found.requests, mark),
                },
                "spec": {"sealed": await self._seal(caller, found.variable, value)},
            }
            try:
                return read_object(
                    await self._ask(
                        caller,
                        "PATCH",
                        found.id.name,
                        query={"fieldManager": GATEWAY_MANAGER},
                        body=body,
                        headers={"Content-Type": MERGE},
                    )
                )
            except ClusterError as error:  # in another state by now, with the operator's status for instance
                if error.status != _CONFLICT:
                    raise
        raise later("others change this secret at the same time")

    async def delete(self, caller: Caller, find: Find) -> Record:
        """Delete a secret, and give it as it was."""
        found = await find()
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": str(found.id.uid)}}
        try:
            await self._ask(caller, "DELETE", found.id.name, body=body)
        except ClusterError as error:  # a conflict: it was deleted by now, and made anew
            raise (not_found() if error.status == _CONFLICT else error) from None
        return found

    async def _named(self, caller: Caller, variable: str) -> list[Record]:
        """Give the AccountSecrets of a variable, the one that devboxes get first."""
        return sorted(await self._list(caller, f"spec.name={variable}"), key=lambda record: record.age)

    async def _list(self, caller: Caller, field_selector: str = "") -> list[Record]:
        records: list[Record] = []
        query = {**_METADATA, "limit": str(_PAGE), "fieldSelector": field_selector}
        # Not compressed: that takes the API server longer than the whole table on the wire.
        headers = {"Accept": TABLE, "Accept-Encoding": "identity"}
        while True:
            try:
                table = await self._ask(caller, "GET", query=query, headers=headers)
            except ClusterError as error:
                if error.status != _NOT_FOUND:
                    raise
                raise later("the cluster doesn't know AccountSecrets, which the chart's CRD brings") from None
            records += read_table(table)
            query["continue"] = table["metadata"].get("continue", "")
            if not query["continue"]:
                return records

    async def _seal(self, caller: Caller, variable: str, value: SecretBytes) -> str:
        key = await self._newest_key(caller)
        return key.seal(value, account=caller.account, name=variable)

    async def _newest_key(self, caller: Caller) -> SealingKey:
        """Read the public key; everyone who is logged in may, so it is the same for all."""
        now = time.monotonic()
        if self._key and now - self._key[1] < KEY_SECONDS:
            return self._key[0]
        path = f"/api/v1/namespaces/{self._namespace}/configmaps/{PUBLIC_KEYS_CONFIGMAP}"
        try:
            keys = (await self._upstream.ask(caller.token, "GET", path)).get("data") or {}
            key = SealingKey.parse(keys["newest"])
        except (KeyError, InvalidKey):
            raise later("there is no sealing key yet, which the operator makes when it starts") from None
        except ClusterError as error:
            if error.status != _NOT_FOUND:
                raise
            raise later("there are no public keys where the operator should be") from None
        self._key = key, now
        return key

    async def _ask(
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
        return await self._upstream.ask(caller.token, method, path, query=query, body=body, headers=headers)


#: With a table's rows, their objects' metadata.
_METADATA = {"includeObject": "Metadata"}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
