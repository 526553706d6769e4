"""What the tests of this folder share."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from harness.controlplane import ControlPlane
from integration.support.chart import ACCOUNT, created, namespace


@pytest.fixture(scope="module")
def member(controlplane: ControlPlane) -> Iterator[str]:
    """A namespace that names its account."""
    name = f"test-{uuid4().hex[:8]}"
    created(controlplane, namespace(name, {ACCOUNT: "home"}))
    yield name
    controlplane.kubectl("delete", "namespace", name, "--wait=false")
