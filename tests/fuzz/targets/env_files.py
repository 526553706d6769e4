""".env files: each line is in one entry, and an accepted value is what python-dotenv reads."""

import io
import re
from collections.abc import Sequence
from unittest.mock import patch

from dotenv import dotenv_values

from devbox_secrets.api.validation import check_value, check_variable
from devbox_secrets.cli.formats import envfile
from devbox_secrets.cli.formats.env_blocks import blocks
from devbox_secrets.cli.formats.envfile import Line, read
from devbox_secrets.cli.formats.text import decode
from devbox_secrets.errors import InvalidText
from fuzz.targets.errors import check_error


def check(data: bytes) -> None:
    """Check one file."""
    try:
        text = decode(data).text
    except InvalidText as error:
        check_error(error)
        return
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found = blocks(text)
    with patch.object(envfile, "blocks", lambda _: found):  # parsing takes most of the time
        strict = read(text, literal=False, allow_empty=False)
        lax = read(text, literal=True, allow_empty=True)
    places = [(line.first, line.last) for line in strict]
    assert places == [(line.first, line.last) for line in lax]
    _check_places(text.split("\n"), places)
    _check_accepted(text, lax)
    accepted = {line.variable: line for line in lax if not line.refusal}
    for line in strict:
        if not line.refusal:
            value = line.value.get_secret_value().decode()
            assert line == accepted[line.variable]
            assert value.strip()
            assert not re.search(r"\$\{[^}]*\}", value)


def _check_places(rows: Sequence[str], places: Sequence[tuple[int, int]]) -> None:
    """Check that the entries are in order, with only comments and empty lines between them."""
    end = 0
    for first, last in [*places, (len(rows) + 1, len(rows) + 1)]:
        assert end < first <= last
        for row in rows[end : first - 1]:
            assert not row.strip() or row.strip().startswith("#"), "a line is in no entry"
        end = last


def _check_accepted(text: str, lines: Sequence[Line]) -> None:
    accepted = [line for line in lines if not line.refusal]
    assert len({line.variable for line in accepted}) == len(accepted)
    rows = text.split("\n")
    for line in accepted:
        check_variable(line.variable)
        check_value(line.variable, line.value)
        assert line.variable in "\n".join(rows[line.first - 1 : line.last])
    if not any(line.damaged for line in lines):
        expected = dotenv_values(stream=io.StringIO(text), interpolate=False)
        for line in accepted:
            assert line.value.get_secret_value().decode() == expected[line.variable]
