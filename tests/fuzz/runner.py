"""Runs a target in its own process, and reads libFuzzer's output."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from harness.run import CACHE
from harness.table import lines

TARGETS = ("envelope", "backup", "accountsecrets", "env_files", "bodies", "kubeconfig", "yaml_edit")
"""The targets that need only Python."""
SERVER_TARGETS = ("api_server", "annotations")
"""The targets that send each input to a real API server."""
_TESTS = Path(__file__).parents[1]
CORPORA = Path(__file__).parent / "corpora"
"""The corpora in the repository, a folder for each target."""

_SEEN = re.compile(r"^#\d+\s+(?:INITED|NEW|REDUCE|RELOAD|pulse|DONE)\s+cov: (\d+)", re.MULTILINE)
_UNITS = re.compile(r"^stat::number_of_executed_units: (\d+)$", re.MULTILINE)
_WRITTEN = re.compile(r"Test unit written to (\S+)")
#: The maximum time for one input, on a busy machine.
_TIMEOUT_SECONDS = 30
_MAX_LENGTH = {
    "accountsecrets": 256,
    "annotations": 128,
    "api_server": 256,
    "env_files": 512,
    "kubeconfig": 1024,
    "yaml_edit": 1024,
}
_MAX_LENGTH_DEFAULT = 4096


@dataclass(frozen=True)
class Result:
    """The result of one target."""

    target: str
    inputs: int
    seconds: float
    new_coverage: int
    """The number of branches that no earlier input took."""
    findings: tuple[Path, ...]
    """The inputs for which the check failed."""
    log: Path
    complete: bool
    """Whether all inputs were run."""


def is_available() -> bool:
    """Return whether atheris is installed: it doesn't have wheels for all Python versions and machines."""
    return find_spec("atheris") is not None


def run(target: str, runs: int, *, seed: int = 0, module: str = "", folder: Path = CACHE / "fuzz") -> Result:
    """Run a number of inputs; inputs that take new branches are kept in a folder outside the repository.

    Args:
        target: its name, which is also the name of its corpus.
        runs: the number of inputs, including the corpus.
        seed: the same seed repeats a run, if it isn't 0.
        module: the target's module, if it isn't in `fuzz.targets`.
        folder: the folder of new inputs, findings and logs.
    """
    found, findings, log = folder / target / "corpus", folder / target / "findings", folder / target / "log"
    for each in (found, findings):
        each.mkdir(parents=True, exist_ok=True)
    options = {
        "runs": runs,
        "seed": seed,
        "max_len": _MAX_LENGTH.get(target, _MAX_LENGTH_DEFAULT),
        "timeout": _TIMEOUT_SECONDS,
        "artifact_prefix": f"{findings}/",
        "print_final_stats": 1,
    }
    folders = [each for each in (found, CORPORA / target) if each.exists()]
    command = [sys.executable, "-m", "fuzz.process", module or f"fuzz.targets.{target}"]
    # Measuring coverage would make it many times slower.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_TESTS), os.environ.get("PYTHONPATH")]))
    started = time.monotonic()
    with log.open("w") as file:
        code = subprocess.run(
            [*command, *(f"-{name}={value}" for name, value in options.items()), *map(str, folders)],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    return _result(target, log, time.monotonic() - started, complete=code == 0)


def _result(target: str, log: Path, seconds: float, *, complete: bool) -> Result:
    output = log.read_text(errors="replace")
    coverage = [int(each) for each in _SEEN.findall(output)] or [0]
    return Result(
        target=target,
        inputs=sum(map(int, _UNITS.findall(output))),
        seconds=seconds,
        new_coverage=coverage[-1] - coverage[0],
        findings=tuple(map(Path, _WRITTEN.findall(output))),
        log=log,
        complete=complete,
    )


def table(results: Sequence[Result]) -> str:
    """Format the results as a table."""
    head = ("TARGET", "INPUTS", "SECONDS", "NEW COVERAGE", "FINDINGS")
    rows = [
        (it.target, f"{it.inputs:,}", f"{it.seconds:.0f}", f"{it.new_coverage:+}", str(len(it.findings)))
        for it in results
    ]
    return "\n".join(lines([head, *rows]))
