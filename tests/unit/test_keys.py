"""Which of the stored sealing keys can be used."""

from datetime import UTC, datetime

import pytest
from pydantic import SecretBytes

from devbox_secrets.keys import usable
from devbox_secrets.sealing import OpeningKey

ONE, TWO = (OpeningKey(SecretBytes(bytes([seed] * 32)), datetime(2026, 1, seed, tzinfo=UTC)) for seed in (1, 2))


def stored(*keys: OpeningKey) -> dict[str, SecretBytes]:
    return {key.public.id: SecretBytes(key.dump()) for key in keys}


def test_every_key_is_read_back() -> None:
    assert usable(stored(ONE, TWO)) == [ONE, TWO]
    assert usable({}) == []


TIMELESS = ONE.dump().replace(b"+00:00", b"")  # compares with no other key's time


@pytest.mark.parametrize(
    "damaged", [b"", b"{}", b"canary", b"\xff", ONE.dump()[:-9], b'{"canary": "canary"}', TIMELESS]
)
def test_a_damaged_key_is_left_out_alone_and_its_log_line_shows_nothing_of_it(
    damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    entries = {**stored(TWO), ONE.public.id: SecretBytes(damaged)}
    assert usable(entries) == [TWO]
    (line,) = caplog.messages
    assert ONE.public.id in line
    assert "can't be read" in line
    assert "canary" not in caplog.text
    assert ONE.dump().decode()[-30:-10] not in caplog.text


def test_a_key_under_another_one_s_id_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert usable({ONE.public.id: SecretBytes(TWO.dump())}) == []
    (line,) = caplog.messages
    assert ONE.public.id in line
    assert TWO.public.id in line
    assert TWO.dump().decode()[-30:-10] not in caplog.text
