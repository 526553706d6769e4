"""Creates and deletes the ServiceAccounts and RoleBindings behind API keys, and issues their tokens."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from devbox_secrets.api.accounts import account_of
from devbox_secrets.api.names import CLI_FIELD_MANAGER, MANAGED_BY_LABEL, NAMESPACES_PATH
from devbox_secrets.api.validation import OBJECT_NAME_PATTERN
from devbox_secrets.cli.kit.options import no_namespace
from devbox_secrets.errors import APIError, Conflict, Forbidden, InvalidName, KeyTooWide, NotFound, NotOurs

if TYPE_CHECKING:  # the options of `apikey` import this module, and most uses need no client
    from devbox_secrets.kube.client import Body, Client

#: The label's value on ServiceAccounts and RoleBindings that `create` created and `delete` can delete.
_MANAGED_BY = CLI_FIELD_MANAGER
GATEWAY = "devbox-secrets-gateway"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_ROLE_PREFIX = "devbox-secrets-"
_PAGE = 250


class Role(StrEnum):
    """The permissions of a key on an account's secrets."""

    EDIT = "edit"
    VIEW = "view"

    @property
    def cluster_role(self) -> str:
        """The chart's ClusterRole."""
        return f"{_ROLE_PREFIX}{self}"


@dataclass(frozen=True)
class Key:
    """A token and its expiration time."""

    token: str = field(repr=False)
    expires: str
    seconds: int


