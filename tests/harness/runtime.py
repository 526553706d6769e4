"""A container runtime for machines without CAP_SYS_RESOURCE: edits the specification, then executes runc.

runc rejects a container ("unable to apply caps") whose specification grants a capability that the machine lacks,
raises limits or lowers the OOM score; `docker run --privileged` does all three. The engine runs this file as a
program, so it imports only the standard library.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CAPABILITY = "CAP_SYS_RESOURCE"


def main(arguments: list[str]) -> None:
    """Run runc with a specification reduced to what this machine supports."""
    if "create" in arguments or "run" in arguments:
        bundle = Path(_option(arguments, "--bundle", "-b") or ".")
        _edit(bundle / "config.json", lambda it: it["process"])
    elif "exec" in arguments and (process := _option(arguments, "--process", "-p")):
        _edit(Path(process), lambda it: it)
    os.execvp("runc", ["runc", *arguments])  # noqa: S606 - no shell; the engine's PATH


def _option(arguments: list[str], *names: str) -> str | None:
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else arguments[position + 1]
    return None


def _edit(path: Path, process_of: Callable[[Any], Any]) -> None:
    specification = json.loads(path.read_text())
    process = process_of(specification)
    process.pop("rlimits", None)
    process.pop("oomScoreAdj", None)
    for granted in process.get("capabilities", {}).values():
        if _CAPABILITY in granted:
            granted.remove(_CAPABILITY)
    path.write_text(json.dumps(specification))


if __name__ == "__main__":
    main(sys.argv[1:])
