"""How our processes log."""

import json
import logging
from datetime import datetime

import pytest

from devbox_secrets.serving import logs


def reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the root logger as in a new process; not in a fixture, after which pytest would add its handlers."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)


@pytest.mark.parametrize(("level", "others"), [("DEBUG", "INFO"), ("INFO", "INFO"), ("ERROR", "ERROR")])
def test_libraries_never_log_at_debug(
    level: str, others: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reset(monkeypatch)
    logs.configure(level)
    assert logging.getLogger("kopf").getEffectiveLevel() == getattr(logging, others)
    logging.getLogger("ours").log(getattr(logging, level), "said")
    out, err = capsys.readouterr()
    assert (out, err.endswith(f" {level} ours: said\n")) == ("", True)


def test_a_library_can_have_its_own_level(monkeypatch: pytest.MonkeyPatch) -> None:
    reset(monkeypatch)
    logs.configure("INFO", libraries={"noisy.objects": logging.WARNING})
    assert not logging.getLogger("noisy.objects").isEnabledFor(logging.INFO)
    assert logging.getLogger("noisy.other").isEnabledFor(logging.INFO)


def test_json_is_one_object_per_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reset(monkeypatch)
    logs.configure("INFO", "json")
    logging.getLogger("ours").warning("%d of them:\nall", 2)
    line = json.loads(capsys.readouterr().err)
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line == {"level": "WARNING", "logger": "ours", "message": "2 of them:\nall"}


def test_json_has_the_traceback_in_a_field(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reset(monkeypatch)
    logs.configure("INFO", "json")
    try:
        int("one")
    except ValueError:
        logging.getLogger("ours").exception("it failed")
    line = json.loads(capsys.readouterr().err)
    assert line["message"] == "it failed"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert "\nValueError: " in line["exception"]


def test_records_are_lines_on_standard_output_at_every_level_and_not_part_of_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reset(monkeypatch)
    logs.configure("ERROR")
    logs.records("records").info("%s", '{"a": 1}')
    assert capsys.readouterr() == ('{"a": 1}\n', "")
