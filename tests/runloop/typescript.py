"""Runs the Node.js programs in this folder, which use Runloop's unchanged TypeScript SDK."""

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.run import CACHE, lock, run, step

_HERE = Path(__file__).parent
_PACKAGES = ("package.json", "package-lock.json")


@dataclass(frozen=True)
class TypeScript:
    """A folder with the programs and the SDK."""

    folder: Path

    def start(
        self, program: str, *arguments: str, url: str, key: str, authority: Path | None = None
    ) -> subprocess.Popen[str]:
        """Start a program with a gateway's address and a key; `authority` is the file of a CA certificate to trust."""
        env = {**os.environ, "RUNLOOP_BASE_URL": url, "RUNLOOP_API_KEY": key}
        if authority:
            env["NODE_EXTRA_CA_CERTS"] = str(authority)
        pipe = subprocess.PIPE
        command: list[str | Path] = ["node", self.folder / f"{program}.mjs", *arguments]
        return subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def run(
        self, program: str, *arguments: str, url: str, key: str, authority: Path | None = None, stdin: str = ""
    ) -> str:
        """Run a program, check that it succeeds, and return its standard output."""
        with self.start(program, *arguments, url=url, key=key, authority=authority) as process:
            stdout, stderr = process.communicate(stdin, timeout=60)
        assert process.returncode == 0, stderr
        return stdout

    def session(self, url: str, key: str, authority: Path | None = None) -> None:
        """Call everything that the SDK offers for secrets, in an empty account, and check the results."""
        it = json.loads(self.run("session", url=url, key=key, authority=authority))
        first, second, third = it["made"]
        assert it["pages"] == [["THIRD", "SECOND"], ["FIRST"]]
        assert it["updated"] == it["found"] == it["byId"]
        assert it["updated"] == second | {"update_time_ms": it["updated"]["update_time_ms"]}
        assert it["updated"]["update_time_ms"] > second["update_time_ms"]
        assert it["updatedById"] == it["updated"] | {"update_time_ms": it["updatedById"]["update_time_ms"]}
        status, error = it["rejected"]
        assert (status, error["code"]) == (400, "BadRequest")
        assert it["deleted"] == [first, it["updatedById"], third]
        assert it["missing"] == 404
        assert it["remaining"] == {"secrets": [], "has_more": False, "total_count": 0}


def installed(folder: Path) -> TypeScript:
    """Copy the programs into a folder and link the SDK there, which is installed once for each lock file."""
    if shutil.which("npm") is None:
        pytest.skip("requires Node.js with npm")
    digest = hashlib.sha256(b"".join((_HERE / name).read_bytes() for name in _PACKAGES)).hexdigest()[:16]
    it = CACHE / "npm" / digest
    with lock(CACHE / "npm" / ".lock"):
        if not (it / "ready").exists():
            it.mkdir(parents=True, exist_ok=True)
            for name in _PACKAGES:
                shutil.copy(_HERE / name, it)
            with step("npm: installing the TypeScript SDK"):
                run("npm", "ci", "--prefix", it, "--ignore-scripts", "--no-audit", "--no-fund", timeout=240)
            (it / "ready").touch()
    for program in _HERE.glob("*.mjs"):
        shutil.copy(program, folder)
    (folder / "node_modules").symlink_to(it / "node_modules")
    return TypeScript(folder)
