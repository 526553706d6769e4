"""How `check` looks: what it finds, and reading with the caller's own rights. Imports api, errors.

A right that is missing makes a warning that names it.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING

from devbox_secrets.errors import ClusterError

if TYPE_CHECKING:
    from devbox_secrets.connection import Body, Connection

NAME = "devbox-secrets"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_SOME = 5
_PAGE = 250


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of what `check` prints."""

    level: Level
    what: str
    text: str
    """What is so; where it isn't ok, also what to do."""


@dataclass(frozen=True)
class Look:
    """Reads with the caller's rights."""

    connection: "Connection"
    operator_namespace: str
    account: str | None
    """The one account to look at; None for all."""

    async def get(self, path: str) -> "Body | None":
        """Read an object, None where there is none."""
        try:
            return await self.connection.request("GET", path)
        except ClusterError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def each(self, path: str, **query: str) -> "AsyncIterator[Body]":
        """Read the objects of a list, page by page; none, where the cluster doesn't know the kind."""
        try:
            async for page in self.connection.pages(path, query, _PAGE):
                for item in page["items"]:
                    yield item
        except ClusterError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def own(self, group: str, plural: str, name: str = NAME) -> str:
        """Give the path of an object in the operator's namespace."""
        return f"{group}/namespaces/{self.operator_namespace}/{plural}/{name}"

    def within(self, group: str, plural: str) -> str:
        """Give the path of a list: of the one account's namespace, or of the cluster."""
        return f"{group}/namespaces/{self.account}/{plural}" if self.account else f"{group}/{plural}"


async def findings(look: Look, what: str, check: Callable[[Look], Awaitable[list[Finding]]]) -> list[Finding]:
    """Make one check; a right that is missing is a finding, too.

    Raises:
        ClusterError: the cluster can't be asked at all.
    """
    try:
        return await check(look)
    except ClusterError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        lacks = re.search(r"cannot .*", str(error))
        return [Finding(Level.WARNING, what, f"can't be told: you {lacks[0] if lacks else 'may not read it'}")]


async def selectors(look: Look) -> list[str]:
    """Give the label selectors that are bound to the injection, by policy or by webhook."""
    found = [
        selector_text(body["spec"].get("matchResources", {}).get("objectSelector", {}))
        async for body in look.each(f"{ADMISSION}/mutatingadmissionpolicybindings")
        if body["spec"]["policyName"] == NAME
    ]
    if found and await look.get(f"{ADMISSION}/mutatingadmissionpolicies/{NAME}"):
        return found
    ours = {"labelSelector": f"app.kubernetes.io/name={NAME}"}
    asked = [
        selector_text(webhook.get("objectSelector", {}))
        async for body in look.each(f"{ADMISSION}/mutatingwebhookconfigurations", **ours)
        for webhook in body.get("webhooks", ())
    ]
    return list(dict.fromkeys(asked))  # two webhooks have the same one


def selector_text(selector: "Body") -> str:
    """Write a label selector as a request's query has it."""
    operators = {
        "Exists": "{key}",
        "DoesNotExist": "!{key}",
        "In": "{key} in ({values})",
        "NotIn": "{key} notin ({values})",
    }
    labels = [f"{key}={value}" for key, value in selector.get("matchLabels", {}).items()]
    expressions = [
        operators[each["operator"]].format(key=each["key"], values=",".join(each.get("values", ())))
        for each in selector.get("matchExpressions", ())
    ]
    return ",".join(labels + expressions)


def some(names: list[str]) -> str:
    """Name the first few of many."""
    more = len(names) - _SOME
    return ", ".join(names[:_SOME]) + (f" and {more:,} more" if more > 0 else "")
