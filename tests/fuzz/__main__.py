"""Fuzzes the code that reads input from outside: `python -m fuzz --runs 1000000 [TARGET...]`; defaults to all."""

import argparse
import platform
import sys

from fuzz.runner import SERVER_TARGETS, TARGETS, Result, is_available, run, table

_RUNS = 1_000_000
#: A target that uses an API server gets fewer inputs by this factor, because requests are slow.
_SERVER_FACTOR = 200


def main() -> int:
    """Run the targets and print the table; fail if one has findings or didn't complete."""
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join([*TARGETS, *SERVER_TARGETS]))
    parser.add_argument(
        "--runs", type=int, default=_RUNS, help="inputs for each target; 1/200 of it if the target uses an API server"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed, if it isn't 0, repeats a run")
    options = parser.parse_args()
    if unknown := sorted({*options.targets} - {*TARGETS, *SERVER_TARGETS}):
        parser.error(f"unknown target {', '.join(unknown)}; choose from {', '.join([*TARGETS, *SERVER_TARGETS])}")
    if not is_available():
        version = platform.python_version()
        print(
            f"make fuzz needs atheris, which has no wheel for Python {version} on {sys.platform} {platform.machine()};"
            " use Python 3.11 to 3.13 on Linux x86_64. `make test-unit` replays the corpora on any Python.",
            file=sys.stderr,
        )
        return 1
    results = []
    for target in options.targets or [*TARGETS, *SERVER_TARGETS]:
        runs = max(options.runs // _SERVER_FACTOR, 1) if target in SERVER_TARGETS else options.runs
        print(f"{target}: {runs:,} inputs …", file=sys.stderr)
        results.append(run(target, runs, seed=options.seed))
    print(table(results))
    failed = [result for result in results if result.findings or not result.complete]
    for result in failed:
        _report(result)
    return 1 if failed else 0


def _report(result: Result) -> None:
    inputs = ", ".join(map(str, result.findings)) or "none; the process ended early"
    print(f"{result.target}: log: {result.log}; inputs: {inputs}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
