"""Runs the commands of documents and of the demo in a shell, exactly as printed.

In Markdown, commands are in blocks of the language `console`: a line that begins with `$ ` is a command, which
continues on the next line after a backslash; the lines below it are its output.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.components import write_private
from harness.tools import tool

_END = "--- end of a command ---"
_WAIT_SECONDS = 300


@dataclass(frozen=True)
class Step:
    """A command, and the output that a document shows below it."""

    command: str
    shown: str


@dataclass(frozen=True)
class Ran:
    """The output of a command, and its exit code."""

    output: str
    code: int


def environment(folder: Path, kubeconfig: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a developer's shell, with our CLI, kubectl, helm, and a home with a kubeconfig."""
    own = write_private(folder / "kubeconfig", kubeconfig.read_bytes())
    programs = [Path(sys.executable).parent, tool("kubectl").parent, tool("helm").parent]
    path = os.pathsep.join([*map(str, programs), os.environ["PATH"]])
    inherited = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}
    return {**inherited, "PATH": path, "KUBECONFIG": str(own), "HOME": str(folder), **variables}


def sessions(markdown: str) -> list[list[Step]]:
    """Return the steps of each block of commands."""
    return [steps(block) for block in re.findall(r"^```console\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)]


def steps(block: str) -> list[Step]:
    """Return the steps of one block of commands."""
    return [
        Step(command, shown.strip("\n"))
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
        for command, shown in [re.split(r"(?<!\\)\n", step, maxsplit=1)]
    ]


def run(commands: Iterable[str], folder: Path, env: Mapping[str, str]) -> list[Ran]:
    """Run commands in sequence in one shell, which kills its background jobs when it exits."""
    steps = [f"{{ {command}\n}}; code=$?; echo; echo '{_END}'$code; (exit $code)" for command in commands]
    done = subprocess.run(
        ["bash", "-o", "pipefail"],
        input="\n".join(["trap 'kill $(jobs -p) 2>/dev/null' EXIT", *steps]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        cwd=folder,
        timeout=_WAIT_SECONDS,
        check=False,
    )
    parts = re.split(rf"^{_END}(\d+)\n", done.stdout, flags=re.MULTILINE)
    return [Ran(output.strip("\n"), int(code)) for output, code in zip(parts[::2], parts[1::2], strict=False)]
