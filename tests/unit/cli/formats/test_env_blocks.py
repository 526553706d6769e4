"""The blocks of a .env file: a table of damaged files, and properties of any file."""

import base64
import json
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from devbox_secrets.cli.formats.env_blocks import Block, blocks
from unit.cli.timing import growth

QUOTES = "put multi-line values in quotes"
BEGIN = f"BEGIN without END; {QUOTES}"
BRACKET = f"a bracket isn't closed on the same line; {QUOTES}"
BASE64 = f"looks like the last line of base64 text; {QUOTES}"
NO_LINE = "not NAME=value, or a quote is missing"
NO_EQUALS = "no = and no value"
NO_NAME = "invalid name before the ="
STRAY = "the value ends with a quote but doesn't start with one; put the whole value in quotes"
AFTER = "no value; it may belong to the damaged lines above"
IN_COMMENT = "the closing quote is in a comment, so a quote may be missing"


def rest(line: int) -> str:
    return f"line {line} isn't NAME=value and may be the rest of the value; {QUOTES}"


def base64_end(line: int) -> str:
    return f'line {line} may be the end of the value, in base64; {QUOTES}, or write NAME="" for an empty value'


def another(line: int) -> str:
    return (
        f"line {line}, inside the quotes, looks like another variable, so a quote may be missing; otherwise"
        " write the line breaks as \\n in double quotes, or seal the value with seal --from-file"
    )


WRAPPED = "QUJD" * 16


