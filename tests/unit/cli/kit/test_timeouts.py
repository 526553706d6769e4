"""--timeout: a number of seconds, or a duration as in kubectl."""

import pytest
import typer

from devbox_secrets.cli.kit.timeouts import timeout_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("5", 5), ("0.5", 0.5), ("90s", 90), ("1.5s", 1.5), ("5m", 300), ("1h", 3600), ("1m30s", 90),
        ("1h5m", 3900), ("0s", 0),
    ],
)  # fmt: skip
def test_a_timeout_is_in_seconds_or_has_units(text: str, seconds: float) -> None:
    assert timeout_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "1d", "s", "1m30", "5 m", "1.m", "1e3", "٣s", "9" * 9])
def test_other_timeouts_are_rejected(text: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        timeout_seconds(text)
    assert str(caught.value) == f"{text!r} isn't a duration such as 90s, 5m or 1m30s"
