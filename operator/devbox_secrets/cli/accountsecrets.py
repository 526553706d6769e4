"""AccountSecrets through the API server, with the caller's rights: find, apply, delete. Imports manifest, sealing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from devbox_secrets.api import (
    GROUP,
    KIND,
    OBJECT_NAME_PATTERN,
    VARIABLE_PATTERN,
    AccountSecretSpec,
    AccountSecretStatus,
    Condition,
    Reason,
    account_secrets_path,
)
from devbox_secrets.errors import ClusterError, NotFound
from devbox_secrets.manifest import manifest
from devbox_secrets.sealing import key_id_of

if TYPE_CHECKING:
    from devbox_secrets.cluster import Cluster
    from devbox_secrets.connection import Body

#: Who writes, in server-side apply's managedFields.
FIELD_MANAGER = "devbox-secrets-cli"
#: For these, devboxes aren't given the value of this AccountSecret, whatever it was before.
_NOT_GIVEN = {Reason.NAME_CONFLICT, Reason.RESERVED_NAME, Reason.NOT_A_HOME}
_CONFLICT = "Apply failed with "


@dataclass(frozen=True)
class AccountSecret:
    """An AccountSecret as the API server has it."""

    body: "Body" = field(repr=False)

    @property
    def account(self) -> str:
        """The namespace it is in."""
        return str(self.body["metadata"]["namespace"])

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.body["metadata"]["name"])

    @cached_property
    def variable(self) -> str:
        """The environment variable."""
        return str(self.body["spec"]["name"])

    @cached_property
    def spec(self) -> AccountSecretSpec:
        """What its owner wrote."""
        return AccountSecretSpec.model_validate(self.body["spec"])

    @cached_property
    def status(self) -> AccountSecretStatus:
        """What the operator made of it."""
        return AccountSecretStatus.model_validate(self.body.get("status") or {})

    @cached_property
    def ready(self) -> Condition | None:
        """What the operator says of the present generation, once it has."""
        seen = self.status.observed_generation == self.body["metadata"]["generation"]
        return self.status.ready if seen else None

    @property
    def synced(self) -> bool:
        """Whether new devboxes have the present value."""
        return self.ready is not None and self.ready.holds

    @property
    def synced_text(self) -> str:
        """The same in words, with the reason why not."""
        return "not yet" if self.ready is None else "yes" if self.synced else f"no: {self.ready.reason}"

    @cached_property
    def given_since(self) -> str | None:
        """When the value that devboxes are given last changed, None where they are given none of this."""
        return None if self.ready is not None and self.ready.reason in _NOT_GIVEN else self.status.changed_at

    @cached_property
    def created(self) -> str:
        """When the object was made."""
        return str(self.body["metadata"]["creationTimestamp"])

    @property
    def full_name(self) -> str:
        """What kubectl calls it."""
        return f"{KIND.lower()}.{GROUP}/{self.name}"


async def list_all(cluster: "Cluster", account: str, field_selector: str = "") -> list[AccountSecret]:
    """List an account's AccountSecrets, by variable.

    Raises:
        ClusterError: they can't be read, or the cluster has no such kind.
    """
    try:
        found, _ = await cluster.list_all(account_secrets_path(account), AccountSecret, field_selector)
    except ClusterError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        raise ClusterError(
            "this cluster knows no AccountSecrets: devbox-secrets isn't installed there, or it's another one",
            error.status,
        ) from None
    return sorted(found, key=lambda each: (each.variable, each.name))


async def by_variable(cluster: "Cluster", account: str, variable: str) -> AccountSecret | None:
    """Find the one AccountSecret of a variable, None where there is none.

    Raises:
        NotFound: there are several.
        ClusterError: they can't be read.
    """
    found = await list_all(cluster, account, f"spec.name={variable}")
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise NotFound(
            f"{variable} has {len(found)} AccountSecrets in the account {account}: {names}; say which by that name"
        )
    return found[0] if found else None


async def find(cluster: "Cluster", account: str, name: str) -> AccountSecret:
    """Find an AccountSecret by its variable, or else by its object's name.

    Raises:
        NotFound: there is none, or several have the variable.
        ClusterError: they can't be read.
    """
    if re.fullmatch(VARIABLE_PATTERN, name, re.ASCII) and (found := await by_variable(cluster, account, name)):
        return found
    if re.fullmatch(OBJECT_NAME_PATTERN, name, re.ASCII):
        try:
            return AccountSecret(await cluster.request("GET", account_secrets_path(account, name)))
        except ClusterError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
    raise NotFound(
        f"the account {account} has no AccountSecret of that name; see those it has: devbox-secrets list -n {account}"
    )


async def apply(cluster: "Cluster", body: "Body", *, force: bool, dry_run: bool = False) -> AccountSecret:
    """Apply a manifest on the server's side, and give what is stored then, or would be.

    Raises:
        ClusterError: it's refused, or other managers own fields that would change.
    """
    metadata = body["metadata"]
    path = account_secrets_path(metadata["namespace"], metadata["name"])
    query = {
        "fieldManager": FIELD_MANAGER,
        "fieldValidation": "Strict",
        "force": "true" if force else "",
        "dryRun": "All" if dry_run else "",
    }
    try:
        # Nothing in it is a value: what the server says may be told.
        answer = await cluster.answer(
            "PATCH", path, query=query, body=body, media_type="application/apply-patch+yaml", quote=True
        )
    except ClusterError as error:
        if error.status != HTTPStatus.CONFLICT or _CONFLICT not in str(error):
            raise
        _, _, said = str(error).partition(_CONFLICT)[2].partition(": ")
        raise ClusterError(
            f"someone else manages {metadata['name']}: {' '.join(said.split())}; change it where they have it"
            " from, such as Git, or take it over with --force-conflicts",
            error.status,
        ) from None
    return AccountSecret(answer.body)


async def delete(cluster: "Cluster", found: AccountSecret) -> None:
    """Delete an AccountSecret; not another one that has its name by now.

    Raises:
        ClusterError: it can't be deleted, or is another one.
    """
    body = {"preconditions": {"uid": found.body["metadata"]["uid"]}}
    await cluster.answer("DELETE", account_secrets_path(found.account, found.name), body=body, quote=True)


def resealed(found: AccountSecret, sealed: str) -> "Body":
    """Give the manifest that changes an AccountSecret's sealed value, and keeps its other fields.

    It insists on the state that it was made from.
    """
    body = manifest(found.account, found.spec.model_copy(update={"sealed": sealed}), found.name)
    body["metadata"]["resourceVersion"] = found.body["metadata"]["resourceVersion"]
    return body


def changes(before: AccountSecret | None, after: AccountSecret) -> Iterator[str]:
    """Say what became of an AccountSecret, one line each."""
    what = "created" if before is None else "changed" if before.body["spec"] != after.body["spec"] else "unchanged"
    yield f"{after.full_name} {what} in {after.account}: {after.variable}"
    old, new = before.body["spec"] if before else {}, after.body["spec"]
    if before and old["sealed"] != new["sealed"]:
        yield f"  sealed: a new text, with the key {key_id_of(new['sealed'])} (before: {key_id_of(old['sealed'])})"
    for name in ("description", "rotateAfter"):
        if before and old.get(name) != new.get(name):
            yield f"  {name}: {_quoted(old.get(name))} → {_quoted(new.get(name))}"


def _quoted(value: Any) -> str:  # noqa: ANN401 - JSON
    return "none" if value is None else repr(value)
