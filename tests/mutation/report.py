"""Parses mutmut's output and compares the surviving mutants with the list of equivalent mutants."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LISTED = Path(__file__).with_name("equivalent.toml")

#: A mutant's name, with the function as `x_function` or `xǁClassǁmethod`.
_NAME = re.compile(r"(?P<module>[\w.]+)\.x(?:_|ǁ(?P<owner>\w+)ǁ)(?P<function>\w+)__mutmut_\d+")
_RESULT = re.compile(r"^ +(\S+__mutmut_\d+): (.+)$", re.MULTILINE)
#: A mutant with an infinite loop is detected, because its test times out.
_KILLED = frozenset({"killed", "timeout", "segfault", "caught by type check"})


@dataclass(frozen=True)
class Mutant:
    """A change of one function, and the result of its tests."""

    name: str
    status: str

    @property
    def survives(self) -> bool:
        """Whether no test detected it."""
        return self.status not in _KILLED

    @property
    def package(self) -> str:
        """The package that contains it."""
        return self.function.removeprefix("devbox_secrets.").partition(":")[0].rpartition(".")[0]

    @property
    def function(self) -> str:
        """The changed function: `module:function` or `module:Class.method`."""
        found = _NAME.fullmatch(self.name)
        assert found, self.name
        return f"{found['module']}:{found['owner'] + '.' if found['owner'] else ''}{found['function']}"


@dataclass(frozen=True)
class Change:
    """A mutant's change as text. Unlike mutmut's numbers, it stays the same if other code changes."""

    function: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.function}\n  - {self.before}\n  + {self.after}"


def read_results(text: str) -> list[Mutant]:
    """Parse the output of `mutmut results --all true`."""
    return [Mutant(name, status) for name, status in _RESULT.findall(text)]


def read_change(mutant: Mutant, text: str) -> Change:
    """Parse the output of `mutmut show` for a mutant."""
    lines = [line for line in text.splitlines() if not line.startswith(("---", "+++", "@@", "#"))]
    before, after = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Change(mutant.function, before, after)


def read_list(text: str) -> dict[Change, str]:
    """Parse the list; return the reason of each change."""
    return {
        Change(function, entry["before"], after): entry["reason"]
        for function, entries in tomllib.loads(text).items()
        for entry in entries
        for after in entry["after"]
    }


def compare(survivors: Iterable[Change], reasons: Mapping[Change, str], *, is_complete: bool) -> list[str]:
    """Return a message for each survivor that isn't listed and, if all mutants were run, each listed one that died."""
    found = set(survivors)
    problems = [f"not detected and not listed: {change}" for change in sorted(found - reasons.keys(), key=str)]
    if is_complete:
        gone = sorted(reasons.keys() - found, key=str)
        problems += [f"listed, but detected: {change}" for change in gone]
    return problems


def table(mutants: Sequence[Mutant], listed: Mapping[str, int]) -> str:
    """Format the counts of each package as a table; `listed` is the number of survivors in the list, by package."""
    counts = Counter(mutant.package for mutant in mutants)
    survived = Counter(mutant.package for mutant in mutants if mutant.survives)
    lines = [f"{'PACKAGE':<20}  MUTANTS  KILLED  PERCENT  LISTED  NEW"]
    for package in [*sorted(counts), "all"]:
        total, left = (sum(it.values()) if package == "all" else it[package] for it in (counts, survived))
        known = sum(listed.values()) if package == "all" else listed.get(package, 0)
        percent = 100 * (total - left) / total if total else 0
        lines.append(f"{package:<20}  {total:>7}  {total - left:>6}  {percent:>7.1f}  {known:>6}  {left - known:>3}")
    return "\n".join(lines)
