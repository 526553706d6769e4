"""kubectl and our CLI with kubeconfigs of every kind: both act as the same user, or both fail."""

import base64
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from devbox_secrets.cli.kit.options import ClusterOptions
from devbox_secrets.errors import DevboxSecretsError
from harness.controlplane import ControlPlane
from harness.pki import Authority
from harness.tools import tool
from integration.support.gateway import token
from integration.support.kubeconfigs import (
    ACTING,
    ADMIN_USER,
    CLUSTER,
    GO,
    REJECTED,
    V1,
    V1BETA1,
    Case,
    Json,
    credential,
    plugin,
    run,
)
from integration.support.processes import command

CANARY = "canary-of-a-plugin"
NOTHING = f"returned no ExecCredential of {V1} with a token or a client certificate and key"
REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@dataclass(frozen=True)
class KubeconfigWriter:
    """A control plane, and the values of the placeholders in kubeconfigs."""

    controlplane: ControlPlane
    placeholders: Mapping[str, str]

    def fill(self, value: Any) -> Any:  # noqa: ANN401 - any part of a kubeconfig
        if isinstance(value, dict):
            return {key: self.fill(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.fill(each) for each in value]
        if isinstance(value, str):
            for placeholder, meaning in self.placeholders.items():
                value = value.replace(f"<{placeholder}>", meaning)
        return value

    def config(self, case: Case) -> Json:
        cluster = CLUSTER | case.cluster
        found: Json = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {key: each for key, each in cluster.items() if each is not None}}],
            "users": [{"name": "u", "user": case.user}],
            "contexts": [GO],
            "current-context": "go",
        }
        return found | case.changes

    def write(self, case: Case, folder: Path) -> dict[str, str]:
        """Write the files, and return the environment in which they are used."""
        for name, content in {"config": self.config(case), **case.files}.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            filled = self.fill(content)
            if isinstance(filled, bytes):
                path.write_bytes(filled)
            else:
                path.write_text(filled if isinstance(filled, str) else json.dumps(filled))
            if path.suffix == ".sh":
                path.chmod(0o700)
        env = {name: self.fill(text).replace("<here>", str(folder)) for name, text in case.env.items()}
        return {"KUBECONFIG": str(folder / "config"), "HOME": str(folder), **env}


def _serve_proxy(listening: socket.socket, port: int) -> None:
    """Tunnel every CONNECT request to the API server, whatever host it names."""

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def serve(client: socket.socket) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += client.recv(65536)
        with closing(client), socket.create_connection(("127.0.0.1", port)) as server:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = Thread(target=copy, args=(server, client))
            back.start()
            copy(client, server)
            back.join()

    with suppress(OSError):
        while True:
            Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()


