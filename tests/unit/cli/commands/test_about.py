"""The commands `version`, `completion` and `help`."""

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from typer.testing import CliRunner, Result

from devbox_secrets.cli import app
from devbox_secrets.cli.kit.app import client_version
from devbox_secrets.errors import ConfigError, NotFound, Unreachable
from devbox_secrets.kube.client import Client
from unit.cli.fake_client import FakeClient, Json

CONFIGMAP = "GET /api/v1/namespaces/devbox-secrets/configmaps/devbox-secrets-public-keys"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, Json | Exception]:
    """Return the responses of a fake cluster, for the test to fill."""
    responses: dict[str, Json | Exception] = {}

    @asynccontextmanager
    async def connect(*_: object) -> AsyncIterator[FakeClient]:
        yield FakeClient(responses)

    monkeypatch.setattr(Client, "connect", connect)
    return responses


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_the_versions_of_client_and_operator_are_shown(cluster: dict[str, Json | Exception]) -> None:
    cluster[CONFIGMAP] = {"metadata": {"labels": {"app.kubernetes.io/version": "1.2.3"}}}
    assert run("version").stdout == f"client     {client_version()}\noperator   1.2.3\n"
    assert json.loads(run("version", "-o", "json").stdout) == {"client": client_version(), "operator": "1.2.3"}


@pytest.mark.parametrize(
    ("response", "stderr"),
    [
        (Unreachable("cannot reach it"), "devbox-secrets: cannot reach it\n"),
        (ConfigError("there is no kubeconfig"), "devbox-secrets: there is no kubeconfig\n"),
        (
            NotFound("GET /x: 404", details={"kind": "configmaps"}),
            (
                "devbox-secrets: devbox-secrets isn't installed in the namespace devbox-secrets; install it, or pass"
                " --operator-namespace if it is in another one\n"
            ),
        ),
        (NotFound("GET /x: 404"), "devbox-secrets: GET /x: 404; check server in the kubeconfig\n"),
        ({"metadata": {}}, ""),
    ],
)
def test_the_version_of_an_unreachable_operator_is_unknown(
    cluster: dict[str, Json | Exception], response: Json | Exception, stderr: str
) -> None:
    cluster[CONFIGMAP] = response
    result = run("version")
    assert (result.exit_code, result.stderr) == (0, stderr)
    assert result.stdout == f"client     {client_version()}\noperator   unknown\n"


def test_the_client_s_version_needs_no_cluster() -> None:
    assert run("version", "--client").stdout == f"client   {client_version()}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_calls_the_program(shell: str) -> None:
    result = run("completion", shell)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"_DEVBOX_SECRETS_COMPLETE=complete_{shell}" in result.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=result.stdout.encode(), check=True)


def test_other_shells_have_no_completion_script() -> None:
    result = run("completion", "tcsh")
    assert result.exit_code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in result.stderr


@pytest.mark.parametrize("words", [["list"], ["keys", "rotate"], ["keys"], []])
def test_help_prints_the_same_as_the_option_help(words: list[str]) -> None:
    result = run("help", *words)
    assert (result.exit_code, result.stdout) == (0, run(*words, "--help").stdout)


def test_help_for_an_unknown_command_is_an_error() -> None:
    result = run("help", "lst")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No such command 'lst'. Did you mean 'list', 'set'?" in result.stderr
