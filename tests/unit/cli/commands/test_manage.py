"""The output of `list`: a table, a wide table, JSON, and names."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from typer.testing import CliRunner

from devbox_secrets.cli import app
from devbox_secrets.kube.client import Client
from unit.cli.fake_client import FakeClient, Json

ALL = "/apis/devbox-secrets.dev/v1beta1"
SEALED = f"dbs1.{'a' * 16}.YQ"
LONG_AGO = "2020-01-01T00:00:00Z"


def secret(account: str, name: str, variable: str, **spec: str) -> Json:
    ready = {
        "type": "Ready", "status": "True", "reason": "Synced", "message": "", "lastTransitionTime": LONG_AGO,
    }  # fmt: skip
    due = {**ready, "type": "RotationDue"}
    return {
        "metadata": {
            "uid": "1", "namespace": account, "name": name, "generation": 1, "resourceVersion": "7",
            "creationTimestamp": LONG_AGO,
        },
        "spec": {"name": variable, "sealed": SEALED, **spec},
        "status": {"observedGeneration": 1, "keyId": "a" * 16, "conditions": [ready, *[due] * ("rotateAfter" in spec)]},
    }  # fmt: skip


def listed(*items: Json) -> Json:
    return {"metadata": {"resourceVersion": "9"}, "items": list(items)}


ONE = secret("team", "token", "TOKEN", description="for CI", rotateAfter="90d")
TWO = secret("team", "odd", "DB")
OTHER = secret("a-team", "token", "TOKEN")


@pytest.fixture(autouse=True)
def _cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    responses: dict[str, Json | Exception] = {
        f"GET {ALL}/accountsecrets": listed(ONE, TWO, OTHER),
        f"GET {ALL}/namespaces/team/accountsecrets": listed(ONE, TWO),
        f"GET {ALL}/namespaces/empty/accountsecrets": listed(),
    }

    @asynccontextmanager
    async def connect(*_: object) -> AsyncIterator[FakeClient]:
        yield FakeClient(responses)

    monkeypatch.setattr(Client, "connect", connect)


def lines(*words: str) -> list[list[str]]:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    return [line.split() for line in result.stdout.splitlines()]


def test_a_list_is_sorted_by_variable() -> None:
    assert lines("list", "-n", "team") == [
        ["VARIABLE", "READY", "CHANGED", "NAME", "DESCRIPTION"],
        ["DB", "yes", "odd"],
        ["TOKEN", "yes", "for", "CI"],
    ]


def test_a_wide_list_also_shows_age_key_and_rotation() -> None:
    head, _, token = lines("list", "-n", "team", "-o", "wide")
    assert " ".join(head) == "VARIABLE READY CHANGED NAME AGE KEY ROTATE DESCRIPTION"
    assert token[2:] != []
    assert token[3:] == ["a" * 16, "90d,", "due", "for", "CI"]


@pytest.mark.parametrize("option", ["-A", "--all-namespaces", "--all-accounts"])
def test_a_list_of_the_whole_cluster_is_sorted_by_account(option: str) -> None:
    found = lines("list", option)
    assert [line[:2] for line in found] == [
        ["ACCOUNT", "VARIABLE"],
        ["a-team", "TOKEN"],
        ["team", "DB"],
        ["team", "TOKEN"],
    ]
    result = CliRunner().invoke(app, ["list", option, "-n", "team", "-o", "json"])
    assert [each["account"] for each in json.loads(result.stdout)] == ["a-team", "team", "team"]


def test_names_are_printed_as_kubectl_prints_them() -> None:
    prefix = "accountsecret.devbox-secrets.dev"
    assert lines("list", "-n", "team", "-o", "name") == [[f"{prefix}/odd"], [f"{prefix}/token"]]
    assert lines("list", "-n", "empty", "-o", "name") == []


def test_without_secrets_the_next_step_is_shown() -> None:
    assert " ".join(lines("list", "-n", "empty")[0]) == (
        "The account empty has no secrets. Create one: devbox-secrets set NAME -n empty"
    )
