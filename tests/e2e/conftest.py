"""A kind cluster with the chart installed, for the tests in this folder."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from e2e.accounts import DEBUG_LOG, Account
from harness import image, kind, release
from harness.kind import Cluster


@pytest.fixture(scope="package", name="cluster")
def _cluster() -> Iterator[Cluster]:
    """A cluster for all tests, with the operator of this checkout at its most verbose log level."""
    with kind.cluster() as it:
        theirs = it.engine is None
        if theirs and (found := release.traces(it)):
            pytest.fail(f"this cluster has {' and '.join(found)}, which the tests would delete: use another cluster")
        try:
            release.install(it, DEBUG_LOG)
            yield it
        finally:
            if theirs:
                release.uninstall(it)


@pytest.fixture(scope="package")
def devbox_image(cluster: Cluster) -> str:
    """The name of an image with sh, sleep and printenv."""
    return image.devbox_image(cluster)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A new namespace in which pods can be created; it is deleted in the background."""
    name = f"test-{uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=30s")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def account(cluster: Cluster, namespace: str, devbox_image: str) -> Account:
    """A new account whose home has no label and no secrets."""
    return Account(cluster, namespace, devbox_image)
