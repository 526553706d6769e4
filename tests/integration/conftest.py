"""Fixtures of the tests in this folder: a real control plane, with the operator and the gateway."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import install, until
from integration.support.gateway import Gateway, gateway, new_account, publish_key, token
from integration.support.processes import Operator, operator
from integration.support.sealing_keys import ensure_key
from integration.support.webhook import Fallback, without_policy

_CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def controlplane() -> Iterator[ControlPlane]:
    """One control plane for all tests; each test uses its own namespace."""
    with ControlPlane.start() as it:
        yield it


@pytest.fixture(scope="session")
def fallback() -> Iterator[Fallback]:
    """A control plane without the policy API, where the webhook injects the secrets."""
    with without_policy() as it:
        yield it


@pytest.fixture
def namespace(controlplane: ControlPlane) -> Iterator[str]:
    """A new namespace in which pods can be created; tests don't wait for its deletion."""
    name = f"test-{uuid4().hex[:8]}"
    controlplane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    until("the namespace has a ServiceAccount", lambda: controlplane.read(account))
    yield name
    controlplane.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="module")
def running(controlplane: ControlPlane) -> Iterator[Operator]:
    """The chart installed, and its operator running."""
    install(controlplane)
    ensure_key(controlplane)
    with operator(controlplane) as it:
        yield it


@pytest.fixture
def account(controlplane: ControlPlane, namespace: str, running: Operator) -> Account:
    """A namespace, as its owner uses it."""
    return Account.of(controlplane, namespace)


@pytest.fixture(scope="session")
def crds(controlplane: ControlPlane) -> None:
    """The project's custom resources, served by the control plane."""
    controlplane.kubectl("apply", "--server-side", f"--filename={_CRDS}")
    controlplane.kubectl("wait", "--for=condition=Established", f"--filename={_CRDS}")


@pytest.fixture(scope="session")
def rest(controlplane: ControlPlane) -> Iterator[Gateway]:
    """The gateway for that control plane."""
    install(controlplane)
    publish_key(controlplane)
    with gateway(controlplane) as it:
        yield it


@pytest.fixture(scope="module")
def tenant(controlplane: ControlPlane, rest: Gateway) -> Account:
    """An account for one module, with the ServiceAccounts `editor` and `viewer`."""
    return Account.of(controlplane, new_account(controlplane))


@pytest.fixture(scope="module")
def key(controlplane: ControlPlane, tenant: Account) -> str:
    """The editor's API key."""
    return token(controlplane, tenant.name)


@pytest.fixture
def api(rest: Gateway, key: str) -> Iterator[httpx.Client]:
    """A client of the gateway with that key."""
    with rest.client(key) as it:
        yield it
