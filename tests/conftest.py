"""How the tests are divided among processes: a file's stay together, and so do all that share the kind cluster."""

from pathlib import Path

import pytest

_KIND = Path(__file__).parent / "e2e"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        group = "kind" if item.path.is_relative_to(_KIND) else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
    # The longest group first, so that it isn't what one process does alone at the end.
    items.sort(key=lambda item: not item.path.is_relative_to(_KIND))
