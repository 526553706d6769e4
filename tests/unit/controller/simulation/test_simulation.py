"""The simulation of the controller: the operator passes, and each mutant fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[3]


def simulate(*options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(TESTS), "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "unit.controller.simulation", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_operator_passes() -> None:
    done = simulate("--steps", "30000")
    assert (done.returncode, done.stderr) == (0, "")


# In these, another replica led meanwhile, a namespace was recreated between two requests, a leader ended between two
# namespaces, a write took effect without a response, and a namespace joined after its home was deleted.
@pytest.mark.parametrize("seed", [30001, 40044, 70056, 80109, 92009])
def test_a_fault_that_a_seed_found_is_fixed(seed: int) -> None:
    done = simulate("--steps", "1", "--seed", str(seed))
    assert (done.returncode, done.stderr) == (0, "")


# With these seeds, a violation is found within seconds.
@pytest.mark.parametrize(
    ("mutant", "seed", "message"),
    [
        ("lost-deletion", 2, "200 s after the last change"),
        ("former-home", 1, "of a home that the namespace doesn't belong to"),
        ("deleted-home", 4, "of a home that the namespace doesn't belong to"),
        ("recreated-namespace", 50, "of a home that the namespace doesn't belong to"),
        ("deleted-secret", 2, "of a home that the namespace doesn't belong to"),
        ("no-version", 100, "someone else's Secret was changed"),
    ],
)
def test_a_mutant_is_detected(mutant: str, seed: int, message: str) -> None:
    done = simulate("--mutant", mutant, "--seed", str(seed))
    assert done.returncode == 1
    assert message in done.stderr


def test_a_seed_reproduces_a_failure() -> None:
    one, two = (simulate("--mutant", "former-home") for _ in range(2))
    assert one.stderr.startswith("seed ")
    assert one.stderr == two.stderr
