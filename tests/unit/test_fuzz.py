"""Replays the corpora of `make fuzz` on any Python; runs each target briefly if atheris is installed."""

import importlib
import sys
from pathlib import Path

import pytest

from fuzz import __main__ as program
from fuzz.choices import Choices
from fuzz.runner import CORPORA, TARGETS, Result, is_available, run, table

#: As many as take a few seconds.
RUNS = 2_000

needs_atheris = pytest.mark.skipif(not is_available(), reason="atheris has no wheel for this Python or machine")


def corpora(*targets: str) -> list[Path]:
    return [path for target in targets for path in sorted((CORPORA / target).iterdir())]


@pytest.mark.parametrize("path", corpora(*TARGETS), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_of_the_corpora_passes_the_check(path: Path) -> None:
    importlib.import_module(f"fuzz.targets.{path.parent.name}").check(path.read_bytes())


@needs_atheris
@pytest.mark.parametrize("target", TARGETS)
def test_a_short_run_finds_nothing(target: str, tmp_path: Path) -> None:
    result = run(target, RUNS, seed=1, folder=tmp_path)
    assert result.complete, result.log.read_text()
    assert result.findings == ()
    assert result.inputs >= RUNS


@needs_atheris
def test_a_planted_bug_is_found_and_its_input_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text(
        "def check(data):\n    if data[:2] == b'!?':\n        raise ValueError('planted')\n"
    )
    monkeypatch.setenv("PYTHONPATH", ":".join([str(tmp_path), *sys.path]))
    result = run("planted", 1_000_000, seed=1, module="planted", folder=tmp_path)
    assert not result.complete
    (finding,) = result.findings
    assert finding.read_bytes().startswith(b"!?")
    assert "planted" in result.log.read_text()


def test_the_table_has_a_row_for_each_target() -> None:
    results = [
        Result("envelope", 1_000_000, 61.4, 12, (), Path("log"), complete=True),
        Result("backup", 20, 0.2, 0, (Path("crash"),), Path("log"), complete=False),
    ]
    assert table(results).splitlines() == [
        "TARGET       INPUTS  SECONDS  NEW COVERAGE  FINDINGS",
        "envelope  1,000,000       61           +12         0",
        "backup           20        0            +0         1",
    ]


def test_without_atheris_fuzzing_fails_with_an_explanation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["fuzz", "envelope"])
    assert program.main() == 1
    assert "make fuzz needs atheris, which has no wheel for Python" in capsys.readouterr().err


def test_the_same_bytes_result_in_the_same_choices_and_no_bytes_in_the_first_options() -> None:
    one, two, none = Choices(b"\x01\x03abc\xff"), Choices(b"\x01\x03abc\xff"), Choices(b"")
    for choices in (one, two):
        assert choices.of("xyz") == "y"
        assert choices.text() == "abc"
        assert choices.chance(256)
        assert choices.rest() == b""
    assert (none.of("xyz"), none.text(), none.chance(2), none.below(1 << 16)) == ("x", "", False, 0)
