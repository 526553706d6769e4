"""How the checks read the cluster: with the caller's own rights; a missing right becomes a warning."""

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
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of what `check` prints."""

    level: Level
    check: str
    text: str
    """What was found; where it isn't ok, also what to do."""
    is_tenants: bool = False
    """Whether it's the mistake of an account's own team, which says nothing of the installation."""


@dataclass(frozen=True)
class Probe:
    """Reads with the caller's rights.

    Its methods raise Forbidden with a sentence that names the missing right.
    """

    client: Client
    operator_namespace: str
    account: str | None
    """The one account to check; None for all."""

    async def get(self, path: str) -> Body | None:
        """Read an object, None where there is none."""
        try:
            return await self.client.request("GET", path)
        except NotFound:
            return None
        except Forbidden as error:
            raise _missing_right("get", path, error) from None

    async def each(self, path: str, **query: str) -> AsyncIterator[Body]:
        """Read the objects of a list, page by page; none where the cluster doesn't know the kind."""
        async for item in self._each(path, query, metadata_only=False):
            yield item

    async def each_metadata(self, path: str, **query: str) -> AsyncIterator[Body]:
        """Read the metadata alone of the objects of a list."""
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
        """Give the path of an object in the operator's namespace."""
        return f"{group}/namespaces/{self.operator_namespace}/{plural}/{name}"

    def within(self, group: str, plural: str) -> str:
        """Give the path of a list: of the one account's namespace, or of the cluster."""
        return f"{group}/namespaces/{self.account}/{plural}" if self.account else f"{group}/{plural}"


async def findings(probe: Probe, name: str, check: Callable[[Probe], Awaitable[list[Finding]]]) -> list[Finding]:
    """Run one check; a missing right is a finding, too.

    Raises:
        APIError: the cluster can't be asked at all.
    """
    try:
        return await check(probe)
    except Forbidden as error:
        return [Finding(Level.WARNING, name, f"can't be told: {error}")]


def _missing_right(verb: str, path: str, error: Forbidden) -> Forbidden:
    """Name the right that a request needs: by its verb, its namespace and what the API server calls the resource."""
    if not (kind := error.details.get("kind")):
        return Forbidden(f"you may not {verb} {path}")
    resource = ".".join(filter(None, (kind, error.details.get("group"))))
    namespace = path.partition("/namespaces/")[2].partition("/")[0]
    scope = f"in the namespace {namespace}" if namespace else "at the cluster scope"
    return Forbidden(f"you may not {verb} {resource} {scope}")


async def selectors(probe: Probe) -> list[str]:
    """Give the label selectors of the pods that get secrets, by policy or by webhook."""
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
    """Write a label selector as the query of a request has it."""
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
    """Name the first few of many."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
