"""Writes docs/benchmarks.md and its plots: runs each benchmark of the page several times for medians and spread.

    PYTHONPATH=tests python benchmarks/report.py [--rounds 3]

The benchmarks take turns, so that a change in the machine's load affects all of them.
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import matplotlib as mpl
from matplotlib import pyplot as plt

from harness.tools import KUBERNETES_VERSION
from support import TABLES, arguments, say

_DOCS = Path(__file__).parents[1] / "docs"
_NUMBER = re.compile(r"([\d,]+(?:\.\d+)?)(%?)")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of the page: its program, arguments, heading and introduction."""

    name: str
    heading: str
    text: str
    arguments: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command that runs it."""
        return " ".join(["PYTHONPATH=tests python", f"benchmarks/{self.name}.py", *self.arguments])


@dataclass(frozen=True)
class Table:
    """A benchmark's table with the cells of all rounds."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Sequence[str]]]
    """The cells of all rounds, by row and column."""

    def numbers(self, row: str, column: str) -> list[float]:
        """Return a cell's number in each round."""
        at = list(self.header).index(column)
        cells = next(cells for cells in self.rows if cells[0][0] == row)[at]
        return [number for cell in cells if (number := _number(cell)) is not None]


BENCHMARKS = (
    Benchmark(
        "sync",
        "Sync",
        "Many AccountSecrets are created at once. The floor is a plain client that makes the same writes, one creation"
        " and one status each, to a copy of the CRD that no operator watches.",
        ("--count", "4000"),
    ),
    Benchmark(
        "latency",
        "One value",
        "The time from `kubectl apply` of one value until the account Secret has it, when nothing else happens and"
        " while many other values are synced.",
        ("--count", "4000"),
    ),
    Benchmark(
        "restart",
        "Restart",
        "The operator restarts in a cluster where nothing changed. It must write nothing.",
        ("--count", "4000"),
    ),
    Benchmark(
        "fanout",
        "One account, many namespaces",
        "One value of a large account changes. The floor is a plain client that applies the same number of Secrets."
        " Meanwhile, values of another account are applied.",
    ),
    Benchmark(
        "gateway",
        "Gateway",
        "One gateway process, compared with equivalent requests to the API server.",
    ),
    Benchmark(
        "peers",
        "Comparison with sealed-secrets",
        "Both controllers sync the same number of secrets on the same control plane. sealed-secrets v0.40.0 runs"
        " without its request limit, and with its defaults for one restart. Each restarts while one new secret waits.",
    ),
)

PLOTS: Mapping[str, tuple[str, str, Sequence[tuple[str, str, str, str]]]] = {
    "benchmarks-peers.svg": (
        "Secrets synced per second",
        "per second",
        [
            ("API server, plain client", "peers", "plain client", "per second"),
            ("devbox-secrets", "peers", "devbox-secrets", "per second"),
            ("sealed-secrets, no limit", "peers", "sealed-secrets, no limit", "per second"),
        ],
    ),
    "benchmarks-rates.svg": (
        "Share of the API server's own rate",
        "%",
        [
            ("sync", "sync", "share of the floor's rate", "per second"),
            ("one value, many namespaces", "fanout", "share of the floor's rate", "per second"),
            ("gateway: create", "gateway", "create", "share"),
            ("gateway: update", "gateway", "update", "share"),
            ("gateway: get", "gateway", "get", "share"),
        ],
    ),
}
"""By file: the title, the unit and the bars; a bar is a label, a benchmark, and a row and a column of its table."""


def main() -> None:
    """Run the benchmarks and write the page."""
    rounds: int = arguments(__doc__, {"rounds": 3}).rounds
    results: dict[str, list[Sequence[Sequence[str]]]] = {each.name: [] for each in BENCHMARKS}
    for number in range(1, rounds + 1):
        for each in BENCHMARKS:
            say(f"round {number} of {rounds}: {each.name}")
            results[each.name].append(_run(each))
    tables = {name: _merged(runs) for name, runs in results.items()}
    for file, (title, unit, bars) in PLOTS.items():
        _plot(_DOCS / file, title, unit, {label: tables[name].numbers(row, at) for label, name, row, at in bars})
    (_DOCS / "benchmarks.md").write_text("\n".join(_page(tables, rounds)))


