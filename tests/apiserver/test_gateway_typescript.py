"""Runloop's TypeScript SDK, unchanged: it speaks HTTP/2 alone, without TLS by prior knowledge, and with it."""

import hashlib
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver.gateway import Gateway, gateway, new_account, token
from cluster.controlplane import ControlPlane
from cluster.pki import Authority
from cluster.run import CACHE, lock, run, step

HERE = Path(__file__).parent / "typescript"
PACKAGES = ("package.json", "package-lock.json")


@pytest.fixture(scope="module")
def folder() -> Path:
    """Where the SDK is installed, once for each lock file."""
    if shutil.which("npm") is None:
        pytest.skip("needs Node.js with npm")
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in PACKAGES)).hexdigest()[:16]
    it = CACHE / "npm" / digest
    with lock(CACHE / "npm" / ".lock"):
        if not (it / "ready").exists():
            it.mkdir(parents=True, exist_ok=True)
            for name in PACKAGES:
                shutil.copy(HERE / name, it)
            with step("npm: installing the TypeScript SDK"):
                run("npm", "ci", "--prefix", it, "--ignore-scripts", "--no-audit", "--no-fund", timeout=240)
            (it / "ready").touch()
    return it


@pytest.fixture
def secure(controlplane: ControlPlane, rest: Gateway, tmp_path: Path) -> Iterator[Gateway]:
    """The gateway over TLS; what vouches for it is ca.crt."""
    authority = Authority.create("test")
    pair = authority.server("localhost", addresses=["127.0.0.1"])
    for name, content in (("ca.crt", authority.pem), ("tls.crt", pair.certificate), ("tls.key", pair.key)):
        (tmp_path / name).write_bytes(content)
    trust = ssl.create_default_context(cadata=authority.pem.decode())
    with gateway(controlplane, verify=trust, certificate=str(tmp_path)) as it:
        yield it


@pytest.mark.parametrize("door", ["rest", "secure"])
def test_the_typescript_sdk_does_all_that_it_can(
    door: str, request: pytest.FixtureRequest, controlplane: ControlPlane, folder: Path, tmp_path: Path
) -> None:
    gate: Gateway = request.getfixturevalue(door)
    key = token(controlplane, new_account(controlplane))
    program = shutil.copy(HERE / "session.mjs", folder)
    env = {**os.environ, "RUNLOOP_BASE_URL": gate.url, "RUNLOOP_API_KEY": key}
    if door == "secure":
        env["NODE_EXTRA_CA_CERTS"] = str(tmp_path / "ca.crt")
    done = subprocess.run(["node", program], env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    it = json.loads(done.stdout)
    first, second, third = it["made"]
    assert it["pages"] == [["THIRD", "SECOND"], ["FIRST"]]
    assert it["updated"] == it["found"] == it["byId"]
    assert it["updated"] == second | {"update_time_ms": it["updated"]["update_time_ms"]}
    assert it["updated"]["update_time_ms"] > second["update_time_ms"]
    status, error = it["refused"]
    assert (status, error["code"]) == (400, "BadRequest")
    assert it["deleted"] == [first, it["updated"], third]
    assert it["missing"] == 404
    assert it["left"] == {"secrets": [], "has_more": False, "total_count": 0}
