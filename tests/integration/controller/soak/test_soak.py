"""The soak: the system passes a short one, and each mutant of the operator fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from integration.controller.soak.actions import Action, Chooser
from integration.controller.soak.model import AccountSecret, Model, Namespace

TESTS = Path(__file__).parents[3]


def soak(*options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-m", "integration.controller.soak", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_system_is_as_the_model_says_whatever_fails() -> None:
    done = soak("--seconds", "60")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


# With these seeds and faults it takes a round.
@pytest.mark.parametrize(
    ("mutant", "seed", "fault", "message"),
    [
        ("no-fencing", 1, "cut-off-leader", "older than number"),
        ("ignored-relist", 1714, "expire-watches", "nobody's values"),
        ("lost-deletion", 3, "renew-certificates", "nobody's values"),
        ("wrong-member", 18, "renew-certificates", "after the last change"),
        ("stale-namespace", 180, "freeze-watches", "of a home that the namespace didn't belong to"),
    ],
)
def test_a_mutant_is_detected(mutant: str, seed: int, fault: str, message: str) -> None:
    done = soak("--mutant", mutant, "--seed", str(seed), "--fault", fault, "--quiet-seconds", "15")
    assert done.returncode == 1
    assert message in done.stderr


def test_a_seed_repeats_the_actions() -> None:
    model = Model({"soak-a": Namespace(1)}, {("soak-a", "x"): AccountSecret("X", None, 1)})

    def some(seed: int) -> list[Action]:
        chooser = Chooser(seed)
        return [chooser.choose(model) for _ in range(100)]

    assert some(1) == some(1) != some(2)
