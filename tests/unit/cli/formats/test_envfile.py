"""The lines of a .env file: which are accepted, and why others are rejected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbox_secrets.api.validation import VARIABLE_MAX_BYTES
from devbox_secrets.cli.formats.envfile import Line, read

NO_NAME = (
    "invalid name of an environment variable: use letters, digits and _,"
    " not starting with a digit, such as GITHUB_TOKEN"
)
NO_LINE = "not NAME=value, or a quote is missing"
NUL = (
    "the value of A contains a NUL byte, which environment variables can't contain; encode binary data first, for"
    " example with base64"
)
EMPTY = "the value is empty; set a value, remove the line, or pass --allow-empty"
REFERS = "the value refers to another variable with ${…}; expand it, or pass --literal"


def lines_of(text: str, *, literal: bool = False, allow_empty: bool = False) -> list[Line]:
    return read(text, literal=literal, allow_empty=allow_empty)


@pytest.mark.parametrize(
    ("text", "place", "value"),
    [
        ("A=1", "1", "1"),
        ("\n\n# a comment\n\nA=1\n", "5", "1"),
        ("export A=1", "1", "1"),
        ("A = 1", "1", "1"),
        ("A=one two  # not this", "1", "one two"),
        ("A='one # two'", "1", "one # two"),
        ('A="one\\ntwo"', "1", "one\ntwo"),
        ('A="one\ntwo"\n', "1-2", "one\ntwo"),
        ('\n# x\nA="one\r\ntwo"\r\n', "3-4", "one\ntwo"),
        ('A="one\rtwo"\r', "1-2", "one\ntwo"),
        ("A='it\\'s'", "1", "it's"),
        ("A=$HOME", "1", "$HOME"),
        ("A=1\r\n", "1", "1"),
    ],
)
def test_a_line_is_read_as_python_dotenv_reads_it(text: str, place: str, value: str) -> None:
    (line,) = lines_of(text)
    assert (line.place, line.variable, line.value.get_secret_value().decode()) == (place, "A", value)
    assert line.refusal == ""


@pytest.mark.parametrize(
    ("text", "variable", "refusal", "damaged"),
    [
        ("canary", "", "no = and no value", True),
        ("1A=canary", "", "invalid name before the =", True),
        ("can-ary=1", "", NO_NAME, False),
        ("can.ary='", "", NO_LINE, True),
        ("A='canary", "A", NO_LINE, True),
        ("=canary", "", NO_LINE, True),
        ("A=${B}canary", "A", REFERS, False),
        ("A='${B:-canary}'", "A", REFERS, False),
        ("A=", "A", EMPTY, False),
        ("A='  '", "A", EMPTY, False),
        (
            "A=canary\0",
            "A",
            NUL,
            True,
        ),
        (
            "A=" + "x" * VARIABLE_MAX_BYTES,
            "A",
            "A and its value take 131,075 bytes; the maximum is 131,072",
            False,
        ),
    ],
)
def test_a_line_that_cannot_be_sealed_is_rejected_without_repeating_it(
    text: str, variable: str, refusal: str, damaged: bool
) -> None:
    (line,) = lines_of(text)
    assert (line.variable, line.refusal, line.damaged) == (variable, refusal, damaged)
    assert "canary" not in repr(line)


@pytest.mark.parametrize("text", ["A='canary", 'A=canary"', "A=canary\ncanary"])
def test_a_damaged_line_has_no_value(text: str) -> None:
    (line,) = lines_of(text)
    assert (line.variable, line.damaged, line.value.get_secret_value()) == ("A", True, b"")


def test_a_rejected_line_keeps_its_reason_if_it_is_also_overridden() -> None:
    assert [line.refusal for line in lines_of("A=${B}\nA=2\n")] == [REFERS, ""]


def test_the_last_line_of_a_variable_counts_even_if_it_is_damaged() -> None:
    assert [(line.variable, line.refusal) for line in lines_of("A=1\nB=2\nA=3\nA='\nB=4\n")] == [
        ("A", "overridden by line 4"),
        ("B", "overridden by line 5"),
        ("A", "overridden by line 4"),
        ("A", NO_LINE),
        ("B", ""),
    ]


def test_a_reference_can_be_kept_literally() -> None:
    (line,) = lines_of("A=${B}", literal=True)
    assert (line.value.get_secret_value(), line.refusal) == (b"${B}", "")


@pytest.mark.parametrize("text", ["A=", "A=''", "A= # nothing"])
def test_an_empty_value_can_be_allowed(text: str) -> None:
    (line,) = lines_of(text, allow_empty=True)
    assert (line.variable, line.value.get_secret_value(), line.refusal) == ("A", b"", "")


@given(st.text())
def test_any_text_is_read_and_no_value_is_shown(text: str) -> None:
    for line in lines_of(text.encode("utf-8", "replace").decode()):
        assert 1 <= line.first <= line.last
        assert line.refusal or not line.damaged
        assert repr(line.value) in {"SecretBytes(b'')", "SecretBytes(b'**********')"}
