"""Fixtures for the unit tests of several packages."""

import time
from collections.abc import Iterator

import pytest


@pytest.fixture
def _in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set another local time zone than the usual UTC of machines that run tests."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()
