"""The gateway as its users run it: the program from the wheel, and tokens for accounts."""

import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import httpx

from harness.components import reserved_port
from harness.controlplane import ControlPlane
from harness.process import Component
from integration.support.chart import NAMESPACE, Json, until
from integration.support.processes import COMMAND, END_SECONDS, Process, operator
from integration.support.sealing_keys import ensure_key


@dataclass(frozen=True)
class Gateway:
    """The gateway as a child process."""

    component: Component
    url: str
    process: Process
    verify: ssl.SSLContext | bool = True

    @property
    def log(self) -> str:
        return self.component.log.read_text()

    @property
    def audit(self) -> list[Json]:
        """The audit log's entries so far."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        return url.host, url.port or 0

    def client(self, token: str, account: str | None = None, *, http2: bool = False) -> httpx.Client:
        """Return an HTTP client with a token, and optionally with the header that names an account."""
        headers = {"Authorization": f"Bearer {token}"} | ({"X-Devbox-Secrets-Account": account} if account else {})
        return httpx.Client(
            base_url=self.url,
            headers=headers,
            http1=not http2,
            http2=http2,
            verify=self.verify,
            trust_env=False,
            timeout=30,  # for a busy machine
        )


@contextmanager
def gateway(
    controlplane: ControlPlane, server: str | None = None, verify: ssl.SSLContext | None = None, **settings: str
) -> Iterator[Gateway]:
    """Run the gateway for a control plane with the chart installed; `verify` is for TLS."""
    with reserved_port() as port, reserved_port() as metrics_port:
        pass  # free ports; only the gateway binds them
    url = f"{'https' if verify else 'http'}://127.0.0.1:{port}"
    authority = controlplane.folder / f"ca-{port}.crt"
    authority.write_bytes(controlplane.authority.pem)
    env = {
        **{name: value for name, value in os.environ.items() if name != "KUBECONFIG"},
        "DEVBOX_SECRETS_PORT": str(port),
        "DEVBOX_SECRETS_METRICS_PORT": str(metrics_port),
        "DEVBOX_SECRETS_LOG_LEVEL": "DEBUG",
        "DEVBOX_SECRETS_API_SERVER": server or controlplane.url,
        "DEVBOX_SECRETS_API_SERVER_CA": str(authority),
        **{f"DEVBOX_SECRETS_{name.upper()}": value for name, value in settings.items()},
    }
    where = controlplane.folder / f"gateway-{port}"
    where.mkdir(exist_ok=True)
    component = Component(COMMAND, ["gateway"], where, lambda: _ready(url, verify or True), env)
    component.start()
    try:
        component.wait_ready()
        yield Gateway(component, url, Process(component, f"http://127.0.0.1:{metrics_port}"), verify or True)
    finally:
        component.stop(END_SECONDS)


def new_account(controlplane: ControlPlane) -> str:
    """Create a namespace with a ServiceAccount for each role, `editor` and `viewer`."""
    name = f"test-{uuid4().hex[:8]}"
    controlplane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    for user, role in (("editor", "edit"), ("viewer", "view")):
        path = f"/api/v1/namespaces/{name}/serviceaccounts"
        controlplane.request("POST", path, {"metadata": {"name": user}})
        bind(controlplane, name, f"{name}:{user}", role)
    return name


def bind(controlplane: ControlPlane, namespace: str, service_account: str, role: str) -> None:
    """Bind one of our roles to a ServiceAccount (namespace:name) in a namespace."""
    home, _, name = service_account.partition(":")
    group = "rbac.authorization.k8s.io"
    body = {
        "metadata": {"name": f"{home}.{name}-{role}"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": f"devbox-secrets-{role}"},
        "subjects": [{"kind": "ServiceAccount", "namespace": home, "name": name}],
    }
    controlplane.request("POST", f"/apis/{group}/v1/namespaces/{namespace}/rolebindings", body)


def token(controlplane: ControlPlane, namespace: str, name: str = "editor") -> str:
    """Return an API key from `kubectl create token`."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    created: str = controlplane.request("POST", path, {"spec": {}})["status"]["token"]
    return created


def endpoints(secret: Json) -> dict[str, tuple[str, str, Json | None]]:
    """Return a request to each endpoint, for one existing secret."""
    by_name, by_id = f"/v1/secrets/{secret['name']}", f"/v1/secrets/id/{secret['id']}"
    return {
        "create": ("POST", "/v1/secrets", {"name": "MINE_NOW", "value": "w"}),
        "list": ("GET", "/v1/secrets", None),
        "list after": ("GET", f"/v1/secrets?starting_after={secret['id']}", None),
        "get": ("GET", by_name, None),
        "update": ("POST", by_name, {"value": "w"}),
        "delete": ("POST", f"{by_name}/delete", None),
        "get by id": ("GET", by_id, None),
        "update by id": ("POST", f"{by_id}/update", {"value": "w"}),
        "delete by id": ("POST", f"{by_id}/delete", {}),
    }


ENDPOINTS = list(endpoints({"name": "", "id": ""}))


def publish_key(controlplane: ControlPlane) -> None:
    """Let the operator publish a key; afterwards it isn't needed for sealing."""
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/devbox-secrets-public-keys"

    def is_published() -> bool:
        return "newest" in ((controlplane.read(path) or {}).get("data") or {})

    if not is_published():
        ensure_key(controlplane)
        with operator(controlplane):
            until("a key is published", is_published)


def _ready(url: str, verify: ssl.SSLContext | bool) -> bool:
    try:
        return httpx.get(f"{url}/readyz", verify=verify, trust_env=False).is_success
    except httpx.TransportError:
        return False
