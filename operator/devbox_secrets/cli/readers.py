"""Who may read the Secret of the sealing keys, by RBAC. Imports look.

Cluster administrators may, and Kubernetes' own controllers: they are not told. Nor is who could make
themselves a reader, by a pod in the operator's namespace for instance.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from devbox_secrets.api import KEYS_SECRET
from devbox_secrets.cli.look import Finding, Level, Look, some

if TYPE_CHECKING:
    from devbox_secrets.connection import Body

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_DEFAULTS = ("kubernetes.io/bootstrapping", "rbac-defaults")
_READ = {"get", "list", "watch", "*"}


async def readers(look: Look) -> list[Finding]:
    """Find who may read the sealing keys besides the operator and the cluster's administrators."""
    here = f"{_RBAC}/namespaces/{look.operator_namespace}"
    opens = {
        (kind, body["metadata"]["name"])
        for kind, path in (("ClusterRole", f"{_RBAC}/clusterroles"), ("Role", f"{here}/roles"))
        async for body in look.each(path)
        if _opens(body.get("rules") or [])
    }
    found: list[str] = []
    for kind, path in (("ClusterRoleBinding", f"{_RBAC}/clusterrolebindings"), ("RoleBinding", f"{here}/rolebindings")):
        async for body in look.each(path):
            if (body["roleRef"]["kind"], body["roleRef"]["name"]) in opens:
                found += (f"{who} by the {kind} {body['metadata']['name']}" for who in _subjects(body, look))
    if not found:
        return [Finding(Level.OK, "key readers", "the operator and the cluster's administrators alone")]
    text = f"may read {KEYS_SECRET} and so open everything: {some(found)}; take that right away"
    return [Finding(Level.WARNING, "key readers", text)]


def _opens(rules: "list[Body]") -> bool:
    return any(
        {"", "*"} & set(rule.get("apiGroups", ()))
        and {"secrets", "*"} & set(rule.get("resources", ()))
        and _READ & set(rule.get("verbs", ()))
        and (not rule.get("resourceNames") or KEYS_SECRET in rule["resourceNames"])
        for rule in rules
    )


def _subjects(binding: "Body", look: Look) -> Iterator[str]:
    labels = binding["metadata"].get("labels") or {}
    if labels.get(_DEFAULTS[0]) == _DEFAULTS[1] or binding["roleRef"]["name"] == "cluster-admin":
        return
    for subject in binding.get("subjects") or ():
        kind, name, namespace = subject["kind"], subject["name"], subject.get("namespace")
        if (kind, name, namespace) != ("ServiceAccount", "devbox-secrets", look.operator_namespace):
            yield f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
