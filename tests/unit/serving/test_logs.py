"""How our processes log."""

import logging

import pytest

from devbox_secrets.serving import logs


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
    logs.configure(level)
    assert logging.getLogger("kopf").getEffectiveLevel() == getattr(logging, others)
    logging.getLogger("ours").log(getattr(logging, level), "said")
    out, err = capsys.readouterr()
    assert (out, err.endswith(f" {level} ours: said\n")) == ("", True)


def test_a_library_can_have_a_level_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    as_new(monkeypatch)
    logs.configure("INFO", {"noisy.objects": logging.WARNING})
    assert not logging.getLogger("noisy.objects").isEnabledFor(logging.INFO)
    assert logging.getLogger("noisy.other").isEnabledFor(logging.INFO)


def test_records_are_lines_of_standard_output_at_every_level_and_no_part_of_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_new(monkeypatch)
    logs.configure("ERROR")
    logs.records("records").info("%s", '{"a": 1}')
    assert capsys.readouterr() == ('{"a": 1}\n', "")
