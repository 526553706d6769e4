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
from devbox_secrets.errors import APIError, Conflict, Forbidden, InvalidName, KeyTooWide, NotFound, NotOurs

if TYPE_CHECKING:  # the options of `apikey` are read from here, before anything is connected
    from devbox_secrets.kube.client import Body, Client

#: The label's value on a ServiceAccount or RoleBinding that we created, and may delete with the key.
_MANAGED_BY = CLI_FIELD_MANAGER
GATEWAY = "devbox-secrets-gateway"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_ROLE_PREFIX = "devbox-secrets-"
_PAGE = 250


class Role(StrEnum):
    """What a key may do with an account's secrets."""

    EDIT = "edit"
    VIEW = "view"

    @property
    def cluster_role(self) -> str:
        """The chart's ClusterRole."""
        return f"{_ROLE_PREFIX}{self}"


@dataclass(frozen=True)
class Key:
    """A token, and until when it lasts."""

    token: str = field(repr=False)
    expires: str
    seconds: int


@dataclass(frozen=True)
class ServiceAccount:
    """A ServiceAccount, by its names; it may not exist yet."""

    client: "Client" = field(repr=False)
    account: str
    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(OBJECT_NAME_PATTERN, self.name, re.ASCII):
            # What was given in the name's place may be a token: it isn't repeated.
            raise InvalidName("that can't be a ServiceAccount's name: use small letters, digits, - and ., such as ci")

    async def issue(self, seconds: int) -> Key:
        """Have the API server make a token.

        Raises:
            NotFound: there is no such ServiceAccount.
            APIError: the caller may not, or the API server refuses.
        """
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        async with _sentences(
            {
                NotFound: NotFound(f"the account {self.account} has no ServiceAccount {self.name}"),
                Forbidden: Forbidden(
                    f"you may not make tokens of ServiceAccounts in {self.account}: have someone do it who has"
                    " Kubernetes' role edit or admin there"
                ),
            }
        ):
            issued = await self.client.request("POST", f"{self._path}/token", body=body, quote=True)
        status = issued["status"]
        return Key(status["token"], status["expirationTimestamp"], issued["spec"]["expirationSeconds"])

    async def create(self, role: Role | None) -> list[str]:
        """Create it and bind its role, unless they exist; give a sentence for each thing that was done.

        Without a role, it keeps the one that it has, or gets `edit`.

        The binding comes first: someone who may not give the role leaves nothing behind.

        Raises:
            NotFound: the cluster has no such role, or no such namespace.
            NotOurs: someone else has a RoleBinding of the name that it would have.
            KeyTooWide: it exists, and may do more than the role.
            APIError: the caller may not, or the API server refuses.
        """
        bound = {each["roleRef"]["name"]: each["metadata"]["name"] for each in await self._bindings()}
        if role is Role.VIEW and (binding := bound.get(Role.EDIT.cluster_role)):
            raise KeyTooWide(
                f"{self.name} in {self.account} may write secrets, by the RoleBinding {binding}: give a key that may"
                " only read another name, or delete that RoleBinding"
            )
        done = []
        wanted = role or (None if bound else Role.EDIT)
        if wanted and wanted.cluster_role not in bound:
            await self._bind(wanted)
            done.append(f"{self.name} has the role {wanted.cluster_role} in {self.account} now")
        try:
            body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": self._metadata(self.name)}
            await self.client.request("POST", self._collection, body=body, quote=True)
            done.append(f"serviceaccount/{self.name} created in {self.account}")
        except Conflict:
            pass  # it already exists
        return done

    async def find(self) -> str:
        """Give its uid, where `create` created it.

        Raises:
            NotFound: it doesn't exist.
            NotOurs: someone else created it.
            APIError: it can't be read.
        """
        gone = NotFound(f"the account {self.account} has no ServiceAccount {self.name}, and so no valid keys of it")
        async with _sentences({NotFound: gone}):
            metadata = (await self.client.request("GET", self._path))["metadata"]
        if (metadata.get("labels") or {}).get(MANAGED_BY_LABEL) != _MANAGED_BY:
            raise NotOurs(
                f"the ServiceAccount {self.name} in {self.account} wasn't created by apikey create, and may have"
                " other uses: delete it yourself, or remove its RoleBinding"
            )
        uid: str = metadata["uid"]
        return uid

    async def delete(self, uid: str) -> None:
        """Delete it, and the bindings that `create` created: all of its tokens end.

        Raises:
            APIError: the caller may not, or it is another one by now.
        """
        await self.client.request("DELETE", self._path, body={"preconditions": {"uid": uid}}, quote=True)
        for each in await self._bindings():
            if (each["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) == _MANAGED_BY:
                await self.client.request("DELETE", f"{self._rolebindings}/{each['metadata']['name']}", quote=True)

    async def other_home(self) -> str | None:
        """Name the account that a label gives its namespace to; None where there is none, or it can't be read."""
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
        """Read the RoleBindings by which it has one of the chart's roles."""
        subject = {"kind": "ServiceAccount", "name": self.name, "namespace": self.account}
        async with _sentences({Forbidden: self._may_not_bind()}):
            bindings = await _role_bindings(self.client, self.account)
            return [each for each in bindings if subject in (each.get("subjects") or ())]

    async def _bind(self, role: Role) -> None:
        missing = NotFound(f"this cluster has no ClusterRole {role.cluster_role}: install the chart, which makes it")
        try:
            # Checked first, since a cluster administrator can bind a role that doesn't exist.
            await self.client.request("GET", f"{_RBAC}/clusterroles/{role.cluster_role}")
        except NotFound:
            raise missing from None
        except Forbidden:
            pass  # the API server looks for the role when it's bound
        name = f"{self.name}-{role.cluster_role}"
        body = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": self._metadata(name),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role.cluster_role},
            "subjects": [{"kind": "ServiceAccount", "name": self.name, "namespace": self.account}],
        }
        taken = NotOurs(f"the RoleBinding {name} in {self.account} is for something else: give the key another name")
        try:
            async with _sentences({Forbidden: self._may_not_bind(), Conflict: taken}):
                await self.client.request("POST", self._rolebindings, body=body, quote=True)
        except NotFound as error:
            if error.details.get("kind") == "namespaces":
                raise NotFound(f"there is no namespace {self.account}") from None
            raise missing from None

    def _may_not_bind(self) -> Forbidden:
        return Forbidden(
            f"you may not see or give roles in {self.account}: have an admin of that namespace do this once, or a"
            " cluster administrator where the chart has rbac.aggregate=false; later keys don't need that"
        )


@dataclass(frozen=True)
class Listed:
    """A ServiceAccount that `create` created."""

    name: str
    created: str
    role: str | None
    """The roles that it has, empty for none; None where they can't be seen."""


async def list_ours(client: "Client", account: str) -> list[Listed]:
    """List the ServiceAccounts that `create` created, by name.

    Raises:
        APIError: they can't be read.
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
    """Read which of the chart's roles a namespace's ServiceAccounts have there; None where the caller may not."""
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
    """Read a namespace's RoleBindings that give one of the chart's roles."""
    ours = [("ClusterRole", role.cluster_role) for role in Role]
    return [
        each
        async for page in client.pages(_rolebindings_path(account), {}, _PAGE)
        for each in page["items"]
        if (each["roleRef"]["kind"], each["roleRef"]["name"]) in ours
    ]


async def base_url(client: "Client", namespace: str) -> str | None:
    """Give the gateway's address inside the cluster; None where it has no Service, or that can't be read."""
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
async def _sentences(errors: Mapping[type[APIError], Exception]) -> AsyncIterator[None]:
    """Raise, in the place of an error of one of these classes, what a person can act on."""
    try:
        yield
    except APIError as error:
        if sentence := errors.get(type(error)):
            raise sentence from None
        raise
