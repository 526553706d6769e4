"""Runs the commands that install, upgrade and uninstall the chart as printed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.controlplane import ControlPlane
from integration.docs.pages import INSTALLATION, Page, Workspace, blocks


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    """A control plane without the chart."""
    with ControlPlane.start() as it:
        yield it


@pytest.mark.parametrize("page", INSTALLATION, ids=lambda it: it.path)
def test_the_installation_works_as_printed(cluster: ControlPlane, tmp_path: Path, page: Page) -> None:
    (kustomization,) = (it.body for it in blocks("docs/operations/install.md") if it.body.startswith("resources:"))
    (tmp_path / "kustomization.yaml").write_text(kustomization)
    Workspace.prepare(tmp_path, cluster.kubeconfig).perform(page)
