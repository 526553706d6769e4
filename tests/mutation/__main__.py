"""Mutates the pure packages, and fails if a mutant survives that isn't listed: `python -m mutation`.

mutmut expects the sources in a folder `src` and writes files next to them. So it runs in a folder outside the tree,
with links to the sources and the tests. There, the tests import the mutated sources instead of the installed wheel.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from mutation.report import LISTED, Mutant, compare, read_change, read_list, read_results, table

_ROOT = Path(__file__).parents[2]
#: In this checkout's virtual environment, so that `make clean` removes it.
_FOLDER = Path(sys.prefix) / "mutation"
_LINKS = {"src": "operator"} | {name: name for name in ("tests", "crds", "docs", "pyproject.toml")}


def main() -> int:
    """Run mutmut, and print the table and the differences from the list."""
    parser = argparse.ArgumentParser(prog="mutation")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="mutants, such as 'devbox_secrets.crypto.*'")
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1, help="how many to run at once")
    options = parser.parse_args()
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir()
    for name, target in _LINKS.items():
        (_FOLDER / name).symlink_to(_ROOT / target)
    run = ("run", "--max-children", str(options.children))
    _mutmut(*run, *options.patterns, stdout=None)
    # A busy machine can be the reason for a timeout, so only the second one counts.
    if timeouts := [each.name for each in _results() if each.status == "timeout"]:
        _mutmut(*run, *timeouts, stdout=None)
    mutants = [each for each in _results() if each.status != "not checked"]
    reasons = read_list(LISTED.read_text())
    survivors = [(each, read_change(each, _mutmut("show", each.name))) for each in mutants if each.survives]
    print(table(mutants, Counter(mutant.package for mutant, change in survivors if change in reasons)))
    problems = compare((change for _, change in survivors), reasons, is_complete=not options.patterns)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _results() -> list[Mutant]:
    return read_results(_mutmut("results", "--all", "true"))


def _mutmut(*arguments: str, stdout: int | None = subprocess.PIPE) -> str:
    program = Path(sys.executable).with_name("mutmut")
    done = subprocess.run([program, *arguments], cwd=_FOLDER, stdout=stdout, text=True, check=True)
    return done.stdout or ""


if __name__ == "__main__":
    sys.exit(main())