@pytest.mark.parametrize(
    ("text", "damaged"),
    [
        # PEM without quotes, or with one of them
        ("K=-----BEGIN KEY-----\nMIIE\nabc=\n-----END KEY-----", [(1, 4, "K", BEGIN)]),
        ("K=\n-----BEGIN KEY-----\nMIIE\nabc=\n-----END KEY-----", [(1, 5, "K", rest(2))]),
        ("K=---- BEGIN SSH2 PUBLIC KEY ----\nMIIE\nabc=\n---- END SSH2 PUBLIC KEY ----", [(1, 4, "K", BEGIN)]),
        ("K=-----BEGIN C-----\na\n-----END C-----\n-----BEGIN C-----\nabc=\n-----END C-----", [(1, 6, "K", BEGIN)]),
        ("K=-----BEGIN KEY-----\nProc-Type: 4,ENCRYPTED\n\nabc=\n-----END KEY-----", [(1, 5, "K", BEGIN)]),
        ("K=-----BEGIN KEY-----\nB=2\n-----END KEY-----", [(1, 3, "K", BEGIN)]),
        ('K="-----BEGIN KEY-----\nMIIE\nabc=\n-----END KEY-----', [(1, 4, "K", BEGIN)]),
        ('K=-----BEGIN KEY-----\nMIIE\nabc=\n-----END KEY-----"', [(1, 4, "K", BEGIN)]),
        ('K="-----BEGIN KEY-----\\nMIIE"', [(1, 1, "K", "BEGIN without END")]),
        ('K="-----BEGIN A-----\n-----END B-----"', [(1, 2, "K", "BEGIN without END")]),
        ('K="-----BEGIN A-----\n-----BEGIN B-----\n-----END B-----"', [(1, 3, "K", "BEGIN without END")]),
        ("K=-----END KEY-----", [(1, 1, "K", "END without BEGIN")]),
        # JSON without quotes
        ('C={\n  "a": "b=c",\n  "d":"e=f",\n  "g": "}"\n}', [(1, 5, "C", BRACKET)]),
        ('C={\n  "a": "}",\n  B=2\n}', [(1, 4, "C", BRACKET)]),
        ("C=[\n  1,\n  2\n]", [(1, 4, "C", BRACKET)]),
        ("C={\n  a=1\n}", [(1, 3, "C", BRACKET)]),
        ("C={ X\n  a=1\n}", [(1, 3, "C", BRACKET)]),
        ('C=\n{\n  "a": 1\n}', [(1, 4, "C", rest(2))]),
        # base64 and other text of several lines without quotes
        (f"A={WRAPPED}\n{WRAPPED}\nGhIjKl==", [(1, 3, "A", rest(2))]),
        (f"A={WRAPPED}\n{WRAPPED}\nGhIjKlM=", [(1, 3, "A", rest(2))]),
        (f"A={WRAPPED}\nGHIJKLM=", [(1, 2, "A", base64_end(2))]),
        (f"A={'QUJD' * 15}\nGHIJKLM=", [(1, 2, "A", base64_end(2))]),
        ("A=QUJD\nqUI=", [(1, 2, "A", base64_end(2))]),
        ("A=QUJD\nQQ==", [(1, 2, "A", rest(2))]),
        ('A="x"\nQQ==', [(2, 2, "", BASE64)]),
        ("A=one\ntwo", [(1, 2, "A", rest(2))]),
        ("A=one \\\n  two", [(1, 2, "A", rest(2))]),
        ("A=one\n\n# two\n\nthree", [(1, 5, "A", rest(5))]),
        # one quote too few
        ('A="one\nB="two"', [(1, 2, "A", NO_LINE)]),
        ('A="one\nB=2\nC="three"', [(1, 3, "A", NO_LINE)]),
        ('A="one\nB=2\nC=three"', [(1, 3, "A", another(2))]),
        ('A="one\nexport B = "', [(1, 2, "A", another(2))]),
        ('A="one\n# B="', [(1, 2, "A", another(2))]),
        ('A="one\nspring.url="', [(1, 2, "A", another(2))]),
        ('A="one\nabc=\ntwo"', [(1, 3, "A", another(2))]),
        ('A="-----BEGIN K-----\nB=2\n-----END K-----"', [(1, 3, "A", another(2))]),
        ("A='one\n'B'='", [(1, 2, "A", NO_LINE)]),
        ('A="one\n# say "', [(1, 2, "A", IN_COMMENT)]),
        ('A="one\n  # say "', [(1, 2, "A", IN_COMMENT)]),
        ('A="one\nB=2', [(1, 1, "A", NO_LINE)]),
        ('A=one"', [(1, 1, "A", STRAY)]),
        ("A=one'", [(1, 1, "A", STRAY)]),
        ('A=a\\"b"', [(1, 1, "A", STRAY)]),
        ('A=a"b"c"', [(1, 1, "A", STRAY)]),
        ('A=one" # two"', [(1, 1, "A", STRAY)]),
        ('A=one # two"', [(1, 1, "A", STRAY)]),
        ('A="one"two"', [(1, 1, "A", NO_LINE)]),
        ("'B\nC'=2", [(1, 2, "", NO_NAME)]),
        # what isn't an assignment
        ("canary", [(1, 1, "", NO_EQUALS)]),
        ("export canary", [(1, 1, "", NO_EQUALS)]),
        ("export # canary", [(1, 1, "", NO_LINE)]),
        ("=canary", [(1, 1, "", NO_LINE)]),
        ("1A=canary", [(1, 1, "", NO_NAME)]),
        ("--option=canary", [(1, 1, "", NO_NAME)]),
        ("\u00e4=canary", [(1, 1, "", NO_NAME)]),
        ("set A=canary", [(1, 1, "", NO_LINE)]),
        ("A: canary", [(1, 1, "", NO_LINE)]),
        ("canary\n\nFOO=", [(1, 1, "", NO_EQUALS), (3, 3, "", AFTER)]),
        ("canary\n\ncanary", [(1, 1, "", NO_EQUALS), (3, 3, "", NO_EQUALS)]),
        ("canary\n\n\ncanary\nFOO=", [(1, 1, "", NO_EQUALS), (4, 5, "", NO_EQUALS)]),
        # a file that starts with a byte order mark, appended to a damaged one
        ("A={\n}\n\ufeffB=1", [(1, 3, "A", BRACKET)]),
    ],
)
def test_damaged_lines_that_belong_together_are_one_block(text: str, damaged: list[tuple[int, int, str, str]]) -> None:
    *found, after = blocks(f"{text}\nS=2\n")
    assert (after.first, after.name, after.damage) == (text.count("\n") + 2, "S", "")
    assert [(block.first, block.last, block.name, block.damage) for block in found if block.damage] == damaged
    assert "canary" not in repr(found)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            "A='-----BEGIN KEY-----\nMIIE\nabc=\n-----END KEY-----'",
            "-----BEGIN KEY-----\nMIIE\nabc=\n-----END KEY-----",
        ),
        ("A=-----BEGIN K-----\\nMIIE\\n-----END K-----", "-----BEGIN K-----\\nMIIE\\n-----END K-----"),
        ('A="-----BEGIN K-----\n  abc=\n-----END K-----"', "-----BEGIN K-----\n  abc=\n-----END K-----"),
        ('A=\'{\n  "a": "b=c"\n}\'', '{\n  "a": "b=c"\n}'),
        ('A={"a": {"b": ["c=d"]}}', '{"a": {"b": ["c=d"]}}'),
        ("A=[1, 2]", "[1, 2]"),
        ("A={X}", "{X}"),
        ('A="one\\nB=2"', "one\nB=2"),
        ('A="#!/bin/sh\n\n# a comment\necho"', "#!/bin/sh\n\n# a comment\necho"),
        ("A=it's", "it's"),
        ('A=say "hi"', 'say "hi"'),
        ("A=host=h user=u", "host=h user=u"),
        ("A=QUJDRA==", "QUJDRA=="),
        ("A=\\", "\\"),
        ("A= # nothing", ""),
        ('A=""', ""),
        ("A=", ""),
        ("a.b-c=1", "1"),
    ],
)
def test_undamaged_lines_keep_their_value(text: str, value: str) -> None:
    _, block, _ = blocks(f"S=prod\n{text}\nS=2\n")
    assert (block.value, block.damage) == (value, "")


