"""Runloop's TypeScript SDK, unchanged: it speaks HTTP/2 alone, without TLS by prior knowledge."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from apiserver.gateway import Gateway, new_account, token
from cluster.controlplane import ControlPlane
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


def test_the_typescript_sdk_does_all_that_it_can(controlplane: ControlPlane, rest: Gateway, folder: Path) -> None:
    key = token(controlplane, new_account(controlplane))
    program = shutil.copy(HERE / "session.mjs", folder)
    env = {**os.environ, "RUNLOOP_BASE_URL": rest.url, "RUNLOOP_API_KEY": key}
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
