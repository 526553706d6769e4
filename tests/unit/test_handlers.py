"""How kopf is set up."""

from itertools import accumulate

from devbox_secrets.handlers import settings


def test_an_api_server_may_be_away_for_an_hour_and_is_asked_every_ten_seconds() -> None:
    backoffs = settings().networking.error_backoffs
    assert isinstance(backoffs, tuple)
    assert list(accumulate(backoffs))[-1] > 3600
    assert max(backoffs) <= 10