def test_an_empty_variable_is_not_the_end_of_base64_text() -> None:
    for text in (
        "ENV=prod\nFOO=",
        "A=QUJDRA\nqUI=",
        f"A={'QUJD' * 14}\nGHIJKLM=",
        f"A={WRAPPED}\n\nGHIJKLM=",
        f'A={WRAPPED}\nGHIJKLM=""',
        f"A={'0aF1' * 16}\nFOO=",
    ):
        assert [block.damage for block in blocks(text)] == ["", ""]


@pytest.mark.parametrize(
    ("start", "repeated"), [("", "A={\n}\n"), ("", "A=-----BEGIN K-----\n-----END K-----\n"), ("A={", '\\"')]
)
def test_the_time_grows_with_the_length_of_a_file(start: str, repeated: str) -> None:
    assert growth(lambda count: blocks(start + count * repeated), 4_000) < 8


# Properties. An undamaged file is generated from entries, and then damaged.

#: Text without assignments, quotes and comments.
WORDS = st.text("abcXYZ019 .:/@%+-{}[]$", min_size=1, max_size=12).map(str.strip).filter(bool)
NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{2,8}", fullmatch=True)


@dataclass(frozen=True)
class Entry:
    """A variable in a file."""

    name: str
    value: str
    quote: str
    prefix: str
    """The text before it: empty lines, comments, `export`."""

    @property
    def text(self) -> str:
        value = self.value
        if self.quote:
            value = value.replace("\\", "\\\\").replace(self.quote, f"\\{self.quote}")
        return f"{self.prefix}{self.name}={self.quote}{value}{self.quote}\n"


def wrapped(width: int) -> st.SearchStrategy[str]:
    def wrap(raw: bytes) -> str:
        text = base64.b64encode(raw).decode()
        return "\n".join(text[start : start + width] for start in range(0, len(text), width))

    return st.binary(min_size=width, max_size=4 * width).map(wrap)


