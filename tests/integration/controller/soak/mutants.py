"""Five mutants of the operator that the soak detects, usually within a round or two. Run by `make soak-mutants`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[3]
#: A mutant, a seed and a fault that soon reveal it, and a part of the soak's message.
MUTANTS = [
    ("no-fencing", 1, "cut-off-leader", "older than number"),
    ("ignored-relist", 1714, "expire-watches", "nobody's values"),
    ("lost-deletion", 3, "renew-certificates", "nobody's values"),
    ("wrong-member", 18, "renew-certificates", "after the last change"),
    ("stale-namespace", 180, "freeze-watches", "of a home that the namespace didn't belong to"),
]


def soak(*options: str) -> subprocess.CompletedProcess[str]:
    """Run a soak as `make soak` does."""
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-m", "integration.controller.soak", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("mutant", "seed", "fault", "message"), MUTANTS)
def test_a_mutant_is_detected(mutant: str, seed: int, fault: str, message: str) -> None:
    done = soak("--mutant", mutant, "--seed", str(seed), "--fault", fault, "--quiet-seconds", "15")
    assert done.returncode == 1
    assert message in done.stderr