@dataclass(frozen=True)
class ServiceAccount:
    """A ServiceAccount, which may not exist yet."""

    client: "Client" = field(repr=False)
    account: str
    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(OBJECT_NAME_PATTERN, self.name, re.ASCII):
            # The text may be a token that was passed by mistake, so the message doesn't repeat it.
            raise InvalidName("invalid ServiceAccount name; use lowercase letters, digits, - and ., such as ci")

    async def issue(self, seconds: int) -> Key:
        """Request a token from the API server.

        Raises:
            NotFound: the ServiceAccount doesn't exist.
            APIError: the request failed.
        """
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        async with _messages(
            {
                NotFound: NotFound(f"the account {self.account} has no ServiceAccount {self.name}"),
                Forbidden: Forbidden(
                    f"you don't have permission to create ServiceAccount tokens in {self.account}; ask someone with the"
                    " ClusterRole edit or admin there"
                ),
            }
        ):
            issued = await self.client.request("POST", f"{self._path}/token", body=body, quote=True)
        status = issued["status"]
        return Key(status["token"], status["expirationTimestamp"], issued["spec"]["expirationSeconds"])

    async def create(self, role: Role | None) -> list[str]:
        """Create the ServiceAccount and its RoleBinding unless they exist, and return a message for each.

        Without a role, it keeps its existing role, or gets `edit`.

        The binding is created first, so that a caller who can't bind the role leaves nothing behind.

        Raises:
            NotFound: the role or the namespace doesn't exist.
            NotOurs: the name of the RoleBinding is already in use.
            KeyTooWide: the ServiceAccount exists and has more permissions than the role.
            APIError: a request failed.
        """
        bound = {each["roleRef"]["name"]: each["metadata"]["name"] for each in await self._bindings()}
        if role is Role.VIEW and (binding := bound.get(Role.EDIT.cluster_role)):
            raise KeyTooWide(
                f"{self.name} in {self.account} can edit secrets because of the RoleBinding {binding}; use another"
                " name for a view-only key, or delete that RoleBinding"
            )
        done = []
        wanted = role or (None if bound else Role.EDIT)
        if wanted and wanted.cluster_role not in bound:
            await self._bind(wanted)
            done.append(f"bound {wanted.cluster_role} to serviceaccount/{self.name} in {self.account}")
        try:
            body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": self._metadata(self.name)}
            await self.client.request("POST", self._collection, body=body, quote=True)
            done.append(f"created serviceaccount/{self.name} in {self.account}")
        except Conflict:
            pass  # it already exists
        return done

    async def find(self) -> str:
        """Return the uid of the ServiceAccount, if `create` created it.

        Raises:
            NotFound: it doesn't exist.
            NotOurs: it wasn't created by `create`.
            APIError: the request failed.
        """
        gone = NotFound(f"the account {self.account} has no ServiceAccount {self.name}, so it has no valid keys")
        async with _messages({NotFound: gone}):
            metadata = (await self.client.request("GET", self._path))["metadata"]
        if (metadata.get("labels") or {}).get(MANAGED_BY_LABEL) != _MANAGED_BY:
            raise NotOurs(
                f"the ServiceAccount {self.name} in {self.account} wasn't created by apikey create and may have other"
                " uses; delete it or its RoleBinding with kubectl"
            )
        uid: str = metadata["uid"]
        return uid

    async def delete(self, uid: str) -> None:
        """Delete the ServiceAccount and the bindings that `create` created, which invalidates all its tokens.

        Raises:
            APIError: a request failed, or the ServiceAccount was replaced.
        """
        await self.client.request("DELETE", self._path, body={"preconditions": {"uid": uid}}, quote=True)
        for each in await self._bindings():
            if (each["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) == _MANAGED_BY:
                await self.client.request("DELETE", f"{self._rolebindings}/{each['metadata']['name']}", quote=True)

    async def other_home(self) -> str | None:
        """Return the account that the namespace's label names, if it is another one and can be read."""
        try:
            namespace = await self.client.request("GET", f"{NAMESPACES_PATH}/{self.account}")
        except APIError:
            return None
        account = account_of(self.account, namespace["metadata"].get("labels") or {})
        return account if account != self.account else None

    @property
    def _collection(self) -> str:
        return f"{NAMESPACES_PATH}/{self.account}/serviceaccounts"

    @property
    def _path(self) -> str:
        return f"{self._collection}/{self.name}"

    @property
    def _rolebindings(self) -> str:
        return _rolebindings_path(self.account)

    def _metadata(self, name: str) -> "Body":
        return {"name": name, "namespace": self.account, "labels": {MANAGED_BY_LABEL: _MANAGED_BY}}

    async def _bindings(self) -> "list[Body]":
        """Read the RoleBindings that bind one of the chart's roles to it."""
        subject = {"kind": "ServiceAccount", "name": self.name, "namespace": self.account}
        async with _messages({Forbidden: self._cannot_bind()}):
            bindings = await _role_bindings(self.client, self.account)
            return [each for each in bindings if subject in (each.get("subjects") or ())]

    async def _bind(self, role: Role) -> None:
        missing = NotFound(f"the ClusterRole {role.cluster_role} doesn't exist; install the chart, which creates it")
        try:
            # Check first, because a cluster administrator can bind a role that doesn't exist.
            await self.client.request("GET", f"{_RBAC}/clusterroles/{role.cluster_role}")
        except NotFound:
            raise missing from None
        except Forbidden:
            pass  # the API server checks the role when it is bound
        name = f"{self.name}-{role.cluster_role}"
        body = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": self._metadata(name),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role.cluster_role},
            "subjects": [{"kind": "ServiceAccount", "name": self.name, "namespace": self.account}],
        }
        taken = NotOurs(f"the RoleBinding {name} in {self.account} is already in use; choose another name for the key")
        try:
            async with _messages({Forbidden: self._cannot_bind(), Conflict: taken}):
                await self.client.request("POST", self._rolebindings, body=body, quote=True)
        except NotFound as error:
            if error.details.get("kind") == "namespaces":
                raise no_namespace(self.account) from None
            raise missing from None

    def _cannot_bind(self) -> Forbidden:
        return Forbidden(
            f"you don't have permission to read or create RoleBindings in {self.account}; ask an admin of the namespace"
            " to create the first key (a cluster administrator if the chart has rbac.aggregate=false)"
        )


@dataclass(frozen=True)
class Listed:
    """A ServiceAccount that `create` created."""

    name: str
    created: str
    role: str | None
    """Its roles, empty if it has none; None if the caller can't see them."""


async def list_ours(client: "Client", account: str) -> list[Listed]:
    """List the ServiceAccounts that `create` created, sorted by name.

    Raises:
        APIError: the request failed.
    """
    path = f"{NAMESPACES_PATH}/{account}/serviceaccounts"
    query = {"labelSelector": f"{MANAGED_BY_LABEL}={_MANAGED_BY}"}
    found = [each["metadata"] async for page in client.pages(path, query, _PAGE) for each in page["items"]]
    roles = await _roles(client, account)
    return [
        Listed(name, each["creationTimestamp"], None if roles is None else ", ".join(sorted(roles.get(name, ()))))
        for name, each in sorted({each["name"]: each for each in found}.items())
    ]


async def _roles(client: "Client", account: str) -> dict[str, set[str]] | None:
    """Read the chart's roles that a namespace's ServiceAccounts have; None if the caller can't read RoleBindings."""
    roles: dict[str, set[str]] = {}
    try:
        bindings = await _role_bindings(client, account)
    except Forbidden:
        return None
    for binding in bindings:
        for subject in binding.get("subjects") or ():
            if (subject["kind"], subject.get("namespace")) == ("ServiceAccount", account):
                roles.setdefault(subject["name"], set()).add(binding["roleRef"]["name"].removeprefix(_ROLE_PREFIX))
    return roles


def _rolebindings_path(account: str) -> str:
    return f"{_RBAC}/namespaces/{account}/rolebindings"


async def _role_bindings(client: "Client", account: str) -> "list[Body]":
    """Read a namespace's RoleBindings that bind one of the chart's roles."""
    ours = [("ClusterRole", role.cluster_role) for role in Role]
    return [
        each
        async for page in client.pages(_rolebindings_path(account), {}, _PAGE)
        for each in page["items"]
        if (each["roleRef"]["kind"], each["roleRef"]["name"]) in ours
    ]


async def base_url(client: "Client", namespace: str) -> str | None:
    """Return the gateway's address inside the cluster, or None if its Service can't be read."""
    try:
        service = await client.request("GET", f"{NAMESPACES_PATH}/{namespace}/services/{GATEWAY}")
    except APIError:
        return None
    for port in service["spec"].get("ports") or ():
        if usual := {"http": 80, "https": 443}.get(port.get("name")):
            address = f"{port['name']}://{GATEWAY}.{namespace}.svc"
            return address if port["port"] == usual else f"{address}:{port['port']}"
    return None


@asynccontextmanager
async def _messages(errors: Mapping[type[APIError], Exception]) -> AsyncIterator[None]:
    """Replace errors of these classes with errors that tell the user what to do.

    An error with causes has another reason than these, such as a namespace that is being deleted.
    """
    try:
        yield
    except APIError as error:
        if (replacement := errors.get(type(error))) and not error.details.get("causes"):
            raise replacement from None
        raise
