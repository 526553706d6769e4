"""How our processes log, each in a process of its own: the test's own has handlers already."""

import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys
from devbox_secrets import logs
logs.log(sys.argv[1], ["chatty"])
logs.records("records").info("%s", '{"a": 1}')
for name in ("ours", "chatty"):
    for level in ("DEBUG", "INFO", "ERROR"):
        logging.getLogger(name).log(getattr(logging, level), "said")
"""


@pytest.mark.parametrize(
    ("level", "ours", "chatty"),
    [("DEBUG", ["DEBUG", "INFO", "ERROR"], ["INFO", "ERROR"]), ("ERROR", ["ERROR"], ["ERROR"])],
)
def test_what_we_stand_on_never_logs_at_debug_and_records_are_no_part_of_the_log(
    level: str, ours: list[str], chatty: list[str]
) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, level], capture_output=True, text=True, check=True)
    assert done.stdout == '{"a": 1}\n'
    said = [line.split(" ", 2)[2] for line in done.stderr.splitlines()]
    assert said == [f"{each} ours: said" for each in ours] + [f"{each} chatty: said" for each in chatty]
