"""Docs, messages, comments and names of tests are plain English: phrases to avoid, and what to write instead."""

import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Regular expressions, which ignore case.
PHRASES = {
    r"anew": "again",
    r"is there (already|twice|again)|(is|are) already there": "already exists, appears twice",
    r"(isn't|aren't|wasn't|is not|are not) there": "doesn't exist",
    r"what (is|was) there": "what exists",
    r"who(ever)? may": "anyone who can",
    r"you may not": "you don't have permission to",
    r"say --\w+|says? else|said openly": "pass --OPTION; says otherwise; known limitations",
    r"belongs? into": "belongs in",
    r"present (values?|keys?|ones?|state|version)": "current",
    r"told": "shown, listed, reported",
    r"(can't|cannot|can not) (tell|be told)( apart)?": "unknown; can't distinguish",
    r"tells (what|whether|why|which|how|when)": "shows, reports",
    r"mend(s|ed|ing)?": "fix, repair",
    r"small letters?": "lowercase letters",
    r"what (becomes|became|is made|was made) of": "what happens to, the result of",
    r"alone": "only; by itself; unchanged",
    r"not all is|all is well|is well": "healthy; with problems",
    r"as (it|they) should be": "correct, healthy",
    r"in the place of": "instead of",
    r"one life": "lifecycle",
    r"one's own": "your own",
    r"(as|what|whatever|however) (one|it|you|they|people) likes?": "any",
    r"vouch(es)? for": "signs",
    r"in the clear": "unencrypted",
    r"without a word": "silently",
    r"sees? to it": "make sure",
    r"wrongly": "incorrectly",
    r"begins? so": "starts with",
    r"asks? at|asked at": "prompt",
    r"(keys?|secrets?|tokens?|certificates?|clusters?|pods?|copies) (is|are|was|were) made": "created",
    r"(certificates?|tokens?|keys?) ends?": "expires",
    r"(charts?|releases?|packages?) brings?": "contains",
    r"stands there|what stands": "the text",
    r"the former": "the previous",
    r"(hears?|heard) (of|from|that|about)": "is notified, receives",
    r"(goes|went) on (to|with|as|until|where)": "continues",
    r"nothing but": "only",
    r"where there (is|are) (none|no)": "if there is no",
}
_PATTERN = {re.compile(rf"(?<![\w-])(?:{phrase})(?![\w-])", re.IGNORECASE): word for phrase, word in PHRASES.items()}
#: This list, inputs of tests, and files of tools and other people.
_SKIPPED = re.compile(
    r"LICENSE|requirements/.*|.*/(go\.mod|go\.sum|package-lock\.json)|tests/(unit/test_phrases\.py|fuzz/corpora/.*)"
)


def files() -> list[str]:
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in sorted(set(names)) if (ROOT / name).is_file() and not _SKIPPED.fullmatch(name)]


def prose(name: str, text: str) -> str:
    """Return a file's text in one line, without comment markers; for Python, comments, strings and names of tests."""
    if name.endswith(".py"):
        tests = re.findall(r"^ *(?:async )?def (test_\w+)", text, re.MULTILINE)
        kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        pieces = [re.sub(r"""^\w*["']+|["']+$|\{[^{}]*\}""", "", it.string) for it in tokens if it.type in kinds]
        text = "\n".join([*pieces, *(f"{test.replace('_', ' ')}." for test in tests)])
    return " ".join(re.sub(r"^[\s>]*(#+:?|//|\*)\s", "", line).strip() for line in text.splitlines())


def odd(text: str) -> list[str]:
    return [
        f"…{text[max(0, found.start() - 40) : found.end() + 20]}… → {word}"
        for pattern, word in _PATTERN.items()
        for found in pattern.finditer(text)
    ]


@pytest.mark.parametrize("name", files())
def test_the_text_is_plain_english(name: str) -> None:
    assert odd(prose(name, (ROOT / name).read_text(errors="replace"))) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "The file is there\nalready."),
        ("a.yaml", "# It is made\n# anew"),
        ("a.py", 'x = "it belongs" " into Git"'),
        ("a.py", 'def f():\n    """What becomes\n    of it."""'),
        ("a.py", "x = 1  # alone"),
        ("a.py", "async def test_it_is_told(): ..."),
    ],
)
def test_an_odd_phrase_is_found(name: str, text: str) -> None:
    assert len(odd(prose(name, text))) == 1


@pytest.mark.parametrize("text", ["told = alone", 'f"{told}"', "def it_is_told(): ..."])
def test_code_is_not_prose(text: str) -> None:
    assert odd(prose("a.py", text)) == []
