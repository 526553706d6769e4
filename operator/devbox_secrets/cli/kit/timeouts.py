"""The option --timeout of commands that wait."""

import re
from typing import Annotated

import typer

Timeout = Annotated[str, typer.Option(metavar="DURATION", help="How long to wait, such as 90s, 5m or 1m30s.")]
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_NUMBER = r"\d{1,7}(?:\.\d{1,3})?"
_DURATION = rf"{_NUMBER}|(?:{_NUMBER}[smh])+"


def timeout_seconds(text: str) -> float:
    """Parse a timeout; a number without a unit is seconds.

    Raises:
        BadParameter: it isn't a valid timeout.
    """
    if not re.fullmatch(_DURATION, text, re.ASCII):
        raise typer.BadParameter(f"{text!r} isn't a duration such as 90s, 5m or 1m30s", param_hint="'--timeout'")
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(rf"({_NUMBER})([smh]?)", text))
