"""A Kubernetes control plane without nodes, run as child processes.

`python -m harness.controlplane` runs one until it is interrupted, and prints the path of its kubeconfig.
"""

import base64
import json
import os
import shlex
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import httpx

from harness import components
from harness.components import CONTROLLERS, write_private
from harness.pki import Authority
from harness.process import Component, workspace
from harness.tools import tool, tools


class KubectlError(Exception):
    """A kubectl command failed; the message contains the command and its output."""


class RequestError(Exception):
    """The API server rejected a request; the message is the server's."""

    def __init__(self, request: str, status: int, message: str) -> None:
        super().__init__(f"{request}: {status} {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane, whose components can be stopped, killed and restarted."""

    folder: Path
    url: str
    kubeconfig: Path
    authority: Authority
    etcd: Component
    apiserver: Component
    controller_manager: Component
    scheduler: Component | None

    @classmethod
    @contextmanager
    def start(
        cls,
        *,
        apiserver_args: Sequence[str] = (),
        audit_policy: str | None = None,
        controllers: Sequence[str] = CONTROLLERS,
        scheduler: bool = False,
    ) -> Iterator[Self]:
        """Run a control plane, and yield it when the API server and the controllers are ready.

        Extra arguments such as --feature-gates=… override the defaults. With an audit policy (as YAML), the
        audit log is in `audit_log`.
        """
        tools(
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kubectl",
            *["kube-scheduler"] * scheduler,
        )
        with ExitStack() as stack:
            folder = stack.enter_context(workspace())
            ports = [stack.enter_context(components.reserved_port()) for _ in range(3)]
            authority = Authority.create("devbox-secrets-test")
            components.write_credentials(folder, authority)
            if audit_policy:
                write_private(folder / "audit-policy.yaml", audit_policy.encode())
            audit = audit_policy is not None
            it = cls(
                folder=folder,
                url=f"https://127.0.0.1:{ports[0]}",
                kubeconfig=folder / "admin.kubeconfig",
                authority=authority,
                etcd=components.etcd(folder),
                apiserver=components.apiserver(folder, authority, ports[0], apiserver_args, audit=audit),
                controller_manager=components.controller_manager(folder, authority, ports[1], controllers),
                scheduler=components.scheduler(folder, authority, ports[2]) if scheduler else None,
            )
            it._run(stack)
            yield it

    @property
    def components(self) -> list[Component]:
        """All components, in the order of their dependencies."""
        return [it for it in (self.etcd, self.apiserver, self.controller_manager, self.scheduler) if it is not None]

    @property
    def audit_log(self) -> Path:
        """One JSON object per line; the file exists only with an audit policy."""
        return self.folder / "audit.log"

    def log(self, name: str) -> Path:
        """Return the path of a component's log, for example kube-apiserver."""
        return self.folder / f"{name}.log"

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - the name that subprocess.run uses
        check: bool = True,
        kubeconfig: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator, or with another kubeconfig."""
        done = subprocess.run(
            # The user's own cache may have the discovery of another control plane on the same port.
            [
                tool("kubectl"),
                f"--kubeconfig={kubeconfig or self.kubeconfig}",
                f"--cache-dir={self.folder}/kubectl",
                *args,
            ],
            env={**os.environ, "KUBECTL_KUBERC": "false"},
            input=input or "",
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            command = shlex.join(["kubectl", *args])
            raise KubectlError(f"{command}: exit status {done.returncode}: {done.stderr.strip()}")
        return done

    def read(self, path: str) -> dict[str, Any] | None:
        """Read a path of the API server as the administrator; None if it doesn't exist."""
        try:
            return self.request("GET", path)
        except RequestError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def read_text(self, path: str) -> str:
        """Read a path that doesn't return JSON as the administrator, such as /metrics."""
        return self._client.get(path).raise_for_status().text

    def request(
        self, method: str, path: str, body: object = None, media_type: str = "application/json"
    ) -> dict[str, Any]:
        """Send a request as the administrator, and return the response's body.

        It takes a hundredth of the time of kubectl.

        Raises:
            RequestError: the API server rejected the request.
            httpx.TransportError: there was no response.
        """
        content = None if body is None else json.dumps(body)
        answer = self._client.request(method, path, headers={"Content-Type": media_type}, content=content)
        found: dict[str, Any] = answer.json()
        if answer.is_error:
            raise RequestError(f"{method} {path}", answer.status_code, found["message"])
        return found

    def stream(self, path: str) -> Iterator[str]:
        """Yield the lines of a watch as they arrive.

        Raises:
            httpx.HTTPError: the API server rejected the request, or its response ended early.
        """
        with self._client.stream("GET", path) as answer:
            yield from answer.raise_for_status().iter_lines()

    @cached_property
    def _client(self) -> httpx.Client:
        # Tests restart the API server, so connections aren't reused.
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.Client(base_url=self.url, verify=self._administrator, limits=limits, trust_env=False, timeout=30)

    @cached_property
    def _administrator(self) -> ssl.SSLContext:
        pair = self.authority.client("admin", "system:masters")
        both = write_private(self.folder / "admin.pem", pair.certificate + pair.key)
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.load_cert_chain(both)
        return context

    def user_kubeconfig(self, user: str, group: str | None = None) -> Path:
        """Write a kubeconfig that authenticates as this user with a client certificate."""
        pair = self.authority.client(user, group)
        identity = {
            "client-certificate-data": _base64(pair.certificate),
            "client-key-data": _base64(pair.key),
        }
        return self._write_kubeconfig(user, identity)

    def service_account_kubeconfig(
        self, namespace: str, name: str, duration: timedelta = timedelta(hours=10), server: str | None = None
    ) -> Path:
        """Write a kubeconfig with a token of an existing service account, optionally for another server address."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        token = self.request("POST", path, {"spec": {"expirationSeconds": int(duration.total_seconds())}})
        between = f".{server.rpartition(':')[2]}" if server else ""
        return self._write_kubeconfig(f"{namespace}.{name}{between}", {"token": token["status"]["token"]}, server)

    def compact(self) -> int:
        """Compact etcd to the newest revision."""
        return components.compact(self.folder)

    @contextmanager
    def out_of_space(self) -> Iterator[None]:
        """Make etcd reject every write, as when its quota is used up."""
        components.set_alarm(self.folder, active=True)
        try:
            yield
        finally:
            components.set_alarm(self.folder, active=False)

    def renew_certificate(self) -> None:
        """Replace the API server's certificate, which it reloads automatically."""
        components.write_serving_certificate(self.folder, self.authority)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restore the current state after the context, as from a snapshot of etcd."""
        snapshot = self.folder / "snapshot"
        self.etcd.stop()
        shutil.copytree(self.folder / "etcd", snapshot)
        self._start_again()
        yield
        self.apiserver.kill()
        self.etcd.stop()
        shutil.rmtree(self.folder / "etcd")
        snapshot.rename(self.folder / "etcd")
        self._start_again()

    def _start_again(self) -> None:
        for component in self.components:
            if not component.is_running():
                component.start()
        for component in self.components:
            component.wait_ready()

    def _run(self, stack: ExitStack) -> None:
        self.user_kubeconfig("admin", "system:masters")
        self.user_kubeconfig("system:kube-controller-manager")
        self.user_kubeconfig("system:kube-scheduler")
        etcd, apiserver, *clients = self.components
        # The controllers exit if their permissions don't exist within ten seconds.
        for together in ((etcd, apiserver), clients):
            for component in together:
                stack.callback(component.kill)
                component.start()
            for component in together:
                component.wait_ready()
        # The controllers are healthy before they run; this is the first object that they create.
        self.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s")

    def _write_kubeconfig(self, name: str, identity: dict[str, str], server: str | None = None) -> Path:
        cluster = {"server": server or self.url, "certificate-authority-data": _base64(self.authority.pem)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": identity}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        }
        path = self.folder / f"{name.removeprefix('system:').replace(':', '.')}.kubeconfig"
        return write_private(path, json.dumps(config, indent=1).encode())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def main() -> None:
    """Run a control plane with a scheduler until it is interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), ControlPlane.start(scheduler=True) as it:
        print(f"export KUBECONFIG={it.kubeconfig}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
