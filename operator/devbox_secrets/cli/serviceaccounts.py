"""ServiceAccounts whose tokens are API keys, through the API server, with the caller's rights. Imports api, errors."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from devbox_secrets.api import ACCOUNT_LABEL, MANAGED_BY_LABEL, OBJECT_NAME_PATTERN
from devbox_secrets.errors import ClusterError, InvalidName, KeyTooWide, NotFound, NotOurs

if TYPE_CHECKING:
    from devbox_secrets.cluster import Cluster
    from devbox_secrets.connection import Body

#: Who made a ServiceAccount or a RoleBinding: what bears it may be deleted with the key.
MADE_BY = "devbox-secrets-cli"
GATEWAY = "devbox-secrets-gateway"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_PAGE = 250


class Role(StrEnum):
    """What a key may do with an account's secrets."""

    EDIT = "edit"
    VIEW = "view"

    @property
    def cluster_role(self) -> str:
        """The chart's ClusterRole."""
        return f"devbox-secrets-{self}"


@dataclass(frozen=True)
class Key:
    """A token, and until when it lasts."""

    token: str = field(repr=False)
    expires: str
    seconds: int


@dataclass(frozen=True)
class ServiceAccount:
    """A ServiceAccount, by its names: whether it's there is another matter."""

    cluster: "Cluster" = field(repr=False)
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
            ClusterError: the caller may not, or the API server refuses.
        """
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        async with _sentences(
            {
                HTTPStatus.NOT_FOUND: NotFound(
                    f"the account {self.account} has no ServiceAccount {self.name}; --create makes it, and binds its"
                    " role"
                ),
                HTTPStatus.FORBIDDEN: ClusterError(
                    f"you may not make tokens of ServiceAccounts in {self.account}: have someone do it who has"
                    " Kubernetes' role edit or admin there",
                    HTTPStatus.FORBIDDEN,
                ),
            }
        ):
            made = await self.cluster.request("POST", f"{self._path}/token", body=body, quote=True)
        return Key(made["status"]["token"], made["status"]["expirationTimestamp"], made["spec"]["expirationSeconds"])

    async def make(self, role: Role) -> list[str]:
        """Make it and bind its role, as far as they aren't there yet; give a sentence for each thing that was done.

        The binding comes first: who may not give the role leaves nothing behind.

        Raises:
            NotFound: the cluster has no such role, or no such namespace.
            NotOurs: someone else has a RoleBinding of the name that it would have.
            KeyTooWide: it's there, and may do more than the role.
            ClusterError: the caller may not, or the API server refuses.
        """
        bound = {each["roleRef"]["name"]: each["metadata"]["name"] for each in await self._bindings()}
        if role is Role.VIEW and (binding := bound.get(Role.EDIT.cluster_role)):
            raise KeyTooWide(
                f"{self.name} in {self.account} may write secrets, by the RoleBinding {binding}: give a key that may"
                " only read another name, or delete that RoleBinding"
            )
        done = []
        if role.cluster_role not in bound:
            await self._bind(role)
            done.append(f"{self.name} has the role {role.cluster_role} in {self.account} now")
        try:
            body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": self._metadata(self.name)}
            await self.cluster.request("POST", self._all, body=body, quote=True)
            done.append(f"serviceaccount/{self.name} created in {self.account}")
        except ClusterError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
        return done

    async def find(self) -> str:
        """Give its uid, where it was made by `make`.

        Raises:
            NotFound: it isn't there.
            NotOurs: someone else made it.
            ClusterError: it can't be read.
        """
        gone = NotFound(f"the account {self.account} has no ServiceAccount {self.name}: its keys have ended")
        async with _sentences({HTTPStatus.NOT_FOUND: gone}):
            metadata = (await self.cluster.request("GET", self._path))["metadata"]
        if (metadata.get("labels") or {}).get(MANAGED_BY_LABEL) != MADE_BY:
            raise NotOurs(
                f"the ServiceAccount {self.name} in {self.account} wasn't made by token --create, and may have other"
                " uses: delete it by yourself, or take away its RoleBinding"
            )
        uid: str = metadata["uid"]
        return uid

    async def delete(self, uid: str) -> None:
        """Delete it, and the bindings that `make` made: all of its tokens end.

        Raises:
            ClusterError: the caller may not, or it is another one by now.
        """
        await self.cluster.request("DELETE", self._path, body={"preconditions": {"uid": uid}}, quote=True)
        for each in await self._bindings():
            if (each["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) == MADE_BY:
                await self.cluster.request("DELETE", f"{self._rolebindings}/{each['metadata']['name']}", quote=True)

    async def other_home(self) -> str | None:
        """Name the account that a label gives its namespace to; None where there is none, or none to be seen."""
        try:
            found = await self.cluster.request("GET", f"/api/v1/namespaces/{self.account}")
        except ClusterError:
            return None
        home: str | None = (found["metadata"].get("labels") or {}).get(ACCOUNT_LABEL)
        return home if home != self.account else None

    @property
    def _all(self) -> str:
        return f"/api/v1/namespaces/{self.account}/serviceaccounts"

    @property
    def _path(self) -> str:
        return f"{self._all}/{self.name}"

    @property
    def _rolebindings(self) -> str:
        return f"{_RBAC}/namespaces/{self.account}/rolebindings"

    def _metadata(self, name: str) -> "Body":
        return {"name": name, "namespace": self.account, "labels": {MANAGED_BY_LABEL: MADE_BY}}

    async def _bindings(self) -> "list[Body]":
        """Read the RoleBindings by which it has one of the chart's roles."""
        ours = [("ClusterRole", role.cluster_role) for role in Role]
        subject = {"kind": "ServiceAccount", "name": self.name, "namespace": self.account}
        async with _sentences({HTTPStatus.FORBIDDEN: self._may_not_bind()}):
            return [
                each
                async for page in self.cluster.pages(self._rolebindings, {}, _PAGE)
                for each in page["items"]
                if (each["roleRef"]["kind"], each["roleRef"]["name"]) in ours
                and subject in (each.get("subjects") or ())
            ]

    async def _bind(self, role: Role) -> None:
        missing = NotFound(f"this cluster has no ClusterRole {role.cluster_role}: install the chart, which makes it")
        try:
            async with _sentences({HTTPStatus.NOT_FOUND: missing}):
                # A cluster's administrator could bind what isn't there.
                await self.cluster.request("GET", f"{_RBAC}/clusterroles/{role.cluster_role}")
        except ClusterError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
        name = f"{self.name}-{role.cluster_role}"
        body = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": self._metadata(name),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role.cluster_role},
            "subjects": [{"kind": "ServiceAccount", "name": self.name, "namespace": self.account}],
        }
        taken = NotOurs(f"the RoleBinding {name} in {self.account} is for something else: give the key another name")
        refusals = {HTTPStatus.FORBIDDEN: self._may_not_bind(), HTTPStatus.CONFLICT: taken}
        try:
            async with _sentences(refusals):
                await self.cluster.request("POST", self._rolebindings, body=body, quote=True)
        except ClusterError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            if role.cluster_role in str(error):  # who may not read it learns only here that it isn't there
                raise missing from None
            raise NotFound(f"there is no namespace {self.account}") from None

    def _may_not_bind(self) -> ClusterError:
        return ClusterError(
            f"you may not see or give roles in {self.account}: have an admin of that namespace do this once, or a"
            " cluster administrator where the chart has rbac.aggregate=false; later keys need no --create",
            HTTPStatus.FORBIDDEN,
        )


async def base_url(cluster: "Cluster", namespace: str) -> str | None:
    """Give the gateway's address inside the cluster; None where its Service isn't there, or not to be seen."""
    try:
        service = await cluster.request("GET", f"/api/v1/namespaces/{namespace}/services/{GATEWAY}")
    except ClusterError:
        return None
    port: dict[str, Any] = service["spec"]["ports"][0]
    usual = {"http": 80, "https": 443}.get(port["name"]) == port["port"]
    return f"{port['name']}://{GATEWAY}.{namespace}.svc" + ("" if usual else f":{port['port']}")


@asynccontextmanager
async def _sentences(refusals: Mapping[HTTPStatus, Exception]) -> AsyncIterator[None]:
    """Raise, for what the API server refuses with one of these statuses, what a person can act on."""
    try:
        yield
    except ClusterError as error:
        for status, sentence in refusals.items():
            if status == error.status:
                raise sentence from None
        raise
