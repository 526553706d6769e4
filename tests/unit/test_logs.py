"""How our processes log."""

import logging

import pytest

from devbox_secrets import logs


def as_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the root logger as it is in a new process; not by a fixture, after which pytest adds handlers of its own."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)


@pytest.mark.parametrize(("level", "others"), [("DEBUG", "INFO"), ("INFO", "INFO"), ("ERROR", "ERROR")])
def test_what_we_stand_on_never_logs_at_debug(
    level: str, others: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_new(monkeypatch)
    logs.log(level, ["chatty"])
    assert logging.getLogger("chatty").getEffectiveLevel() == getattr(logging, others)
    logging.getLogger("ours").log(getattr(logging, level), "said")
    out, err = capsys.readouterr()
    assert (out, err.endswith(f" {level} ours: said\n")) == ("", True)


def test_records_are_lines_of_standard_output_at_every_level_and_no_part_of_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_new(monkeypatch)
    logs.log("ERROR", [])
    logs.records("records").info("%s", '{"a": 1}')
    assert capsys.readouterr() == ('{"a": 1}\n', "")
