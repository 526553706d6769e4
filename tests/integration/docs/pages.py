"""Reads the pages of the documentation, and runs their commands as pages.yaml says."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from harness import shell
from harness.components import write_private
from harness.pki import Authority
from harness.terminal import Terminal
from integration.support.output import normalize

ROOT = Path(__file__).parents[3]
TABLE = yaml.safe_load(Path(__file__).with_name("pages.yaml").read_text())
_NOT_RUN = tuple(TABLE["not run"])
_HEADING_OR_BLOCK = re.compile(
    r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
#: Commands that run for minutes; only their --help is run.
_LONG = re.compile(r"PYTHONPATH=\S+ python (benchmarks/|-m unit)")
#: Values, also in base64, and the passphrase.
_CONFIDENTIAL = re.compile("canary|Y2FuYXJ5|correct horse")
_FOLDERS = ("benchmarks", "charts", "deploy", "examples", "operator", "tests")
_VARIABLES = {"IMAGE": "image", "REPOSITORY": "owner/name", "VERSION": "0.1.0", "PYTHONDONTWRITEBYTECODE": "1"}
_PRELUDE = """
umask 077
fpath=(. .)  # as in zsh
holds() {  # NAME VALUE [NAMESPACE]: wait until the account Secret has the value
  secret=(kubectl get secret devbox-account-secrets -n "${3-team-a}" --ignore-not-found)
  until [ "$("${secret[@]}" -o jsonpath="{.data.$1}")" = "$(printf %s "$2" | base64)" ]; do sleep 0.1; done
}
has() {  # FIELD TEXT: wait until a new devbox's container has the text in a field
  devbox=(kubectl run new --image x -l devbox-secrets.dev/devbox=true --dry-run=server)
  until "${devbox[@]}" -o jsonpath="{.spec.containers[0].$1}" | grep -q "$2"; do sleep 0.1; done
}
uses() { kubectl get deployment devbox-secrets -n devbox-secrets -o jsonpath='{..image}' | grep -x "$1"; }  # IMAGE
upgrade() {  # VALUES
  helm upgrade devbox-secrets charts/devbox-secrets -n devbox-secrets --reset-then-reuse-values --set "$1"
}
"""


@dataclass(frozen=True)
class Block:
    """A code block, and the heading above it."""

    heading: str
    language: str
    body: str

    @property
    def steps(self) -> list[shell.Step]:
        """The block's commands; a script is one command."""
        if self.language == "bash":
            return [shell.Step(self.body, "")]
        return shell.steps(self.body) if self.language == "console" else []


@dataclass(frozen=True)
class Command:
    """What surrounds a command: scripts before and after it, and what is typed at its prompts."""

    before: str = ""
    after: str = ""
    typed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """The commands of a page that one test runs; `only` is a pattern that selects some."""

    path: str
    only: str = ""
    commands: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def steps(self) -> list[shell.Step]:
        every = [step for block in blocks(self.path) for step in block.steps]
        return [it for it in every if re.search(self.only, it.command) and not it.command.startswith(_NOT_RUN)]

    def around(self, step: shell.Step) -> Command:
        found = [Command(**around) for key, around in self.commands.items() if re.search(key, step.command)]
        return found[0] if found else Command()


PAGES = [Page(**it) for it in TABLE["pages"]]
INSTALLATION = [Page(**it) for it in TABLE["installation"]]


def documents() -> list[str]:
    """Return the paths of all pages."""
    command = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md")
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def blocks(path: str) -> Iterator[Block]:
    """Return the code blocks of a page."""
    heading = ""
    for found in _HEADING_OR_BLOCK.finditer((ROOT / path).read_text()):
        heading = found["heading"] or heading
        if found["language"]:
            yield Block(heading, found["language"], found["body"])


@dataclass(frozen=True)
class Workspace:
    """A folder with what the pages mention, and the environment of a shell in it."""

    folder: Path
    env: Mapping[str, str]

    @classmethod
    def prepare(cls, folder: Path, kubeconfig: Path) -> Self:
        """Fill an empty folder."""
        for name in _FOLDERS:
            (folder / name).symlink_to(ROOT / name)
        for name, text in TABLE["files"].items():
            write_private(folder / name, text.encode())
        (folder / "ca.crt").write_bytes(Authority.create("pages").pem)
        programs = folder / "bin"
        programs.mkdir()
        for name, script in TABLE["stubs"].items():
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o700)
        env = shell.environment(folder, kubeconfig, **_VARIABLES)
        return cls(folder, {**env, "PATH": os.pathsep.join([str(programs), env["PATH"]])})

    def perform(self, page: Page) -> None:
        """Run a page's commands and what surrounds them, and compare the output with the page."""
        for step in page.steps:
            around = page.around(step)
            self.run(f"(set -e; {around.before}\n)")
            if _LONG.match(step.command):
                output = self.run(f"{step.command} --help")
                assert [option for option in re.findall(r" (--\w+)", step.command) if option not in output] == []
            else:
                output = self._type(step.command, around.typed) if around.typed else self.run(step.command)
                assert not step.shown or normalize(output) == normalize(step.shown), step.command
            assert not _CONFIDENTIAL.search(output), step.command
            self.run(f"(set -e; {around.after}\n)")

    def run(self, command: str) -> str:
        """Run a command that must succeed, and return its output."""
        _, run = shell.run([_PRELUDE, command], self.folder, self.env)
        assert run.code == 0, f"{command}: {run.output}"
        return run.output

    def _type(self, command: str, answers: Mapping[str, str]) -> str:
        terminal = Terminal(["/bin/bash", "-c", f"exec > /dev/tty; {command}"], self.folder, self.env)
        try:
            for prompt, answer in answers.items():
                terminal.answer(prompt.encode(), f"{answer}\n".encode())
            assert terminal.end()[0] == 0, command
        finally:
            terminal.close()
        return terminal.shown.decode().replace("\r\n", "\n").strip("\n")
