"""Runloop's TypeScript SDK, and the programs beside this file that use it, unchanged. Imports cluster."""

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
    """A folder from which the programs find the SDK."""

    folder: Path

    def start(
        self, program: str, *arguments: str, url: str, key: str, authority: Path | None = None
    ) -> subprocess.Popen[str]:
        """Start a program for a gateway; `authority` is the file of who vouches for its certificate."""
        env = {**os.environ, "RUNLOOP_BASE_URL": url, "RUNLOOP_API_KEY": key}
        if authority:
            env["NODE_EXTRA_CA_CERTS"] = str(authority)
        pipe = subprocess.PIPE
        command: list[str | Path] = ["node", self.folder / f"{program}.mjs", *arguments]
        return subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def run(
        self, program: str, *arguments: str, url: str, key: str, authority: Path | None = None, stdin: str = ""
    ) -> str:
        """Give what a program prints; it must end well."""
        with self.start(program, *arguments, url=url, key=key, authority=authority) as process:
            shown, said = process.communicate(stdin, timeout=60)
        assert process.returncode == 0, said
        return shown

    def session(self, url: str, key: str, authority: Path | None = None) -> None:
        """Do all that the SDK can with secrets, in an account that has none, and check what it got."""
        it = json.loads(self.run("session", url=url, key=key, authority=authority))
        first, second, third = it["made"]
        assert it["pages"] == [["THIRD", "SECOND"], ["FIRST"]]
        assert it["updated"] == it["found"] == it["byId"]
        assert it["updated"] == second | {"update_time_ms": it["updated"]["update_time_ms"]}
        assert it["updated"]["update_time_ms"] > second["update_time_ms"]
        assert it["updatedById"] == it["updated"] | {"update_time_ms": it["updatedById"]["update_time_ms"]}
        status, error = it["refused"]
        assert (status, error["code"]) == (400, "BadRequest")
        assert it["deleted"] == [first, it["updatedById"], third]
        assert it["missing"] == 404
        assert it["left"] == {"secrets": [], "has_more": False, "total_count": 0}


def installed(folder: Path) -> TypeScript:
    """Put the programs into a folder, and there the SDK, which is installed once for each lock file."""
    if shutil.which("npm") is None:
        pytest.skip("needs Node.js with npm")
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
