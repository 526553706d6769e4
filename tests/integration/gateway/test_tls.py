"""The gateway over TLS: HTTP/1.1 and HTTP/2 by ALPN, and new certificates and CAs without a restart."""

import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest
from runloop_api_client import Runloop

from harness.controlplane import ControlPlane
from harness.pki import Authority, KeyPair
from integration.support.chart import until
from integration.support.gateway import Gateway, gateway, new_account, token
from integration.support.gateway_requests import create
from integration.support.processes import COMMAND


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Path:
    it = tmp_path_factory.mktemp("certificate")
    mount(it, new_pair(authority))
    return it


@pytest.fixture(scope="module")
def trust(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.pem.decode())


@pytest.fixture(scope="module")
def secure(controlplane: ControlPlane, rest: Gateway, folder: Path, trust: ssl.SSLContext) -> Iterator[Gateway]:
    settings = {"certificate_dir": str(folder), "certificate_refresh_seconds": "0.1"}
    with gateway(controlplane, verify=trust, **settings) as it:
        yield it


def new_pair(authority: Authority) -> KeyPair:
    return authority.server("localhost", addresses=["127.0.0.1"])


def mount(folder: Path, pair: KeyPair) -> None:
    """Replace both files atomically, as the kubelet does: it renames a link to their folder."""
    new = folder / f"..{len(list(folder.iterdir()))}"
    new.mkdir(mode=0o700)
    (new / "tls.crt").write_bytes(pair.certificate)
    (new / "tls.key").write_bytes(pair.key)
    (folder / "..new").symlink_to(new)
    (folder / "..new").rename(folder / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(folder / "..data" / name)


def served_certificate(it: Gateway) -> bytes:
    return ssl.get_server_certificate(("127.0.0.1", httpx.URL(it.url).port or 0)).encode()


@pytest.mark.parametrize("http2", [False, True])
def test_one_port_serves_http_1_and_http_2_over_tls(
    controlplane: ControlPlane, secure: Gateway, *, http2: bool
) -> None:
    with secure.client(token(controlplane, new_account(controlplane)), http2=http2) as api:
        made = create(api, "TOKEN")
        answer = api.get("/v1/secrets/TOKEN")
    assert (answer.http_version, answer.json()) == ("HTTP/2" if http2 else "HTTP/1.1", made)


@pytest.mark.parametrize("http2", [False, True])
def test_a_renewed_certificate_is_served_and_old_connections_stay_open(
    secure: Gateway, authority: Authority, folder: Path, *, http2: bool
) -> None:
    with secure.client("none", http2=http2) as kept:
        assert kept.get("/healthz").text == "ok"
        pair = new_pair(authority)
        mount(folder, pair)
        until("the new certificate is served", lambda: served_certificate(secure) == pair.certificate)
        assert kept.get("/healthz").text == "ok"
    with secure.client("none", http2=http2) as new:
        assert new.get("/healthz").http_version == ("HTTP/2" if http2 else "HTTP/1.1")


@pytest.mark.parametrize("http2", [False, True])
def test_the_sdk_loses_no_request_while_the_certificate_is_renewed(
    controlplane: ControlPlane, secure: Gateway, authority: Authority, folder: Path, *, http2: bool
) -> None:
    key = token(controlplane, new_account(controlplane))
    stop, answers = Event(), list[int | None]()

    def ask() -> None:
        with (
            secure.client(key, http2=http2) as http,
            Runloop(base_url=secure.url, bearer_token=key, http_client=http) as api,
        ):
            while not stop.is_set():
                answers.append(api.secrets.list().total_count)

    with ThreadPoolExecutor() as threads:
        asking = threads.submit(ask)
        try:
            for _ in range(3):
                pair = new_pair(authority)
                mount(folder, pair)
                until("the new certificate is served", lambda: served_certificate(secure) == pair.certificate)  # noqa: B023 - runs in this iteration
                count = len(answers) + 2
                until("requests continue", lambda: len(answers) > count)  # noqa: B023 - runs in this iteration
        finally:
            stop.set()
        asking.result()
    assert set(answers) == {0}


def test_a_broken_certificate_does_not_replace_the_current_one(
    secure: Gateway, authority: Authority, folder: Path
) -> None:
    before = served_certificate(secure)
    mount(folder, KeyPair(new_pair(authority).certificate, new_pair(authority).key))
    until("the error is logged", lambda: "keeping the old one" in secure.log)
    assert served_certificate(secure) == before


def test_requests_without_tls_fail(secure: Gateway) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{secure.url.replace('https', 'http')}/healthz", trust_env=False)


def test_the_error_for_a_missing_certificate_names_the_file(
    controlplane: ControlPlane, rest: Gateway, tmp_path: Path
) -> None:
    settings = {
        "CERTIFICATE_DIR": str(tmp_path),
        "API_SERVER": controlplane.url,
        "API_SERVER_CA": str(tmp_path / "ca.crt"),
    }
    env = {**os.environ, **{f"DEVBOX_SECRETS_{name}": value for name, value in settings.items()}}
    done = subprocess.run([COMMAND, "gateway"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert str(tmp_path / "tls.crt") in done.stderr


def test_a_new_ca_of_the_cluster_replaces_the_old_one_without_a_restart(
    controlplane: ControlPlane, rest: Gateway, authority: Authority, tmp_path: Path
) -> None:
    ca, new = tmp_path / "ca.crt", tmp_path / "new"
    key = token(controlplane, new_account(controlplane))

    def write(pem: bytes) -> None:
        new.write_bytes(pem)
        new.rename(ca)

    write(authority.pem)
    with gateway(controlplane, api_server_ca=str(ca), certificate_refresh_seconds="0.1") as it, it.client(key) as api:
        assert api.get("/v1/secrets").status_code == 503
        write(controlplane.authority.pem)
        until("the new CA is trusted", lambda: api.get("/v1/secrets").status_code == 200)
        write(b"no certificate")
        until("the error is logged", lambda: "keeping the old ones" in it.log)
        assert api.get("/v1/secrets").status_code == 200
        write(authority.pem)
        until("the API server is no longer trusted", lambda: api.get("/v1/secrets").status_code == 503)


def test_the_expiration_metric_exists_only_with_a_certificate(secure: Gateway, rest: Gateway) -> None:
    assert secure.process.metric("devbox_secrets_certificate_expiration_timestamp_seconds") > time.time()
    assert "certificate_expiration" not in rest.process.get("/metrics")