PEM = wrapped(64).map(lambda text: f"-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----")
JSON = st.dictionaries(
    st.text(min_size=1, max_size=5),
    st.text(max_size=9) | st.sampled_from(["B=2", "}", "{", '"', "x=\n}"]) | st.integers() | st.lists(st.integers()),
    min_size=1,
).map(lambda data: json.dumps(data, indent=2))
BASE64_TEXT = st.one_of(wrapped(64), wrapped(76))
MULTI_LINE = st.one_of(PEM, JSON, BASE64_TEXT)
PARAGRAPHS = st.lists(WORDS | st.just(""), min_size=1, max_size=4).map("\n".join)
PREFIXES = st.lists(
    st.sampled_from(["", "# a comment", "# it's", '# say "', "  # B=2", "#"]).map("{}\n".format), max_size=2
).map("".join)


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    found = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=5, unique=True)):
        prefix = draw(PREFIXES) + draw(st.sampled_from(["", "export "]))
        if draw(st.booleans()):
            value, quote = draw(st.from_regex(r"[a-z0-9/:@%+-][a-zA-Z0-9/:@%+='-]{0,20}[a-z]", fullmatch=True)), ""
        else:
            value = draw(st.one_of(PARAGRAPHS, PEM, JSON, st.sampled_from(["it's", 'say "hi"', "a\\", "# x", "{"])))
            quote = draw(st.sampled_from(["'", '"']))
        found.append(Entry(name, value, quote, prefix))
    return found


def written(file: list[Entry]) -> str:
    return "".join(entry.text for entry in file)


def undamaged(text: str) -> dict[str, str]:
    return {block.name: block.value for block in blocks(text) if not block.damage}


def values(file: list[Entry]) -> dict[str, str]:
    return {entry.name: entry.value for entry in file}


def check_blocks(text: str) -> list[Block]:
    """Return the blocks; check that they are in order, and that only empty lines and comments are in none."""
    found = blocks(text)
    for before, after in pairwise(found):
        assert before.last < after.first
    covered = {number for block in found for number in range(block.first, block.last + 1)}
    for number, line in enumerate(text.split("\n"), 1):
        assert number in covered or not line.strip() or line.strip().startswith("#")
    return found


@given(entries())
def test_an_undamaged_file_is_read_as_it_was_written(file: list[Entry]) -> None:
    found = check_blocks(written(file))
    assert [(block.name, block.value, block.damage) for block in found] == [
        (entry.name, entry.value, "") for entry in file
    ]


@given(entries(), st.data())
def test_a_missing_quote_never_changes_a_value(file: list[Entry], data: st.DataObject) -> None:
    quoted = [index for index, entry in enumerate(file) if entry.quote]
    assume(quoted)
    index = data.draw(st.sampled_from(quoted))
    damaged = file[index].text
    at = len(damaged) - 2 if data.draw(st.booleans()) else len(file[index].prefix) + len(file[index].name) + 1
    assert damaged[at] == file[index].quote
    text = written(file[:index]) + damaged[:at] + damaged[at + 1 :] + written(file[index + 1 :])
    check_blocks(text)
    for name, value in undamaged(text).items():
        assert value == values(file)[name]


@given(entries(), MULTI_LINE, st.integers(0, 5), st.sampled_from(["", "\n"]))
def test_an_unquoted_multi_line_value_is_not_read(file: list[Entry], value: str, index: int, start: str) -> None:
    assume("\n" in value)
    text = f"{written(file[:index])}VALUE={start}{value}\n{written(file[index:])}"
    found = check_blocks(text)
    assert "VALUE" not in undamaged(text)
    assert undamaged(text).items() <= values(file).items()
    assert {block.name for block in found} <= {"", "VALUE", *values(file)}


@given(entries(), st.data())
def test_in_a_truncated_file_only_the_last_value_can_differ(file: list[Entry], data: st.DataObject) -> None:
    text = written(file)
    complete = check_blocks(text[: data.draw(st.integers(0, len(text)))])[:-1]
    assert {block.name: block.value for block in complete if not block.damage}.items() <= values(file).items()


@given(
    st.text(),
    st.lists(
        st.sampled_from(
            [
                "A=1",
                "B=",
                "C='",
                'D="',
                "'",
                '"',
                "x",
                "abc=",
                "# c",
                "",
                " ",
                "E={",
                "}",
                "F=-----BEGIN K-----",
                "-----END K-----",
                "export G=2",
                "export ",
                "\\",
                "\x0b",
                "\u2028H=1",
                "=",
                "==",
                "'I'=3",
                "\ufeffJ=1",
                "\0",
            ]
        ),
        max_size=12,
    ).map("\n".join),
)
def test_every_line_of_any_text_is_accounted_for(anything: str, lines: str) -> None:
    check_blocks(anything.replace("\r", "\n"))
    check_blocks(lines)
