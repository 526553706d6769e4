"""Runs the commands of the documentation as printed, and applies its YAML."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from harness.controlplane import ControlPlane
from harness.tools import files
from integration.docs.pages import PAGES, Page, Workspace, blocks, documents
from integration.support.chart import CHART, DEVBOX, NAMESPACE, container, dry_run, helm, pod, release, render, settle
from integration.support.kubelet import make_ready
from integration.support.processes import operator, seal
from integration.support.sealing_keys import new_key, store

CRDS = {
    "cert-manager": "deploy/crds/cert-manager.io_certificates.yaml",
    "sealed-secrets": "helm/sealed-secrets/crds/bitnami.com_sealedsecrets.yaml",
}
#: YAML that other tests use, by its first word.
USED_ELSEWHERE = ("data:", "resources:")  # controller/test_argo_cd.py, test_installation.py
YAML = [
    pytest.param(it.body, id=f"{path}-{number}")
    for path in documents()
    for number, it in enumerate(blocks(path))
    if it.language == "yaml" and not it.body.startswith(USED_ELSEWHERE)
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    """A control plane of its own, since `check` and `keys` look at all of it."""
    with ControlPlane.start() as it:
        it.kubectl("create", "namespace", "team-a")
        for project, crd in CRDS.items():
            it.kubectl("apply", "--server-side", f"--filename={files(project) / crd}")
        release(it, "install", str(CHART), "--create-namespace")
        settle(it)
        store(it, new_key(days=1), new_key(days=2))
        with operator(it):
            make_ready(it, NAMESPACE, NAMESPACE)
            yield it


@pytest.fixture
def empty(cluster: ControlPlane) -> Iterator[ControlPlane]:
    """Delete what an earlier test left in the account; afterwards restore the chart's default values."""
    cluster.kubectl("delete", "accountsecrets,pods", "--all", "--namespace=team-a")
    cluster.kubectl("wait", "--for=delete", "secret/devbox-account-secrets", "--namespace=team-a")
    before = release(cluster, "history")
    yield cluster
    if release(cluster, "history") != before:
        release(cluster, "upgrade", str(CHART), "--reset-values")
        settle(cluster)


@pytest.mark.parametrize("page", PAGES, ids=lambda it: it.path)
def test_the_commands_of_a_page_work_as_printed(empty: ControlPlane, tmp_path: Path, page: Page) -> None:
    workspace = Workspace.prepare(tmp_path, empty.kubeconfig)
    workspace.run("kubectl config set-context --current --namespace team-a")
    workspace.perform(page)


@pytest.mark.parametrize("text", YAML)
def test_the_yaml_of_a_page_is_accepted(cluster: ControlPlane, tmp_path: Path, text: str) -> None:
    (tmp_path / "values.yaml").write_text(text)
    match yaml.safe_load(text):
        case {"apiVersion": _}:
            sealed = yaml.safe_load(seal(cluster, "GITHUB_TOKEN", b"canary", "team-a").stdout)["spec"]["sealed"]
            whole = re.sub(r"dbs1\.\S+…", sealed, text)
            cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "--filename=-", input=whole)
        case {"metadata": {"annotations": annotations}}:
            dry_run(cluster, pod({"containers": [container("a")]}, DEVBOX, annotations), "team-a")
        case {"dependencies": _}:
            parent = tmp_path / "parent"
            parent.mkdir()
            (parent / "Chart.yaml").write_text(f"apiVersion: v2\nname: parent\nversion: 1.0.0\n{text}")
            (tmp_path / "devbox-secrets").symlink_to(CHART)
            assert helm("dependency", "build", str(parent)).stderr == ""
            assert helm("template", "x", str(parent), "--set=devbox-secrets.enabled=false").stdout.strip() == ""
        case _:
            done = render(f"--values={tmp_path / 'values.yaml'}")
            assert done.returncode == 0, done.stderr