@pytest.fixture(scope="module")
def proxy(controlplane: ControlPlane) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(controlplane.url.rpartition(":")[2])
        thread = Thread(target=_serve_proxy, args=(listening, port), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture(scope="module")
def writer(controlplane: ControlPlane, proxy: str) -> KubeconfigWriter:
    admin, other = controlplane.authority.client("admin", "system:masters"), controlplane.authority.client("admin")
    ca = controlplane.authority.pem
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    tokens = {}
    for name in ("alice", "bob"):
        controlplane.request("POST", accounts, {"metadata": {"name": name}})
        tokens[name] = token(controlplane, "default", name)
    placeholders = {
        **tokens,
        "server": controlplane.url,
        "port": controlplane.url.rpartition(":")[2],
        "proxy": f"http://{proxy}",
        "proxy host": proxy,
        "ca": encoded(ca),
        "ca pem": ca.decode(),
        "other ca": encoded(Authority.create("another").pem),
        "cert": encoded(admin.certificate),
        "crt pem": admin.certificate.decode(),
        "crt json": json.dumps(admin.certificate.decode())[1:-1],
        "key": encoded(admin.key),
        "key pem": admin.key.decode(),
        "key json": json.dumps(admin.key.decode())[1:-1],
        "other key": encoded(other.key),
    }
    return KubeconfigWriter(controlplane, placeholders)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def kubectl_acts_as(writer: KubeconfigWriter, case: Case, env: Mapping[str, str]) -> Json | None:
    """Return the user that kubectl acts as, or None if it fails."""
    options = [f"--context={case.context}"] if case.context else []
    options += [f"--as={case.as_user}"] if case.as_user else []
    options += [f"--as-group={each}" for each in case.as_groups]
    done = subprocess.run(
        [
            tool("kubectl"), f"--cache-dir={writer.controlplane.folder}/kubectl", *options,
            "auth", "whoami", "-o", "json",
        ],
        env={"PATH": os.environ["PATH"], "KUBECTL_KUBERC": "false", **env}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return json.loads(done.stdout)["status"]["userInfo"] if done.returncode == 0 else None


async def command_acts_as(case: Case, env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Json | str:
    """Return the user that our commands act as, or the error message if they can't connect."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    options = ClusterOptions(context=case.context, as_user=case.as_user, as_group=list(case.as_groups))
    try:
        async with options.connect() as client:
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
            found: Json = (await client.request("POST", REVIEW, body=body))["status"]["userInfo"]
            return found
    except DevboxSecretsError as error:
        return str(error)


@pytest.mark.parametrize("name", ACTING)
async def test_the_command_and_kubectl_act_as_the_same_user(
    writer: KubeconfigWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    who, case = ACTING[name]
    env = writer.write(case, tmp_path)
    found = await command_acts_as(case, env, monkeypatch)
    assert isinstance(found, dict), found
    assert found["username"] == who
    theirs = kubectl_acts_as(writer, case, env)
    assert theirs is not None
    assert {**found, "extra": _lasting(found)} == {**theirs, "extra": _lasting(theirs)}


def _lasting(user: Json) -> Json:
    """Return the extra fields that don't differ between two requests with the same credential."""
    return {key: value for key, value in user.get("extra", {}).items() if not key.startswith("authentication.")}


@pytest.mark.parametrize("name", REJECTED)
async def test_the_command_rejects_what_kubectl_rejects(
    writer: KubeconfigWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case = REJECTED[name]
    env = writer.write(case, tmp_path)
    found = await command_acts_as(case, env, monkeypatch)
    assert isinstance(found, str), found
    assert "\n" not in found
    assert all(writer.placeholders[each] not in found for each in ("alice", "bob", "key"))
    assert kubectl_acts_as(writer, case, env) is None


@pytest.mark.parametrize(
    "arguments", ["list -n default", "keys prune --yes", "keys rotate --no-wait", "delete TOKEN --yes -n default"]
)
@pytest.mark.parametrize("option", [True, False])
def test_an_impersonated_user_only_has_their_own_permissions(
    writer: KubeconfigWriter, crds: None, tmp_path: Path, arguments: str, *, option: bool
) -> None:
    user = ADMIN_USER if option else {**ADMIN_USER, "as": "jane"}
    env = writer.write(Case(user), tmp_path)
    done = command(Path(env["KUBECONFIG"]), *arguments.split(), *(["--as=jane"] if option else []))
    assert done.returncode == 1
    assert ": 403 " in done.stderr
    assert "Forbidden" in done.stderr or 'User "jane" cannot' in done.stderr


@pytest.mark.parametrize(
    ("files", "fields", "message"),
    [
        (
            {"plugin.sh": plugin(CANARY, "echo 'run: login --again' >&2", "trap 'exit 4' EXIT")},
            {},
            "run: login --again\ndevbox-secrets: the exec plugin plugin.sh of the context go failed with exit code 4\n",
        ),
        (
            {"plugin.sh": plugin(credential({"token": CANARY}, V1BETA1), "echo 'welcome' >&2")},
            {},
            f"welcome\ndevbox-secrets: the exec plugin plugin.sh of the context go {NOTHING}\n",
        ),
        (
            {},
            {"command": "their-login", "installHint": "Install it:\n  brew it\x1b[1m\n"},
            "devbox-secrets: the exec plugin their-login of the context go isn't in PATH; Install it:\n  brew it [1m\n",
        ),
    ],
)
def test_the_message_of_a_failing_exec_plugin_is_shown(
    writer: KubeconfigWriter, tmp_path: Path, files: Mapping[str, str], fields: Json, message: str
) -> None:
    env = writer.write(Case(run(**fields), files=files), tmp_path)
    done = command(Path(env["KUBECONFIG"]), "list", "-n", "default")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


async def test_a_plugins_token_is_not_shown(writer: KubeconfigWriter, tmp_path: Path) -> None:
    env = writer.write(Case(run(), files={"plugin.sh": plugin(credential({"token": CANARY}))}), tmp_path)
    done = command(Path(env["KUBECONFIG"]), "list", "-n", "default")
    assert done.returncode == 1
    assert "401" in done.stderr
    assert CANARY not in done.stdout + done.stderr
