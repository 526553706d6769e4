"""All permissions of each subject, as `kubectl auth can-i --list` prints them."""

import re
from pathlib import Path

from harness.controlplane import ControlPlane

ACCOUNTSECRETS = "accountsecrets.devbox-secrets.dev"
ACCOUNT_SECRET = "devbox-account-secrets"  # noqa: S105 - a Secret's name

# resource, the names it is limited to, verbs
EVERYWHERE = {
    (ACCOUNTSECRETS, "", "list watch"),
    (f"{ACCOUNTSECRETS}/status", "", "patch"),
    ("namespaces", "", "list watch"),
    ("events.events.k8s.io", "", "create"),
    ("secrets", ACCOUNT_SECRET, "create delete get list patch watch"),
}
OWN = {
    ("secrets", "devbox-secrets-keys", "create get patch"),
    ("configmaps", "devbox-secrets-public-keys", "get patch"),
    ("leases.coordination.k8s.io", "devbox-secrets", "get patch"),
}
IN_OPERATOR_NAMESPACE = EVERYWHERE | OWN
# For the gateway, whose values the operator reseals.
EVERYWHERE_WITH_GATEWAY = EVERYWHERE - {(ACCOUNTSECRETS, "", "list watch")} | {(ACCOUNTSECRETS, "", "list patch watch")}
IN_OPERATOR_NAMESPACE_WITH_GATEWAY = EVERYWHERE_WITH_GATEWAY | OWN

# Kubernetes' default permissions of authenticated users: system:basic-user, system:discovery,
# system:public-info-viewer, system:cluster-trust-bundle-discovery, and for service accounts
# system:service-account-issuer-discovery.
EVERYONES_RESOURCES = {
    "clustertrustbundles.certificates.k8s.io",
    "selfsubjectaccessreviews.authorization.k8s.io",
    "selfsubjectreviews.authentication.k8s.io",
    "selfsubjectrulesreviews.authorization.k8s.io",
}
EVERYONES_PATHS = {
    *("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", "/version", "/version/"),
    *("/healthz", "/livez", "/readyz"),
    *("/.well-known/openid-configuration", "/.well-known/openid-configuration/"),
    *("/openid/v1/jwks", "/openid/v1/jwks/"),
}

READ = "get list watch"
WRITE = "create delete get list patch update watch"
#: Verbs on AccountSecrets.
ROLES = {
    "view": READ,
    "edit": WRITE,
    "admin": "create delete get list patch share update watch",
    "devbox-secrets-view": READ,
    "devbox-secrets-edit": WRITE,
    "devbox-secrets-share": "share",
}
#: All permissions that the chart's roles grant in a namespace.
READ_NAMESPACE = ("namespaces", "", "get")
CHART_ROLES = {
    "devbox-secrets-view": {(ACCOUNTSECRETS, "", READ)},
    "devbox-secrets-edit": {(ACCOUNTSECRETS, "", WRITE), READ_NAMESPACE},
    "devbox-secrets-share": {(ACCOUNTSECRETS, "", "share")},
}


def rights(listing: str) -> set[tuple[str, str, str]]:
    """Parse the output of `kubectl auth can-i --list`, without the permissions of all authenticated users."""
    rows = re.findall(r"^(\S*) +\[(.*?)\] +\[(.*?)\] +\[(.*?)\]$", listing, re.MULTILINE)
    assert len(rows) == len(listing.splitlines()), f"not a table of permissions:\n{listing}"
    return {
        (resource or path, names, " ".join(sorted(verbs.split())))
        for resource, path, names, verbs in rows
        if resource not in EVERYONES_RESOURCES and path not in EVERYONES_PATHS
    }


def can_i(controlplane: ControlPlane, namespace: str, *who: str, kubeconfig: Path | None = None) -> str:
    """List a subject's permissions in a namespace."""
    return controlplane.kubectl(
        *("auth", "can-i", "--list", "--no-headers", f"--namespace={namespace}", *who),
        kubeconfig=kubeconfig,
    ).stdout
