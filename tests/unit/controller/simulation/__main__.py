"""Simulates the controller: `python -m unit.controller.simulation --steps 1000000 --seed 1`."""

import argparse
import os
import sys
import time

from unit.controller.simulation.mutants import MUTANTS
from unit.controller.simulation.simulation import Parts, run
from unit.controller.simulation.world import Violation

#: For each seed; few, so that a failure is reproduced quickly.
_STEPS = 10_000


def main() -> str | None:
    """Run seeds for at least this many steps; return the first violation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutant", choices=MUTANTS, help="run an operator that lacks one check")
    options = parser.parse_args()
    started, steps, seed = time.monotonic(), 0, options.seed
    while steps < options.steps:
        try:
            steps += run(seed, _STEPS, MUTANTS.get(options.mutant, Parts()))
        except Violation as violation:
            return f"seed {seed}: {violation}"
        seed += 1
    print(f"{steps} steps, seeds {options.seed} to {seed - 1}, {time.monotonic() - started:.0f} s")  # noqa: T201 - a program
    return None


if __name__ == "__main__":
    # So that sets of names have the same order each time.
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "unit.controller.simulation", *sys.argv[1:]])  # noqa: S606
    sys.exit(main())
