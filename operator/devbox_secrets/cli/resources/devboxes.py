"""The devboxes of an account, and which value of a secret each of them has.

Here, a devbox is any pod whose spec refers to the account Secret: what matters is which pods have the values, not which
pods the selectors match now. Pods are read in pages, and only a few fields of each are kept.
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

#: Stands for all variables of the account.
ALL = "*"
#: Sorts after every timestamp: a container that hasn't started will get the current value.
NOT_STARTED = "later"
#: A page of pods takes megabytes; one is in memory at a time.
_PAGE = 250
_CONCURRENT_LISTS = 16
#: With these reasons, devboxes never get the value of this AccountSecret, not even an earlier one.
_NOT_DELIVERED = {Reason.NAME_CONFLICT, Reason.RESERVED_NAME, Reason.WRONG_NAMESPACE}


class Has(StrEnum):
    """Which value of a secret a devbox has."""

    CURRENT = "current"
    OLDER = "older"
    NONE = "none"
    """The devbox started before the first value."""
    STARTING = "starting"


@dataclass(frozen=True, slots=True)
class Delivery:
    """The variable that devboxes get from an AccountSecret, and since when."""

    variable: str
    created: str
    """When the first value was set."""
    changed: str
    """When the value last changed."""


def delivery_of(secret: AccountSecret) -> Delivery | None:
    """Return what devboxes get from an AccountSecret, or None."""
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
    """The start time of the oldest running container by variable in its environment."""
    names: dict[str, str]
    """The account's variables by their name in the pod, for renamed variables."""
    files: frozenset[str]
    """The variables that the pod has as files, which are updated."""

    def since(self, variable: str) -> str:
        """Return when the oldest container with the variable started; empty if none has it."""
        with_all, with_one = self.env.get(ALL, ""), self.env.get(variable, "")
        return min(with_all, with_one) if with_all and with_one else with_all or with_one

    def has(self, delivery: Delivery | None) -> Has | None:
        """Return which value the devbox has, or None if it doesn't have the variable."""
        if delivery is None:
            return None
        since = self.since(delivery.variable)
        if not since:
            return Has.CURRENT if self.files and self.files & {ALL, delivery.variable} else None
        if since == NOT_STARTED:
            return Has.STARTING
        # Timestamps have whole seconds: a container that started in the same second may have started before the change.
        if since > delivery.changed:
            return Has.CURRENT
        return Has.NONE if since <= delivery.created else Has.OLDER


async def members(client: Client, account: str, note: Callable[[str], None]) -> list[str]:
    """Return the account's namespaces; if the caller can't list namespaces, print a message."""
    try:
        query = {"labelSelector": f"{ACCOUNT_LABEL}={account}"}
        namespaces = (await client.request("GET", NAMESPACES_PATH, query=query))["items"]
    except Forbidden:
        note(f"only devboxes in the namespace {account} are shown: you don't have permission to list namespaces")
        namespaces = []
    return sorted({account, *(each["metadata"]["name"] for each in namespaces)})


async def read(
    client: Client,
    namespaces: Iterable[str],
    take: Callable[[Devbox], None],
    note: Callable[[str], None],
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Read the devboxes in the namespaces; print a message for each where the caller can't list pods.

    Raises:
        APIError: a request failed for another reason.
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
            note(f"devboxes in the namespace {namespace} aren't shown: you don't have permission to list pods there")

    await asyncio.gather(*map(one_or_note, namespaces))


def devbox_of(pod: Body) -> Devbox | None:
    """Return what a pod uses from the account Secret, or None if it doesn't refer to it."""
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
            continue  # a restart gives it the current value
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
    """Yield the account's variables that a container refers to, each with its name in the container."""
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
