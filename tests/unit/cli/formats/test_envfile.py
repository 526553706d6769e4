"""The lines of a .env file: a table of what is read, and of what is refused and why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbox_secrets.api.validation import VARIABLE_MAX_BYTES
from devbox_secrets.cli.formats.envfile import read
from devbox_secrets.errors import InvalidValue

NO_NAME = (
    "that can't be the name of an environment variable: use letters, digits and _,"
    " not starting with a digit, such as GITHUB_TOKEN"
)
NO_LINE = "it isn't NAME=value; a value with quotes needs both of them"
REFERS = "it refers to another variable with ${…}: write it out, or give --literal"


@pytest.mark.parametrize(
    ("text", "number", "value"),
    [
        ("A=1", 1, "1"),
        ("\n\n# a comment\n\nA=1\n", 5, "1"),
        ("export A=1", 1, "1"),
        ("A = 1", 1, "1"),
        ("A=", 1, ""),
        ("A=one two  # not this", 1, "one two"),
        ("A='one # two'", 1, "one # two"),
        ('A="one\\ntwo"', 1, "one\ntwo"),
        ('A="one\ntwo"\n', 1, "one\ntwo"),
        ("A='it\\'s'", 1, "it's"),
        ("A=$HOME", 1, "$HOME"),
        ("\ufeffA=1\r\n", 1, "1"),
    ],
)
def test_a_line_is_read_as_python_dotenv_reads_it(text: str, number: int, value: str) -> None:
    (line,) = read(text.encode(), literal=False)
    assert (line.number, line.variable, line.value.get_secret_value().decode()) == (number, "A", value)
    assert line.refusal == ""


@pytest.mark.parametrize(
    ("text", "variable", "refusal"),
    [
        ("canary", "", "it has no =, so no value"),
        ("1A=canary", "", NO_NAME),
        ("can-ary=1", "", NO_NAME),
        ("A='canary", "", NO_LINE),
        ("=canary", "", NO_LINE),
        ("LD_PRELOAD=canary", "LD_PRELOAD", "reserved: it could run code in every devbox, which wouldn't get it"),
        ("A=${B}canary", "A", REFERS),
        ("A='${B:-canary}'", "A", REFERS),
        (
            "A=" + "x" * VARIABLE_MAX_BYTES,
            "A",
            "A and its value take 131,075 bytes; an environment variable can have 131,072",
        ),
    ],
)
def test_a_line_that_cannot_be_sealed_is_refused_without_repeating_it(text: str, variable: str, refusal: str) -> None:
    (line,) = read(text.encode(), literal=False)
    assert (line.variable, line.refusal) == (variable, refusal)
    assert "canary" not in repr(line)


def test_of_two_lines_for_one_variable_the_last_counts() -> None:
    lines = read(b"A=1\nB=2\nA=3\n", literal=False)
    assert [(line.variable, line.refusal) for line in lines] == [
        ("A", "line 3 sets it again, and counts"),
        ("B", ""),
        ("A", ""),
    ]


def test_a_reference_can_be_taken_as_it_is() -> None:
    (line,) = read(b"A=${B}", literal=True)
    assert (line.value.get_secret_value(), line.refusal) == (b"${B}", "")


def test_a_broken_line_holds_back_no_other() -> None:
    lines = read(b"A=1\nnot this one\nB='\nC=3\n", literal=False)
    assert [(line.number, line.variable) for line in lines] == [(1, "A"), (2, ""), (3, ""), (4, "C")]


def test_what_is_no_text_is_told_by_its_place_alone() -> None:
    with pytest.raises(InvalidValue) as error:
        read(b"A=canary\xff", literal=False)
    assert str(error.value) == "the file isn't UTF-8 text: byte 9 can't be right"
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


@given(st.text())
def test_any_text_is_read_and_no_value_is_shown(text: str) -> None:
    for line in read(text.encode("utf-8", "replace"), literal=False):
        assert line.number >= 1
        assert repr(line.value) in {"SecretBytes(b'')", "SecretBytes(b'**********')"}
