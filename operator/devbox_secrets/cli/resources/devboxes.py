"""The devboxes of an account, and which value of a secret each of them has.

A devbox is a pod whose spec refers to the account Secret, whoever put that there: what counts is which pods
have values, not which ones a selector would match today. Pods are read page by page; few fields of each are kept.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from devbox_secrets.api.models import AccountSecret, Reason
from devbox_secrets.api.names import ACCOUNT_LABEL, ACCOUNT_SECRET, NAMESPACES_PATH
from devbox_secrets.cli.resources.account_secrets import ready
from devbox_secrets.errors import Forbidden
from devbox_secrets.kube.client import Body, Client

#: Stands for every variable of the account.
ALL = "*"
#: Sorts behind every time: a container that hasn't started will have the current value.
NOT_STARTED = "later"
#: A page of pods is megabytes, and one is in memory at a time.
_PAGE = 250
_CONCURRENT_LISTS = 16
#: For these, devboxes don't get the value of this AccountSecret, whatever it was before.
_NOT_DELIVERED = {Reason.NAME_CONFLICT, Reason.RESERVED_NAME, Reason.WRONG_NAMESPACE}


class Has(StrEnum):
    """Which value of a secret a devbox has."""

    CURRENT = "current"
    OLDER = "older"
    NONE = "none"
    """It was started before there was one."""
    STARTING = "starting"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What devboxes get of an AccountSecret: the value of which variable, and since when."""

    variable: str
    created: str
    """When there was a first value."""
    changed: str
    """When the value last changed."""


def delivery_of(secret: AccountSecret) -> Delivery | None:
    """Tell what devboxes get of an AccountSecret, None where they get nothing."""
    condition, changed = ready(secret), secret.status.changed_at
    if not secret.spec.name or changed is None or (condition is not None and condition.reason in _NOT_DELIVERED):
        return None
    return Delivery(secret.spec.name, secret.created, changed)


@dataclass(frozen=True, slots=True)
class Devbox:
    """A pod that refers to the account Secret."""

    namespace: str
    name: str
    env: dict[str, str]
    """The variables in the environment of its containers: since when the oldest container has run."""
    names: dict[str, str]
    """Those that have another name there: that name, and the account's."""
    files: frozenset[str]
    """The variables that it has as files, which follow every change."""

    def since(self, variable: str) -> str:
        """Give when the oldest container with the variable started, empty where none has it."""
        whole, alone = self.env.get(ALL, ""), self.env.get(variable, "")
        return min(whole, alone) if whole and alone else whole or alone

    def has(self, delivery: Delivery | None) -> Has | None:
        """Tell which value it has, None where it doesn't ask for the variable, or doesn't get it."""
        if delivery is None:
            return None
        since = self.since(delivery.variable)
        if not since:
            return Has.CURRENT if self.files and self.files & {ALL, delivery.variable} else None
        if since == NOT_STARTED:
            return Has.STARTING
        # Times have no fractions: what started in the very second of the change may have been before it.
        if since > delivery.changed:
            return Has.CURRENT
        return Has.NONE if since <= delivery.created else Has.OLDER


async def members(client: Client, account: str, note: Callable[[str], None]) -> list[str]:
    """Give the account's namespaces, as far as the caller may see them; what isn't seen is noted."""
    try:
        query = {"labelSelector": f"{ACCOUNT_LABEL}={account}"}
        namespaces = (await client.request("GET", NAMESPACES_PATH, query=query))["items"]
    except Forbidden:
        note(f"devboxes in other namespaces than {account} aren't shown: you may not list namespaces")
        namespaces = []
    return sorted({account, *(each["metadata"]["name"] for each in namespaces)})


async def read(
    client: Client,
    namespaces: Iterable[str],
    take: Callable[[Devbox], None],
    note: Callable[[str], None],
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Read the devboxes of some namespaces; what isn't seen is noted.

    Raises:
        APIError: pods can't be read for another reason than the caller's rights.
    """
    limit = asyncio.Semaphore(_CONCURRENT_LISTS)

    async def one(namespace: str) -> None:
        query = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
        async with limit:
            async for page in client.pages(f"{NAMESPACES_PATH}/{namespace}/pods", query, _PAGE):
                for pod in page["items"]:
                    if devbox := devbox_of(pod):
                        take(devbox)
                progress(len(page["items"]))
                del page

    async def one_or_note(namespace: str) -> None:
        try:
            await one(namespace)
        except Forbidden:
            note(f"devboxes in the namespace {namespace} aren't shown: you may not list pods there")

    await asyncio.gather(*map(one_or_note, namespaces))


def devbox_of(pod: Body) -> Devbox | None:
    """Read what a pod has of the account Secret, None where it refers to nothing of it."""
    spec, status = pod["spec"], pod.get("status", {})
    states = {
        each["name"]: each.get("state", {})
        for kind in ("containerStatuses", "initContainerStatuses")
        for each in status.get(kind) or ()
    }
    env: dict[str, str] = {}
    names: dict[str, str] = {}
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        state = states.get(container["name"], {})
        if "terminated" in state:
            continue  # if it starts again, then with the current value
        since = state.get("running", {}).get("startedAt") or NOT_STARTED
        for variable, name in _variables(container):
            env[variable] = min(env.get(variable, since), since)
            if variable != name:
                names[name] = variable
    files = frozenset(file for volume in spec.get("volumes", ()) for file in _files(volume))
    if not env and not files:
        return None
    metadata = pod["metadata"]
    return Devbox(metadata["namespace"], metadata["name"], env, names, files)


def _variables(container: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the account's variables that a container refers to, each with its name there."""
    for source in container.get("envFrom", ()):
        if source.get("secretRef", {}).get("name") == ACCOUNT_SECRET:
            yield ALL, ALL
    for entry in container.get("env", ()):
        ref = entry.get("valueFrom", {}).get("secretKeyRef", {})
        if ref.get("name") == ACCOUNT_SECRET:
            yield ref["key"], entry["name"]


def _files(volume: dict[str, Any]) -> Iterator[str]:
    sources = [source.get("secret", {}) for source in volume.get("projected", {}).get("sources") or ()]
    for secret in (volume.get("secret", {}), *sources):
        if ACCOUNT_SECRET in (secret.get("secretName"), secret.get("name")):
            yield from (item["key"] for item in secret["items"]) if secret.get("items") else (ALL,)
