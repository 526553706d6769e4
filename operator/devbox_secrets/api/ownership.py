"""Ownership of variables, of `spec.sealed` and of account Secrets, based on field managers."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from devbox_secrets.api.names import CREATE_FIELD_MANAGER, FIELD_MANAGER, GATEWAY_FIELD_MANAGER

#: Maximum skew between the clocks of two API servers.
_CLOCK_SKEW = timedelta(minutes=1)


@dataclass(frozen=True)
class Tool:
    """A program that restores what it manages."""

    name: str
    source: str
    """Where users change what it manages."""
    field_managers: tuple[str, ...]
    """The prefixes of its field managers' names."""
    marks: tuple[str, ...] = ()
    """The labels and annotations on its objects, since some versions use kubectl's field managers."""


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
    """Return the sort key for the AccountSecrets of one variable: the first one, the oldest, owns the variable.

    `created` is RFC 3339, UTC, in seconds, as Kubernetes writes it. The uid decides between two of the same second.
    """
    return created, uid


def owners_of_sealed(metadata: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the entries of an AccountSecret's managedFields that own `spec.sealed`."""
    for entry in metadata.get("managedFields") or ():
        if "f:sealed" in ((entry.get("fieldsV1") or {}).get("f:spec") or {}):
            yield entry


def is_without_copy(owners: Collection[str | None]) -> bool:
    """Return whether nobody has a copy of a sealed value, judging by the field managers that own it.

    The gateway keeps no copy, and the operator owns only values that it has resealed. Others may have it in a file.
    """
    return bool(owners) and set(owners) <= {GATEWAY_FIELD_MANAGER, FIELD_MANAGER}


def managing_tool(metadata: Mapping[str, Any], managers: Collection[str]) -> Tool | None:
    """Return the tool that manages an object and would restore what these field managers own, or None."""
    marks = {*(metadata.get("labels") or {}), *(metadata.get("annotations") or {})}
    for tool in _TOOLS:
        if not marks.isdisjoint(tool.marks) or any(manager.startswith(tool.field_managers) for manager in managers):
            return tool
    return None


def is_given_up(manager: str) -> bool:
    """Return whether a field manager's fields may be taken over when someone changes the value at the command line.

    kubectl's fields were set by a person as well. The gateway, and the operator that resealed its values, restore
    nothing.
    """
    return manager in {GATEWAY_FIELD_MANAGER, FIELD_MANAGER, "kubectl"} or manager.startswith("kubectl-")


def owned_fields(metadata: Mapping[str, Any], fields: Collection[str]) -> dict[str, list[str]]:
    """Return the field managers that own any of these fields of the spec, each with the fields that it owns."""
    owned: dict[str, list[str]] = {}
    for entry in metadata.get("managedFields") or ():
        spec = (entry.get("fieldsV1") or {}).get("f:spec") or {}
        owned.setdefault(entry.get("manager") or "unknown", []).extend(
            f"spec.{name}" for name in sorted(fields) if f"f:{name}" in spec
        )
    return {manager: names for manager, names in owned.items() if names}


def is_ours(metadata: Mapping[str, Any]) -> bool:
    """Return whether the operator wrote this account Secret: it applied it, or created it and nobody else wrote.

    A copy isn't ours, whatever labels it has. Backup tools restore managedFields too, but then their times are before
    the Secret's creation.
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
    """Return the fields below a path, such as `data`, that the operator applied and nobody else has written since."""
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
    """Compare two times (RFC 3339, UTC, in seconds); an invalid one counts as before."""
    if time >= created:  # compared as text, which is nearly always enough
        return False
    try:
        return datetime.fromisoformat(time) < datetime.fromisoformat(created) - _CLOCK_SKEW
    except (ValueError, TypeError, OverflowError):
        return True
