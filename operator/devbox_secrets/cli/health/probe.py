"""How the checks read the cluster: with the caller's own permissions; a missing permission becomes a warning."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from devbox_secrets.errors import Forbidden, NotFound
from devbox_secrets.kube.client import Body, Client

NAME = "devbox-secrets"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_NAMED = 5
_PAGE = 250


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line in the output of `check`."""

    level: Level
    check: str
    text: str
    """The result, and unless it's ok, what to do."""
    is_tenants: bool = False
    """Whether the account's team has to fix it, so that it says nothing about the installation."""


@dataclass(frozen=True)
class Probe:
    """Reads with the caller's permissions.

    Its methods raise Forbidden with a message that names the missing permission.
    """

    client: Client
    operator_namespace: str
    account: str | None
    """The account to check; None for all."""

    async def get(self, path: str) -> Body | None:
        """Read an object, or return None if it doesn't exist."""
        try:
            return await self.client.request("GET", path)
        except NotFound:
            return None
        except Forbidden as error:
            raise _missing_right("get", path, error) from None

    async def each(self, path: str, **query: str) -> AsyncIterator[Body]:
        """Read the objects of a list in pages; the list is empty if the kind doesn't exist."""
        async for item in self._each(path, query, metadata_only=False):
            yield item

    async def each_metadata(self, path: str, **query: str) -> AsyncIterator[Body]:
        """Read only the metadata of the objects in a list."""
        async for item in self._each(path, query, metadata_only=True):
            yield item["metadata"]

    async def _each(self, path: str, query: Mapping[str, str], *, metadata_only: bool) -> AsyncIterator[Body]:
        try:
            async for page in self.client.pages(path, query, _PAGE, metadata_only=metadata_only):
                for item in page["items"]:
                    yield item
        except NotFound:
            return
        except Forbidden as error:
            raise _missing_right("list", path, error) from None

    def own(self, group: str, plural: str, name: str = NAME) -> str:
        """Return the path of an object in the operator's namespace."""
        return f"{group}/namespaces/{self.operator_namespace}/{plural}/{name}"

    def within(self, group: str, plural: str) -> str:
        """Return the path of a list in the account's namespace, or in all namespaces."""
        return f"{group}/namespaces/{self.account}/{plural}" if self.account else f"{group}/{plural}"


async def findings(probe: Probe, name: str, check: Callable[[Probe], Awaitable[list[Finding]]]) -> list[Finding]:
    """Run one check; a missing permission is a finding, too.

    Raises:
        APIError: a request failed for another reason.
    """
    try:
        return await check(probe)
    except Forbidden as error:
        return [Finding(Level.WARNING, name, f"unknown: {error}")]


def _missing_right(verb: str, path: str, error: Forbidden) -> Forbidden:
    """Name the permission that a request needs: the verb, the resource and the scope."""
    if not (kind := error.details.get("kind")):
        return Forbidden(f"you don't have permission to {verb} {path}")
    resource = ".".join(filter(None, (kind, error.details.get("group"))))
    namespace = path.partition("/namespaces/")[2].partition("/")[0]
    scope = f"in the namespace {namespace}" if namespace else "at the cluster scope"
    return Forbidden(f"you don't have permission to {verb} {resource} {scope}")


async def selectors(probe: Probe) -> list[str]:
    """Return the label selectors of the pods that get secrets from the policy or the webhook."""
    bound = [
        selector_text(body["spec"].get("matchResources", {}).get("objectSelector", {}))
        async for body in probe.each(f"{ADMISSION}/mutatingadmissionpolicybindings")
        if body["spec"]["policyName"] == NAME
    ]
    if bound and await probe.get(f"{ADMISSION}/mutatingadmissionpolicies/{NAME}"):
        return bound
    ours = {"labelSelector": f"app.kubernetes.io/name={NAME}"}
    selected = [
        selector_text(webhook.get("objectSelector", {}))
        async for body in probe.each(f"{ADMISSION}/mutatingwebhookconfigurations", **ours)
        for webhook in body.get("webhooks", ())
    ]
    return list(dict.fromkeys(selected))  # two webhooks share one


def selector_text(selector: Body) -> str:
    """Format a label selector for the query of a request."""
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


def first_few(names: list[str]) -> str:
    """Return the first few names and the number of the others."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