def _run(benchmark: Benchmark) -> Sequence[Sequence[str]]:
    """Run a benchmark and return its table: the title, the header and the rows."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as results:
        program = Path(__file__).with_name(f"{benchmark.name}.py")
        env = {**os.environ, TABLES: results.name}
        subprocess.run([sys.executable, program, *benchmark.arguments], env=env, check=True)
        found: Sequence[Sequence[str]] = json.load(results)
        return found


def _merged(runs: Sequence[Sequence[Sequence[str]]]) -> Table:
    (title,), header, *_ = runs[0]
    rows = [list(zip(*row, strict=True)) for row in zip(*(run[2:] for run in runs), strict=True)]
    return Table(title, header, rows)


def _number(cell: str) -> float | None:
    found = _NUMBER.fullmatch(cell)
    return float(found[1].replace(",", "")) if found else None


def _cell(cells: Sequence[str]) -> str:
    """Return the median of a cell's rounds, with the minimum and the maximum if they differ."""
    numbers = [number for cell in cells if (number := _number(cell)) is not None]
    if len(set(cells)) == 1 or len(numbers) < len(cells):
        return cells[0]
    digits = max(len(cell.rstrip("%").partition(".")[2]) for cell in cells)
    middle, least, greatest = (f"{each:,.{digits}f}" for each in (median(numbers), min(numbers), max(numbers)))
    return f"{middle}{'%' if cells[0].endswith('%') else ''} ({least} to {greatest})"


def _page(tables: Mapping[str, Table], rounds: int) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    spread = f"the median of {rounds} runs, with the minimum and the maximum in parentheses"
    yield (
        f"Each figure is {spread if rounds > 1 else 'from one run'}. The API server, etcd, the clients and the operator"
        " share one machine, so compare the ratios within a run, not the rates."
    )
    yield ""
    versions = f"Kubernetes {KUBERNETES_VERSION}, Python {platform.python_version()}"
    yield f"Machine: {_machine()}. {versions}, {datetime.now(UTC):%B %Y}."
    yield ""
    yield "`make bench-report` runs them and writes this page."
    for each in BENCHMARKS:
        table = tables[each.name]
        yield from ("", f"## {each.heading}", "", each.text, "", "```console", f"$ {each.command}", "```", "")
        for file, (title, _, bars) in PLOTS.items():
            if bars[0][1] == each.name:
                yield from (f"![{title}]({file})", "")
        yield from (f"{table.title}:", "")
        yield f"| {' | '.join(table.header)} |"
        yield "|---" + "|--:" * (len(table.header) - 1) + "|"
        for row in table.rows:
            yield f"| {' | '.join(map(_cell, row))} |"
    yield ""


def _machine() -> str:
    models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    total = re.findall(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    model = models[0] if models else platform.machine()
    return f"{os.cpu_count()} cores of {model}, {int(total[0]) >> 20} GiB of memory, Linux {platform.release()}"


def _plot(file: Path, title: str, unit: str, bars: Mapping[str, Sequence[float]]) -> None:
    """Draw horizontal bars of medians, with lines from the minimum to the maximum."""
    middles = [median(numbers) for numbers in bars.values()]
    below = [middle - min(numbers) for middle, numbers in zip(middles, bars.values(), strict=True)]
    above = [max(numbers) - middle for middle, numbers in zip(middles, bars.values(), strict=True)]
    figure, axes = plt.subplots(figsize=(7, 0.8 + 0.45 * len(bars)), layout="constrained")
    drawn = axes.barh(list(bars), middles, xerr=(below, above), color="#3274d9", ecolor="#7a7a7a", capsize=3)
    axes.bar_label(drawn, [f"{middle:.0f}" for middle in middles], label_type="center", color="white")
    axes.invert_yaxis()
    axes.set_title(title)
    axes.set_xlabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    with mpl.rc_context({"svg.hashsalt": file.name}):  # the same numbers give the same file
        figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
