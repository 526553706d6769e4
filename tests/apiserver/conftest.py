"""A real control plane for the tests in this folder; imports cluster."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from apiserver.fallback import Fallback, without_policy
from cluster.controlplane import ControlPlane

_CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def controlplane() -> Iterator[ControlPlane]:
    """One control plane for all tests, each of which keeps to its own namespace."""
    with ControlPlane.start() as it:
        yield it


@pytest.fixture(scope="session")
def fallback() -> Iterator[Fallback]:
    """The same without the policy API, where devboxes get their secrets by the webhook."""
    with without_policy() as it:
        yield it


@pytest.fixture
def namespace(controlplane: ControlPlane) -> Iterator[str]:
    """A new namespace in which pods can be created; its deletion is not waited for."""
    name = f"test-{uuid4().hex[:8]}"
    controlplane.kubectl("create", "namespace", name)
    controlplane.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}")
    yield name
    controlplane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def crds(controlplane: ControlPlane) -> None:
    """The project's custom resources, served by the control plane."""
    controlplane.kubectl("apply", "--server-side", f"--filename={_CRDS}")
    controlplane.kubectl("wait", "--for=condition=Established", f"--filename={_CRDS}")
