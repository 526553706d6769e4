"""An account as its owner uses it: applies AccountSecrets, and reads Ready conditions and the account Secret."""

import base64
from dataclasses import dataclass, replace
from uuid import uuid4

from pydantic import SecretBytes

from devbox_secrets.api.manifest import manifest
from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.api.names import account_secrets_path
from devbox_secrets.crypto.envelope import PublicKey
from devbox_secrets.kube.client import APPLY, MERGE
from harness.controlplane import ControlPlane
from integration.support.chart import ACCOUNT, NAMESPACE, Json, until

SECRET = "devbox-account-secrets"  # noqa: S105 - a Secret's name


@dataclass(frozen=True)
class Account:
    """A namespace with its secrets, as its owner uses it."""

    controlplane: ControlPlane
    key: PublicKey
    name: str

    @classmethod
    def of(cls, controlplane: ControlPlane, name: str) -> "Account":
        """Return the account of a namespace; the operator must have published its key."""
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/devbox-secrets-public-keys"
        keys: dict[str, str] = until("a key is published", lambda: (controlplane.read(path) or {}).get("data") or {})
        return cls(controlplane, PublicKey.parse(keys["newest"]), name)

    def manifest(self, variable: str, value: bytes, name: str | None = None, *, sealed_for: str | None = None) -> Json:
        sealed = self.key.seal(SecretBytes(value), account=sealed_for or self.name, name=variable)
        return manifest(self.name, AccountSecretSpec(name=variable, sealed=sealed), name)

    def apply(self, body: Json) -> str:
        """Apply an AccountSecret and return its name."""
        name: str = body["metadata"]["name"]
        path = f"{account_secrets_path(self.name, name)}?fieldManager=kubectl&fieldValidation=Strict"
        self.controlplane.request("PATCH", path, body, APPLY)
        return name

    def put(self, variable: str, value: bytes, name: str | None = None) -> str:
        return self.apply(self.manifest(variable, value, name))

    def delete(self, name: str) -> None:
        self.controlplane.request("DELETE", account_secrets_path(self.name, name))

    def ready(self, name: str) -> Json:
        """Return the Ready condition once it is of the current generation."""

        def ask() -> Json:
            body = self.controlplane.read(account_secrets_path(self.name, name))
            assert body, f"the AccountSecret {name} doesn't exist"
            for condition in body.get("status", {}).get("conditions", []):
                if condition["type"] == "Ready" and condition["observedGeneration"] == body["metadata"]["generation"]:
                    return dict(condition)
            return {}

        return until(f"{name} has a Ready condition", ask)

    def is_ready(self, name: str, reason: str = "Synced") -> Json:
        """Wait until the AccountSecret is Ready, or not Ready for this reason."""
        return until(f"{name}: {reason}", lambda: c if (c := self.ready(name))["reason"] == reason else {})

    def data(self, namespace: str | None = None) -> dict[str, bytes] | None:
        """Return the data of the account Secret, or None if it doesn't exist."""
        secret = self.controlplane.read(f"/api/v1/namespaces/{namespace or self.name}/secrets/{SECRET}")
        if secret is None:
            return None
        return {name: base64.b64decode(value) for name, value in (secret.get("data") or {}).items()}

    def holds(self, wanted: dict[str, bytes] | None, namespace: str | None = None) -> None:
        until(f"the account Secret holds {sorted(wanted or {})}", lambda: self.data(namespace) == wanted)

    def member(self, **labels: str) -> "Account":
        """Create and return another namespace, optionally labeled."""
        name = f"test-{uuid4().hex[:8]}"
        self.controlplane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        return replace(self, name=name)

    def join(self, account: str) -> None:
        body = {"metadata": {"labels": {ACCOUNT: account}}}
        self.controlplane.request("PATCH", f"/api/v1/namespaces/{self.name}", body, MERGE)
