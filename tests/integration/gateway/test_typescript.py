"""Runloop's TypeScript SDK, unchanged: it speaks HTTP/2 alone, without TLS by prior knowledge, and with it."""

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
    """The gateway over TLS; what vouches for it is ca.crt."""
    authority = Authority.create("test")
    pair = authority.server("localhost", addresses=["127.0.0.1"])
    for name, content in (("ca.crt", authority.pem), ("tls.crt", pair.certificate), ("tls.key", pair.key)):
        (tmp_path / name).write_bytes(content)
    trust = ssl.create_default_context(cadata=authority.pem.decode())
    with gateway(controlplane, verify=trust, certificate_dir=str(tmp_path)) as it:
        yield it


@pytest.mark.parametrize("door", ["rest", "secure"])
def test_the_typescript_sdk_does_all_that_it_can(
    door: str, request: pytest.FixtureRequest, controlplane: ControlPlane, tmp_path: Path
) -> None:
    gate: Gateway = request.getfixturevalue(door)
    authority = tmp_path / "ca.crt" if door == "secure" else None
    key = token(controlplane, new_account(controlplane))
    typescript.installed(tmp_path).session(gate.url, key, authority)


@pytest.mark.parametrize("door", ["rest", "secure"])
@pytest.mark.parametrize(
    ("size", "is_known", "status"), [(500_000, False, 401), (500_000, True, 400), (1 << 20, True, 400)]
)
def test_a_body_that_is_not_wanted_gets_an_error_and_no_hang(  # noqa: PLR0913 - a table's columns
    door: str,
    size: int,
    status: int,
    request: pytest.FixtureRequest,
    controlplane: ControlPlane,
    tmp_path: Path,
    *,
    is_known: bool,
) -> None:
    """The SDK waits forever for the response of a stream that was reset without an error before it."""
    gate: Gateway = request.getfixturevalue(door)
    authority = tmp_path / "ca.crt" if door == "secure" else None
    key = token(controlplane, new_account(controlplane)) if is_known else "wrong"
    program = typescript.installed(tmp_path)
    assert program.run("create", str(size), url=gate.url, key=key, authority=authority).split() == [str(status)]
