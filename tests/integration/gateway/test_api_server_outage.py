"""The gateway when the API server is down, silent, not the right one, or lacks the CRD or a sealing key."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from devbox_secrets.gateway.contract.ids import SecretId
from harness.components import reserved_port
from harness.controlplane import ControlPlane
from harness.pki import Authority
from integration.support.account import Account
from integration.support.gateway import ENDPOINTS, Gateway, endpoints, gateway, token
from integration.support.gateway_requests import error_message

CANARY = "canary_in_the_cage"


@contextmanager
def silent_server() -> Iterator[str]:
    """Listen on a port, but never respond."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"https://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_each_endpoint_returns_503_with_retry_after_without_the_api_server(
    endpoint: str, disconnected: Gateway, key: str
) -> None:
    method, path, body = endpoints({"name": "TOKEN", "id": SecretId(1, uuid4(), "token").text})[endpoint]
    with disconnected.client(key, "team-a") as api:
        answer = api.request(method, path, json=body)
    assert "try again" in error_message(answer, 503, "ServiceUnavailable")
    assert answer.headers["Retry-After"] == "2"


@pytest.fixture(scope="module")
def disconnected(controlplane: ControlPlane, rest: Gateway) -> Iterator[Gateway]:
    with reserved_port() as port, gateway(controlplane, server=f"https://127.0.0.1:{port}") as it:
        yield it


def test_a_silent_api_server_times_out(controlplane: ControlPlane, key: str) -> None:
    with (
        silent_server() as server,
        gateway(controlplane, server=server, api_server_timeout_seconds="0.5") as it,
        it.client(key) as api,
    ):
        started = time.monotonic()
        error_message(api.get("/v1/secrets"), 503, "ServiceUnavailable")
        assert time.monotonic() - started < 5
        assert "no response within 0.5s" in it.log


def test_a_server_with_an_untrusted_certificate_gets_no_token(
    controlplane: ControlPlane, key: str, tmp_path: Path
) -> None:
    pair = Authority.create("another").server(addresses=["127.0.0.1"])
    files = {name: tmp_path / name for name in ("certificate", "key")}
    files["certificate"].write_bytes(pair.certificate)
    files["key"].write_bytes(pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["certificate"], files["key"])
    received = []

    def listen(server: socket.socket) -> None:
        connection, _ = server.accept()
        try:
            with context.wrap_socket(connection, server_side=True) as stream:
                received.append(stream.recv(65536))
        except (ssl.SSLError, ConnectionError):
            received.append(b"")

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        listener = threading.Thread(target=listen, args=(server,))
        listener.start()
        with gateway(controlplane, server=f"https://127.0.0.1:{server.getsockname()[1]}") as it, it.client(key) as api:
            error_message(api.get("/v1/secrets"), 503, "ServiceUnavailable")
        listener.join(20)
    assert received == [b""]


def test_creating_a_secret_returns_503_until_a_sealing_key_exists(
    controlplane: ControlPlane, rest: Gateway, tenant: Account, key: str
) -> None:
    keys, here = "devbox-secrets-public-keys", f"--namespace={tenant.name}"
    controlplane.kubectl(
        "create", "role", "keys", here, "--verb=get", "--resource=configmaps", f"--resource-name={keys}"
    )
    user = f"--serviceaccount={tenant.name}:editor"
    controlplane.kubectl("create", "rolebinding", "keys", here, "--role=keys", user)
    with gateway(controlplane, namespace=tenant.name) as it, it.client(key) as api:
        for sentence in ("public keys doesn't exist", "no sealing key"):
            answer = api.post("/v1/secrets", json={"name": "A", "value": CANARY})
            assert sentence in error_message(answer, 503, "ServiceUnavailable")
            controlplane.kubectl("create", "configmap", keys, here, check=False)


def test_a_cluster_without_the_crd_is_not_reported_as_an_empty_account() -> None:
    with ControlPlane.start() as bare:
        bare.kubectl("create", "serviceaccount", "admin")
        admin = ("--clusterrole=cluster-admin", "--serviceaccount=default:admin")
        bare.kubectl("create", "clusterrolebinding", "admin", *admin)
        with gateway(bare) as it, it.client(token(bare, "default", "admin")) as api:
            for method, path in (("GET", "/v1/secrets"), ("GET", "/v1/secrets/A")):
                assert "CRD" in error_message(api.request(method, path), 503, "ServiceUnavailable")
