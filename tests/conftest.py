"""How tests are distributed over processes: those of a file run in one process, and so do all on the kind cluster."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

_KIND = Path(__file__).parent / "e2e"

# How long an example takes depends on how busy the machine is.
settings.register_profile("unhurried", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


class _Scheduling(LoadFileScheduling):
    # xdist_group would be shorter, but with pytest 9.2 it has no effect in xdist 3.8.
    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "kind" if "/e2e/" in file else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    return _Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest group first, so that no process runs it at the end while the others are idle.
    items.sort(key=lambda item: not item.path.is_relative_to(_KIND))
