"""Fixtures of the injection tests."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from harness.controlplane import ControlPlane
from integration.support.chart import ACCOUNT, created, namespace


@pytest.fixture(scope="module")
def member(controlplane: ControlPlane) -> Iterator[str]:
    """A namespace with an account label."""
    name = f"test-{uuid4().hex[:8]}"
    created(controlplane, namespace(name, {ACCOUNT: "home"}))
    yield name
    controlplane.kubectl("delete", "namespace", name, "--wait=false")
