"""Shell completion of contexts in the kubeconfig and of names in the cluster."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_install_completion_arguments
from typer.testing import CliRunner

from devbox_secrets.cli import app
from devbox_secrets.cli.kit import completion
from devbox_secrets.errors import ConfigError, Forbidden
from devbox_secrets.kube.client import Client
from unit.cli.fake_client import FakeClient, Json

KUBECONFIG = "contexts: [{name: dev, context: {}}, {name: demo, context: {}}, {name: prod, context: {}}]"


def listed(*names: str) -> Json:
    items = [{"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}} for name in names]
    return {"metadata": {"resourceVersion": "9"}, "items": items}


RESPONSES: dict[str, Json | Exception] = {
    "GET /api/v1/namespaces": listed("team-a", "team-b", "default"),
    "GET /api/v1/namespaces/team-a/serviceaccounts": listed("ci", "agent"),
    "GET /apis/rbac.authorization.k8s.io/v1/namespaces/team-a/rolebindings": Forbidden("no"),
}


@pytest.fixture
def complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that completes the last word of a command line, in a cluster with these responses."""
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{kubeconfig}")

    def run(*words: str, connect: Callable[..., Any] | None = None) -> list[str]:
        @asynccontextmanager
        async def connected(*_: object, **__: object) -> AsyncIterator[FakeClient]:
            yield FakeClient(RESPONSES)

        monkeypatch.setattr(Client, "connect", connect or connected)
        get_install_completion_arguments()  # as in a process that the shell starts
        env = {
            "_DEVBOX_SECRETS_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(["devbox-secrets", *words]),
            "COMP_CWORD": str(len(words)),
        }
        result = CliRunner().invoke(app, [], env=env)
        assert result.stderr == ""
        return result.stdout.split()

    return run


@pytest.mark.parametrize(
    ("words", "candidates"),
    [
        (["list", "--context", "de"], ["dev", "demo"]),
        (["--context", "p"], ["prod"]),
        (["list", "-n", "team"], ["team-a", "team-b"]),
        (["-n", "d"], ["default"]),
        (["keys", "list", "--operator-namespace", "team-b"], ["team-b"]),
        (["apikey", "revoke", "-n", "team-a", "c"], ["ci"]),
        (["-n", "team-a", "apikey", "revoke", "c"], ["ci"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
    ],
)
def test_names_are_completed(complete: Callable[..., list[str]], words: list[str], candidates: list[str]) -> None:
    assert complete(*words) == candidates


def test_without_a_cluster_there_are_no_completions_and_no_messages(complete: Callable[..., list[str]]) -> None:
    def unconfigured(*_: object) -> None:
        raise ConfigError("no cluster")

    def damaged(*_: object) -> None:
        raise AssertionError("any error")

    for connect in (unconfigured, damaged):
        assert complete("list", "-n", "t", connect=connect) == []


def test_completion_does_not_wait_for_a_cluster_that_does_not_respond(
    complete: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "_SECONDS", 0.01)

    @asynccontextmanager
    async def hanging(*_: object) -> AsyncIterator[FakeClient]:
        await asyncio.Event().wait()
        yield FakeClient({})

    assert complete("list", "-n", "t", connect=hanging) == []


def test_a_name_that_a_shell_would_run_is_not_completed(complete: Callable[..., list[str]], tmp_path: Path) -> None:
    names = ["arn:aws:eks:us-east-1:1:cluster/a", "a$(reboot)", "a b", "a;b", "a'b"]
    (tmp_path / "config").write_text(json.dumps({"contexts": [{"name": name} for name in names]}))
    assert complete("list", "--context", "a") == names[:1]


def test_an_empty_kubeconfig_variable_is_ignored(
    complete: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".kube").mkdir()
    (tmp_path / "config").rename(tmp_path / ".kube" / "config")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", "")
    assert complete("list", "--context", "p") == ["prod"]


@pytest.mark.parametrize("content", ["", "contexts: 1", "contexts: [{}]", "{", "\udcff", "a: !!timestamp x"])
def test_a_damaged_kubeconfig_completes_nothing(
    complete: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "damaged"
    path.write_text(content, errors="surrogateescape")
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert complete("list", "--context", "d") == []
