"""The output: tables on a terminal and in a file, ages, progress and confirmation."""

import io
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from fcntl import ioctl

import pytest
import typer

from devbox_secrets.cli.kit.output import age, confirm, note, print_table, progress
from devbox_secrets.errors import NotConfirmed
from unit.cli.timing import growth

HEADERS = ["VARIABLE", "READY", "DESCRIPTION"]


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Iterator[io.StringIO]:
    """Make standard output a terminal of this width; at the end, the yielded text contains what was printed."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = io.StringIO()
    with os.fdopen(slave, "w") as screen, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        patch.setenv("TERM", "xterm")
        patch.delenv("NO_COLOR", raising=False)
        patch.setenv("COLUMNS", str(columns))
        yield shown
        screen.flush()
        os.set_blocking(master, False)
        raw = b""
        with suppress(BlockingIOError):
            while more := os.read(master, 1 << 16):
                raw += more
        shown.write(raw.decode().replace("\r\n", "\n"))
    os.close(master)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_in_a_file_each_row_is_one_line_without_colors(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEADERS, [["GITHUB_TOKEN", "yes", "x" * 300], ["A", "no: UnknownKey", ""]])
    assert capsys.readouterr().out.splitlines() == [
        "VARIABLE       READY            DESCRIPTION",
        f"GITHUB_TOKEN   yes              {'x' * 300}",
        "A              no: UnknownKey",
    ]


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_on_a_terminal_lines_fit_and_no_character_is_lost(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    name, text = "A_VARIABLE_" * 20, "".join(f"word{number} " for number in range(60))
    with terminal(monkeypatch, columns) as shown:
        print_table(HEADERS, [[name, "yes", text], ["B", "no: TooLarge", "日本語" * 30]])
    lines = plain(shown.getvalue()).splitlines()
    if columns >= 80:
        assert max(map(len, lines)) <= columns
    else:  # too narrow for columns: the terminal wraps the rows
        assert len(lines) == 3
    letters = sorted("".join(lines))
    wanted = sorted(name + "yes" + text + "B" + "no: TooLarge" + "日本語" * 30 + "".join(HEADERS))
    assert [each for each in letters if each != " "] == [each for each in wanted if each != " "]


def test_on_a_terminal_text_is_wrapped_at_words_and_names_are_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["A_VARIABLE_OF_THIRTY_CHARACTERS", "no: TooLarge", "a description that is too long for its column"]]
    with terminal(monkeypatch, 80) as shown:
        print_table(HEADERS, rows)
    assert [line.rstrip() for line in plain(shown.getvalue()).splitlines()] == [
        "VARIABLE                          READY          DESCRIPTION",
        "A_VARIABLE_OF_THIRTY_CHARACTERS   no: TooLarge   a description that is too long",
        "                                                 for its column",
    ]


def test_if_names_would_be_broken_each_row_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    row = ["A_VARIABLE" * 4, "B_VARIABLE" * 4, "C_VARIABLE" * 4, "D_VARIABLE" * 4]
    with terminal(monkeypatch, 80) as shown:
        print_table("ABCD", [row])
    assert plain(shown.getvalue()).splitlines()[1] == "   ".join(row)


def test_on_a_terminal_states_are_colored_only_in_their_column(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with terminal(monkeypatch, 80) as shown:
        print_table(HEADERS, [["yes", "no: TooLarge", "yes"]])
    assert re.findall(r"\x1b\[(3\d)m([a-z]+)", shown.getvalue()) == [("31", "no")]


def test_control_characters_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEADERS, [["A", "yes", "\x1b]0;title\x07\n\u202e[red]x[/red]"]])
    assert capsys.readouterr().out.splitlines()[1] == "A          yes      ]0;title   [red]x[/red]"


def test_the_time_grows_with_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[f"VARIABLE_{number}", "yes", "a description" * (number % 7)] for number in range(10_000)]
    with open(os.devnull, "w", encoding="utf-8") as nowhere, monkeypatch.context() as patch:  # noqa: PTH123 - a device
        patch.setattr(sys, "stdout", nowhere)
        assert growth(lambda count: print_table(HEADERS, rows[:count]), 2_500) < 8


@pytest.mark.parametrize(
    ("when", "text"),
    [
        (None, ""),
        ("2026-01-10T11:59:59Z", "1s"),
        ("2026-01-10T11:58:01Z", "119s"),
        ("2026-01-10T11:58:00Z", "2m"),
        ("2026-01-10T10:00:00Z", "2h"),
        ("2026-01-08T12:00:00Z", "2d"),
        ("2026-01-10T12:00:05Z", "0s"),
        ("0000-01-01T00:00:00Z", "<unknown>"),
        ("10000-01-01T04:00:00Z", "<unknown>"),
    ],
)
def test_an_age_is_shown_as_kubectl_does(when: str | None, text: str) -> None:
    assert age(when, datetime(2026, 1, 10, 12, tzinfo=UTC)) == text


def test_without_a_terminal_no_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("pods") as count:
        count(5)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_progress_is_shown_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.5, 2.0])
    with terminal(monkeypatch, 80) as shown:
        monkeypatch.setattr(sys, "stderr", sys.stdout)
        monkeypatch.setattr("devbox_secrets.cli.kit.output.time.monotonic", lambda: next(clock, 3.0))
        with progress("pods") as count:
            count(250)
            count(1000)
        monkeypatch.undo()
    assert "1,250 pods …" in plain(shown.getvalue())


def test_a_note_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    note("something besides")
    assert capsys.readouterr() == ("", "devbox-secrets: something besides\n")


# --- Confirmation


def test_yes_skips_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    confirm("Go on?", yes=True, unasked="pass --yes")


@pytest.mark.parametrize("stdin", [None, io.StringIO("y\n")])
def test_without_a_terminal_the_message_names_the_option(
    monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(NotConfirmed, match="stdin is not a terminal; pass --yes"):
        confirm("Go on?", yes=False, unasked="pass --yes")


@pytest.mark.parametrize(
    ("answer", "confirmed"),
    [("y", True), ("YES ", True), ("n", False), ("", False), ("yesterday", False)],
)
def test_only_yes_confirms_and_the_prompt_is_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], answer: str, *, confirmed: bool
) -> None:
    master, slave = pty.openpty()
    os.write(master, f"{answer}\n".encode())
    with os.fdopen(slave) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        if confirmed:
            confirm("Go on?", yes=False, unasked="pass --yes")
        else:
            with pytest.raises(typer.Abort):
                confirm("Go on?", yes=False, unasked="pass --yes")
    os.close(master)
    assert capfd.readouterr() == ("", "Go on? [y/N]: ")
