"""Runs the installed program for tests of the command line."""

import subprocess
import sysconfig
from pathlib import Path

SCRIPTS = Path(sysconfig.get_path("scripts"))
PROGRAM = str(SCRIPTS / "devbox-secrets")
SECONDS = 30


def run(*args: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(args, input=given, capture_output=True, timeout=SECONDS, check=False)
