"""How `check` reads the cluster if a permission, an object or a kind is missing."""

import pytest

from devbox_secrets.cli.health.probe import Finding, Level, Probe, findings, first_few, selector_text
from devbox_secrets.errors import Forbidden, NotFound, Unreachable
from unit.cli.fake_client import FakeClient, Json

DEPLOYMENT = "/apis/apps/v1/namespaces/devbox-secrets/deployments/devbox-secrets"


def probe(responses: dict[str, Json | Exception], account: str | None = None) -> Probe:
    return Probe(FakeClient(responses), "devbox-secrets", account)


def forbidden(**details: str) -> Forbidden:
    return Forbidden("in the server's words", details=details)


async def read_object(probe: Probe) -> list[Finding]:
    await probe.get(probe.own("/apis/apps/v1", "deployments"))
    return [Finding(Level.OK, "object", "read")]


async def read_list(probe: Probe) -> list[Finding]:
    return [Finding(Level.OK, "list", item["name"]) async for item in probe.each(probe.within("/api/v1", "pods"))]


async def read_version(probe: Probe) -> list[Finding]:
    return [Finding(Level.OK, "version", str(await probe.get("/version")))]


async def test_the_findings_of_a_check_are_returned() -> None:
    found = await findings(probe({f"GET {DEPLOYMENT}": {}}), "operator", read_object)
    assert found == [Finding(Level.OK, "object", "read")]


async def test_a_missing_permission_for_an_object_is_a_warning() -> None:
    error = forbidden(group="apps", kind="deployments", name="devbox-secrets")
    assert await findings(probe({f"GET {DEPLOYMENT}": error}), "operator", read_object) == [
        Finding(
            Level.WARNING,
            "operator",
            "unknown: you don't have permission to get deployments.apps in the namespace devbox-secrets",
        )
    ]


@pytest.mark.parametrize(
    ("account", "path", "scope"),
    [
        (None, "/api/v1/pods", "at the cluster scope"),
        ("team", "/api/v1/namespaces/team/pods", "in the namespace team"),
    ],
)
async def test_a_missing_permission_to_list_is_reported_with_its_scope(
    account: str | None, path: str, scope: str
) -> None:
    at = probe({f"GET {path}": forbidden(kind="pods")}, account)
    assert await findings(at, "devboxes", read_list) == [
        Finding(Level.WARNING, "devboxes", f"unknown: you don't have permission to list pods {scope}")
    ]


async def test_a_missing_permission_for_a_path_is_reported() -> None:
    (found,) = await findings(probe({"GET /version": forbidden()}), "API server", read_version)
    assert found.text == "unknown: you don't have permission to get /version"


async def test_a_cluster_that_does_not_respond_is_an_error() -> None:
    with pytest.raises(Unreachable):
        await findings(probe({"GET /version": Unreachable("GET /version: timeout")}), "API server", read_version)


async def test_an_object_that_does_not_exist_is_none() -> None:
    assert await probe({"GET /version": NotFound("no")}).get("/version") is None


async def test_a_kind_that_the_cluster_does_not_know_has_no_objects() -> None:
    assert await read_list(probe({"GET /api/v1/pods": NotFound("no")})) == []


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({}, ""),
        ({"matchLabels": {"a": "1", "b": "2"}}, "a=1,b=2"),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "a"),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, "!a"),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, "a in (1,2)"),
        (
            {"matchLabels": {"b": "2"}, "matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]},
            "b=2,a notin (1)",
        ),
    ],
)
def test_a_label_selector_is_written_as_in_a_query(selector: Json, text: str) -> None:
    assert selector_text(selector) == text


def test_only_the_first_five_names_are_listed() -> None:
    assert first_few(["a", "b"]) == "a, b"
    assert first_few([f"{number}" for number in range(7)]) == "0, 1, 2, 3, 4 and 2 more"
