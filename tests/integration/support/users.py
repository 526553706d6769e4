"""Users who can change namespaces, their roles, and all ways to write a namespace."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

from devbox_secrets.api.names import GROUP
from devbox_secrets.kube.client import APPLY
from harness.controlplane import ControlPlane
from integration.support.chart import ACCOUNT, Json, created, get, namespace, until

POLICY = "devbox-secrets-accounts"
SHARE = "devbox-secrets-share"
EVERYWHERE = ""
_NAMESPACES = "people-of-namespaces"
_RBAC = "rbac.authorization.k8s.io"

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Role:
    """A ClusterRole, its namespace if any, and a verb on accountsecrets that shows when it applies."""

    name: str
    where: str
    verb: str


@dataclass(frozen=True)
class Person:
    """A user who can change all namespaces, including subresources."""

    controlplane: ControlPlane
    user: str
    kubeconfig: Path

    @classmethod
    def new(cls, controlplane: ControlPlane, *roles: Role) -> Self:
        user = f"user-{uuid4().hex[:8]}"
        return cls(controlplane, user, controlplane.user_kubeconfig(user)).given(*roles)

    @classmethod
    def service_account(cls, controlplane: ControlPlane, where: str, *roles: Role) -> Self:
        name = f"sa-{uuid4().hex[:8]}"
        path = f"/api/v1/namespaces/{where}/serviceaccounts"
        controlplane.request("POST", path, {"metadata": {"name": name}})
        kubeconfig = controlplane.service_account_kubeconfig(where, name)
        return cls(controlplane, f"system:serviceaccount:{where}:{name}", kubeconfig).given(*roles)

    def given(self, *roles: Role) -> Self:
        """Bind roles to the user, and wait until they apply."""
        bind(self.controlplane, self.user, Role(_NAMESPACES, EVERYWHERE, ""))
        self.can("update", "namespaces")
        for role in roles:
            bind(self.controlplane, self.user, role)
            self.can(role.verb, "accountsecrets", role.where)
        return self

    def can(self, verb: str, resource: str, where: str = EVERYWHERE) -> None:
        """Wait until the user has the permission."""
        group = "" if resource == "namespaces" else GROUP
        asked = {"verb": verb, "group": group, "resource": resource, "namespace": where}
        wait_until_allowed(self.controlplane, self.user, **asked)

    def __call__(self, *arguments: str, body: Json | None = None) -> Done:
        """Run kubectl as the user."""
        text = None if body is None else json.dumps(body)
        return self.controlplane.kubectl(*arguments, input=text, check=False, kubeconfig=self.kubeconfig)

    def labels(self, name: str, account: str) -> Done:
        return self("label", "namespace", name, f"{ACCOUNT}={account}", "--overwrite")


def create_role(controlplane: ControlPlane) -> None:
    """Create the role that all users here have."""
    resources = ["namespaces", "namespaces/status", "namespaces/finalize"]
    rules = [{"apiGroups": [""], "resources": resources, "verbs": ["*"]}]
    path = f"/apis/{_RBAC}/v1/clusterroles/{_NAMESPACES}?fieldManager=tests"
    body = {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": _NAMESPACES}, "rules": rules}
    controlplane.request("PATCH", path, body, APPLY)


def bind(controlplane: ControlPlane, user: str, role: Role) -> None:
    body = {
        "metadata": {"name": f"{user}-{role.name}".replace(":", "-")},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role.name},
        "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": user}],
    }
    within = f"namespaces/{role.where}/rolebindings" if role.where else "clusterrolebindings"
    controlplane.request("POST", f"/apis/{_RBAC}/v1/{within}", body)


def wait_until_allowed(controlplane: ControlPlane, user: str, **attributes: str) -> None:
    """Wait until the API server allows it: new roles apply after a moment."""
    body = {"spec": {"user": user, "resourceAttributes": attributes}}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    until(f"{user} can {attributes}", lambda: controlplane.request("POST", path, body)["status"]["allowed"])


def denied(user: str, home: str) -> str:
    """Return the message for users who can't share an account."""
    return (
        f"joining the account {home} requires permission to share its secrets; ask an admin of the namespace {home}"
        f' to bind the ClusterRole {SHARE} to "{user}" there'
    )


def denial_message(done: Done) -> str:
    """Return kubectl's output after the names of the policy and of its binding."""
    assert done.returncode == 1, done.stdout
    start, _, message = done.stderr.rpartition(" denied request: ")
    assert start.endswith(f": ValidatingAdmissionPolicy '{POLICY}' with binding '{POLICY}'"), done.stderr
    return message.removesuffix("\n")


def labels_of(controlplane: ControlPlane, name: str) -> Json:
    """Return a namespace's labels, without the one that all namespaces have."""
    found = controlplane.request("GET", f"/api/v1/namespaces/{name}")["metadata"]["labels"]
    return {key: value for key, value in found.items() if key != "kubernetes.io/metadata.name"}


def create_namespace(controlplane: ControlPlane, labels: dict[str, str], name: str | None = None) -> str:
    """Create a namespace as the administrator, and return its name."""
    name = name or f"test-{uuid4().hex[:8]}"
    created(controlplane, namespace(name, labels))
    return name


# A way to set a namespace's labels, by changing or creating it.
Way = Callable[[Person, str, dict[str, str]], Done]


def _patch(kind: str, *options: str) -> Way:
    def way(person: Person, name: str, labels: dict[str, str]) -> Done:
        patch = json.dumps({"metadata": {"labels": labels}})
        return person("patch", "namespace", name, f"--type={kind}", f"--patch={patch}", *options)

    return way


def _json_patch(person: Person, name: str, labels: dict[str, str]) -> Done:
    patch = json.dumps([{"op": "add", "path": "/metadata/labels", "value": labels}])
    return person("patch", "namespace", name, "--type=json", f"--patch={patch}")


def _label(person: Person, name: str, labels: dict[str, str]) -> Done:
    return person("label", "namespace", name, *(f"{key}={value}" for key, value in labels.items()), "--overwrite")


def _sent(*command: str) -> Way:
    def way(person: Person, name: str, labels: dict[str, str]) -> Done:
        return person(*command, "--filename=-", body=namespace(name, labels))

    return way


def _replaced(*command: str) -> Way:
    """Send the whole object with other labels."""

    def way(person: Person, name: str, labels: dict[str, str]) -> Done:
        body = get(person.controlplane, "namespace", name)
        body["metadata"]["labels"] |= labels
        return person(*(part.format(name) for part in command), "--filename=-", body=body)

    return way


_APPLY = ("apply", "--server-side", "--force-conflicts")
CHANGES: dict[str, Way] = {
    "label": _label,
    "a merge patch": _patch("merge"),
    "a strategic patch": _patch("strategic"),
    "a JSON patch": _json_patch,
    "replace": _replaced("replace"),
    "a PUT of an old copy": _sent("replace"),
    "apply": _sent("apply"),
    "server-side apply": _sent(*_APPLY),
    "a patch of its status": _patch("merge", "--subresource=status"),
    "replace of its status": _replaced("replace", "--subresource=status"),
    "server-side apply of its status": _sent(*_APPLY, "--subresource=status"),
    "finalize": _replaced("replace", "--raw=/api/v1/namespaces/{}/finalize"),
}
CREATIONS: dict[str, Way] = {
    "create": _sent("create"),
    "apply that creates": _sent("apply"),
    "server-side apply that creates": _sent(*_APPLY),
}
