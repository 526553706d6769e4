"""Who owns what: a variable, `spec.sealed`, and an account Secret. Field managers tell who wrote something."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from devbox_secrets.api.names import CREATE_FIELD_MANAGER, FIELD_MANAGER, GATEWAY_FIELD_MANAGER

#: How far the clocks of two API servers may be apart.
_CLOCK_SKEW = timedelta(minutes=1)


@dataclass(frozen=True)
class Tool:
    """A program that puts back what it manages."""

    name: str
    source: str
    """Where a person changes what it manages."""
    field_managers: tuple[str, ...]
    """What its field managers' names begin with."""
    marks: tuple[str, ...] = ()
    """The labels and annotations that it puts on its objects: some versions write under kubectl's names."""


_TOOLS = (
    Tool("Argo CD", "in Git", ("argocd-",), ("argocd.argoproj.io/tracking-id",)),
    Tool(
        "Flux", "in Git", ("kustomize-controller", "helm-controller"),
        ("kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name"),
    ),
    Tool("Helm", "in the release's chart or values", ("helm", "Helm"), ("meta.helm.sh/release-name",)),
    Tool("Fleet", "in Git", ("fleet",)),
    Tool("Terraform", "in its configuration", ("Terraform", "HashiCorp")),
    Tool("Pulumi", "in its program", ("pulumi-",)),
)  # fmt: skip


def precedence(created: str, uid: str) -> tuple[str, str]:
    """Give what sorts AccountSecrets of one variable: the first owns it, which is the oldest.

    `created` is RFC 3339, UTC, to the second, as Kubernetes writes it. Of two of the same second it's always the
    same one.
    """
    return created, uid


def owners_of_sealed(metadata: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give those entries of an AccountSecret's managedFields that hold `spec.sealed`."""
    for entry in metadata.get("managedFields") or ():
        if "f:sealed" in ((entry.get("fieldsV1") or {}).get("f:spec") or {}):
            yield entry


def is_without_copy(owners: Collection[str | None]) -> bool:
    """Tell by the field managers that own a sealed value whether nobody else has it and would put it back.

    The gateway keeps none; what the operator owns it has resealed. Anyone else may have it in a file.
    """
    return bool(owners) and set(owners) <= {GATEWAY_FIELD_MANAGER, FIELD_MANAGER}


def managing_tool(metadata: Mapping[str, Any], managers: Collection[str]) -> Tool | None:
    """Give the tool that manages an object and would put back what these field managers own."""
    marks = {*(metadata.get("labels") or {}), *(metadata.get("annotations") or {})}
    for tool in _TOOLS:
        if not marks.isdisjoint(tool.marks) or any(manager.startswith(tool.field_managers) for manager in managers):
            return tool
    return None


def is_given_up(manager: str) -> bool:
    """Tell whether a field manager gives up its fields to whoever changes the value at the command line.

    kubectl's own are a person's as well. The gateway, and the operator that sealed its values again, put nothing back.
    """
    return manager in {GATEWAY_FIELD_MANAGER, FIELD_MANAGER, "kubectl"} or manager.startswith("kubectl-")


def owned_fields(metadata: Mapping[str, Any], fields: Collection[str]) -> dict[str, list[str]]:
    """Name the field managers that own any of these fields of the spec, each with those that it owns."""
    owned: dict[str, list[str]] = {}
    for entry in metadata.get("managedFields") or ():
        spec = (entry.get("fieldsV1") or {}).get("f:spec") or {}
        owned.setdefault(entry.get("manager") or "unknown", []).extend(
            f"spec.{name}" for name in sorted(fields) if f"f:{name}" in spec
        )
    return {manager: names for manager, names in owned.items() if names}


def is_ours(metadata: Mapping[str, Any]) -> bool:
    """Tell whether the operator wrote this account Secret: it applied it, or created it and nobody else wrote.

    A copy isn't ours, whatever labels it carries. Backup tools restore managedFields, too; what these tell of then
    was written before the Secret was created.
    """
    entries = metadata.get("managedFields") or []
    writers = {(entry.get("manager"), entry.get("operation")) for entry in entries}
    wanted = (FIELD_MANAGER, "Apply")
    if writers == {(CREATE_FIELD_MANAGER, "Apply")}:
        wanted = (CREATE_FIELD_MANAGER, "Apply")
    created = metadata["creationTimestamp"]
    return any(
        (entry.get("manager"), entry.get("operation")) == wanted and not _is_before(entry.get("time") or "", created)
        for entry in entries
    )


def unchanged_fields(metadata: Mapping[str, Any], *path: str) -> frozenset[str]:
    """Name the fields below a path, such as `data`, that the operator applied and nobody else wrote since."""
    ours: set[str] = set()
    others: set[str] = set()
    for entry in metadata.get("managedFields") or ():
        fields = entry.get("fieldsV1") or {}
        for name in path:
            fields = fields.get(f"f:{name}") or {}
        is_applied = (entry.get("manager"), entry.get("operation")) == (FIELD_MANAGER, "Apply")
        (ours if is_applied else others).update(fields)
    return frozenset(name.removeprefix("f:") for name in ours - others)


def _is_before(time: str, created: str) -> bool:
    """Compare times in RFC 3339, UTC, to the second; one that can't be read is before."""
    if time >= created:  # as text: so it nearly always is
        return False
    try:
        return datetime.fromisoformat(time) < datetime.fromisoformat(created) - _CLOCK_SKEW
    except (ValueError, TypeError, OverflowError):
        return True
