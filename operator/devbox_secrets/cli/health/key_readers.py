"""Checks which subjects RBAC allows to read the Secret with the sealing keys.

Cluster administrators and Kubernetes' own controllers aren't listed. Neither are subjects with indirect access, for
example those that can create pods in the operator's namespace.
"""

from collections.abc import Iterator

from devbox_secrets.api.names import KEYS_SECRET
from devbox_secrets.cli.health.probe import NAME, Finding, Level, Probe, first_few
from devbox_secrets.kube.client import Body

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_DEFAULTS = ("kubernetes.io/bootstrapping", "rbac-defaults")
_READ = {"get", "list", "watch", "*"}


async def key_readers(probe: Probe) -> list[Finding]:
    """Only the operator and cluster administrators can read the sealing keys."""
    here = f"{_RBAC}/namespaces/{probe.operator_namespace}"
    roles = {
        (kind, body["metadata"]["name"])
        for kind, path in (("ClusterRole", f"{_RBAC}/clusterroles"), ("Role", f"{here}/roles"))
        async for body in probe.each(path)
        if _reads_keys(body.get("rules") or [])
    }
    operator = ("ServiceAccount", await _operators_account(probe), probe.operator_namespace)
    readers: list[str] = []
    for kind, path in (("ClusterRoleBinding", f"{_RBAC}/clusterrolebindings"), ("RoleBinding", f"{here}/rolebindings")):
        async for body in probe.each(path):
            if (body["roleRef"]["kind"], body["roleRef"]["name"]) in roles:
                readers += (f"{who} ({kind} {body['metadata']['name']})" for who in _subjects(body, operator))
    if not readers:
        return [Finding(Level.OK, "key readers", "only the operator and cluster administrators")]
    text = f"can read {KEYS_SECRET} and decrypt all sealed values: {first_few(readers)}; revoke this permission"
    return [Finding(Level.WARNING, "key readers", text)]


def _reads_keys(rules: list[Body]) -> bool:
    return any(
        {"", "*"} & set(rule.get("apiGroups", ()))
        and {"secrets", "*"} & set(rule.get("resources", ()))
        and _READ & set(rule.get("verbs", ()))
        and (not rule.get("resourceNames") or KEYS_SECRET in rule["resourceNames"])
        for rule in rules
    )


async def _operators_account(probe: Probe) -> str:
    """Return the ServiceAccount of the operator's pods, which is a value of the chart."""
    deployment = await probe.get(probe.own("/apis/apps/v1", "deployments")) or {}
    name: str = deployment.get("spec", {}).get("template", {}).get("spec", {}).get("serviceAccountName", NAME)
    return name


def _subjects(binding: Body, operator: tuple[str, str, str]) -> Iterator[str]:
    labels = binding["metadata"].get("labels") or {}
    if labels.get(_DEFAULTS[0]) == _DEFAULTS[1] or binding["roleRef"]["name"] == "cluster-admin":
        return
    for subject in binding.get("subjects") or ():
        kind, name, namespace = subject["kind"], subject["name"], subject.get("namespace")
        if (kind, name, namespace) != operator:
            yield f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
