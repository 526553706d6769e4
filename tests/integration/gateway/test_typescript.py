"""Runloop's unchanged TypeScript SDK, which uses only HTTP/2, works with the gateway, with TLS and without."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from harness.pki import Authority
from integration.support.gateway import Gateway, gateway, new_account, token
from runloop import typescript


@pytest.fixture
def secure(controlplane: ControlPlane, rest: Gateway, tmp_path: Path) -> Iterator[Gateway]:
    """The gateway over TLS, with its CA in ca.crt."""
    authority = Authority.create("test")
    pair = authority.server("localhost", addresses=["127.0.0.1"])
    for name, content in (("ca.crt", authority.pem), ("tls.crt", pair.certificate), ("tls.key", pair.key)):
        (tmp_path / name).write_bytes(content)
    trust = ssl.create_default_context(cadata=authority.pem.decode())
    with gateway(controlplane, verify=trust, certificate_dir=str(tmp_path)) as it:
        yield it


@pytest.mark.parametrize("server", ["rest", "secure"])
def test_the_typescript_sdk_manages_secrets(
    server: str, request: pytest.FixtureRequest, controlplane: ControlPlane, tmp_path: Path
) -> None:
    it: Gateway = request.getfixturevalue(server)
    authority = tmp_path / "ca.crt" if server == "secure" else None
    key = token(controlplane, new_account(controlplane))
    typescript.installed(tmp_path).session(it.url, key, authority)


@pytest.mark.parametrize("server", ["rest", "secure"])
@pytest.mark.parametrize(
    ("size", "is_known", "status"), [(500_000, False, 401), (500_000, True, 400), (1 << 20, True, 400)]
)
def test_an_unwanted_body_gets_an_error_and_the_sdk_does_not_hang(  # noqa: PLR0913 - columns of a table
    server: str,
    size: int,
    status: int,
    request: pytest.FixtureRequest,
    controlplane: ControlPlane,
    tmp_path: Path,
    *,
    is_known: bool,
) -> None:
    """The SDK waits forever for the response of a stream that is reset without a response."""
    it: Gateway = request.getfixturevalue(server)
    authority = tmp_path / "ca.crt" if server == "secure" else None
    key = token(controlplane, new_account(controlplane)) if is_known else "wrong"
    program = typescript.installed(tmp_path)
    assert program.run("create", str(size), url=it.url, key=key, authority=authority).split() == [str(status)]
