"""AccountSecrets with a fake client: the requests, and the message for each rejection."""

from typing import Any

import pytest

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.cli.resources.account_secrets import apply, by_variable, changes, dry_run, find, list_all
from devbox_secrets.errors import AmbiguousName, Conflict, NotFound, RequestTimeout, Unreachable
from devbox_secrets.kube.client import APPLY
from unit.cli.fake_client import FakeClient, Json

ALL = "/apis/devbox-secrets.dev/v1beta1/namespaces/team/accountsecrets"
TOKEN = f"{ALL}/token"
SEALED = f"dbs1.{'a' * 16}.YQ"
NEXT = f"dbs1.{'b' * 16}.YQ"


def stored(name: str = "token", **spec: str) -> Json:
    metadata = {"uid": "1", "namespace": "team", "name": name, "generation": 1, "resourceVersion": "7"}
    return {
        "metadata": {**metadata, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"name": "TOKEN", "sealed": SEALED, **spec},
    }


MANIFEST = {"metadata": {"name": "token", "namespace": "team"}, "spec": {"name": "TOKEN", "sealed": SEALED}}


def conflict(*causes: tuple[str, str, str]) -> Conflict:
    details = {"causes": [dict(zip(("reason", "message", "field"), cause, strict=True)) for cause in causes]}
    return Conflict("in the server's words", details=details)


def owned_by(manager: str, field: str) -> tuple[str, str, str]:
    return "FieldManagerConflict", f'conflict with "{manager}"', field


def listed(*items: Json) -> Json:
    return {"metadata": {"resourceVersion": "9"}, "items": list(items)}


async def test_a_manifest_is_applied_by_the_command_line_s_field_manager() -> None:
    client = FakeClient({f"PATCH {TOKEN}": stored()})
    assert (await apply(client, MANIFEST, force=False)).resource_version == "7"
    ((_, options),) = client.requests
    assert options["query"] == {"fieldManager": "devbox-secrets-cli", "fieldValidation": "Strict"}
    assert options["body"] == MANIFEST


async def test_force_and_resource_version_are_sent_only_on_request() -> None:
    client = FakeClient({f"PATCH {TOKEN}": stored()})
    await apply(client, MANIFEST, before=parsed(), force=True)
    ((_, options),) = client.requests
    assert options["query"]["force"] == "true"
    assert options["body"]["metadata"] == {"name": "token", "namespace": "team", "resourceVersion": "7"}


class Disconnecting(FakeClient):
    """Fails the first request, as if its idle connection had been closed."""

    async def request(self, method: str, path: str, **options: Any) -> Json:  # noqa: ANN401 - the client's own
        response = await super().request(method, path, **options)
        if len(self.requests) == 1:
            raise Unreachable("ServerDisconnectedError")
        return response


async def test_a_request_is_repeated_if_its_idle_connection_was_closed() -> None:
    client = Disconnecting({f"PATCH {TOKEN}": stored()})
    assert (await apply(client, MANIFEST, force=False)).name == "token"
    first, second = client.requests
    assert first == second


async def test_an_api_server_that_is_down_or_does_not_respond_is_an_error() -> None:
    for error, requests in ((Unreachable("no"), 2), (RequestTimeout("no"), 1)):
        client = FakeClient({f"PATCH {TOKEN}": error})
        with pytest.raises(type(error)):
            await apply(client, MANIFEST, force=False)
        assert len(client.requests) == requests


async def test_a_dry_run_stores_nothing_and_accepts_an_incomplete_response() -> None:
    client = FakeClient({f"PATCH {TOKEN}": {}})
    await dry_run(client, MANIFEST, force=False)
    ((_, options),) = client.requests
    assert options["query"]["dryRun"] == "All"


class Conflicting(FakeClient):
    """Rejects a resourceVersion that isn't current, and an apply without force."""

    error: Conflict

    async def request(self, method: str, path: str, **options: Any) -> Json:  # noqa: ANN401 - the client's own
        response = await super().request(method, path, **options)
        if method == "PATCH":
            version = options["body"]["metadata"].get("resourceVersion")
            if version not in {None, response["metadata"]["resourceVersion"]}:
                raise Conflict("the object has been modified")
            if options["media_type"] == APPLY and not options["query"].get("force"):
                raise self.error
        return response


def conflicting(body: Json) -> Conflicting:
    client = Conflicting({f"PATCH {TOKEN}": body, f"GET {TOKEN}": body})
    client.error = conflict(owned_by("whoever", ".spec.sealed"))
    return client


def owned(*owners: tuple[str, str], **metadata: Json) -> Json:
    """Return the stored object, with field managers that own fields of its spec."""
    body = stored(description="for CI")
    entries = [
        {"manager": manager, "fieldsV1": {"f:spec": {f"f:{field}": {} for field in fields.split()}}}
        for manager, fields in owners
    ]
    body["metadata"] |= {"managedFields": entries, **metadata}
    return body


CHANGED = {"metadata": MANIFEST["metadata"], "spec": {"name": "TOKEN", "sealed": NEXT, "description": "for CI"}}


@pytest.mark.parametrize(
    "manager",
    ["kubectl", "kubectl-client-side-apply", "kubectl-create", "kubectl-edit", "devbox-secrets-gateway"],
)
async def test_fields_of_kubectl_or_the_gateway_are_taken_over(manager: str) -> None:
    client = conflicting(owned((manager, "name sealed description")))
    await apply(client, CHANGED, force=False)
    _, _, (_, options) = client.requests
    assert options["query"]["force"] == "true"
    assert options["body"]["metadata"]["resourceVersion"] == "7"


TRACKED: Json = {"annotations": {"argocd.argoproj.io/tracking-id": "x"}}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            owned(("argocd-controller", "name sealed")),
            "Argo CD manages token (spec.sealed); change it in Git",
        ),
        (
            owned(("kubectl-edit", "sealed"), **TRACKED),
            "Argo CD manages token (spec.sealed); change it in Git",
        ),
        (
            owned(("kubectl", "name"), ("kustomize-controller", "sealed description")),
            "Flux manages token (spec.sealed); change it in Git",
        ),
        (
            owned(("helm", "sealed")),
            "Helm manages token (spec.sealed); change it in the release's chart or values",
        ),
        (
            owned(("kubectl", "sealed"), ("k9s", "sealed")),
            "the field manager k9s manages token (spec.sealed); change it there",
        ),
    ],
    ids=["Argo CD", "edited meanwhile", "Flux", "Helm", "unknown"],
)
async def test_fields_of_a_tool_or_an_unknown_manager_are_not_taken_over(body: Json, text: str) -> None:
    with pytest.raises(Conflict) as caught:
        await apply(conflicting(body), CHANGED, force=False)
    assert str(caught.value) == f"{text}, or pass --force-conflicts"


async def test_a_status_write_in_the_meantime_is_not_a_conflict() -> None:
    current = owned(("kubectl", "sealed"))
    current["metadata"]["resourceVersion"] = "8"
    client = conflicting(current)
    await apply(client, CHANGED, before=parsed(), force=False)
    versions = [
        options["body"]["metadata"]["resourceVersion"] for request, options in client.requests if "PATCH" in request
    ]
    assert versions == ["7", "8", "8"]


@pytest.mark.parametrize("field", ["generation", "uid"])
async def test_a_spec_that_changed_in_the_meantime_is_a_conflict(field: str) -> None:
    current = stored()
    current["metadata"] |= {"resourceVersion": "8", field: 2}
    with pytest.raises(Conflict, match="token changed in the meantime; check it and run the command again"):
        await apply(conflicting(current), CHANGED, before=parsed(), force=False)


async def test_an_object_that_was_deleted_in_the_meantime_is_a_conflict() -> None:
    client = FakeClient({f"PATCH {TOKEN}": Conflict("no such object"), f"GET {TOKEN}": NotFound("no")})
    with pytest.raises(Conflict, match="token was deleted in the meantime; run the command again to create it"):
        await apply(client, CHANGED, before=parsed(), force=False)


async def test_a_request_with_a_lost_response_does_not_conflict_with_itself() -> None:
    done = stored(sealed=NEXT, description="for CI")
    client = FakeClient({f"PATCH {TOKEN}": Conflict("the object has been modified"), f"GET {TOKEN}": done})
    assert (await apply(client, CHANGED, before=parsed(), force=False)).spec.sealed == NEXT


async def test_a_description_is_taken_over_even_if_nothing_else_is() -> None:
    client = conflicting(owned(("kubectl-edit", "description")))
    body = {**CHANGED, "spec": {**MANIFEST["spec"], "description": "mine"}}
    await apply(client, body, force=False)
    assert client.requests[-1][1]["query"]["force"] == "true"


async def test_a_description_that_someone_else_owns_as_well_is_removed() -> None:
    client = conflicting(owned(("kubectl-client-side-apply", "name sealed description")))
    await apply(client, MANIFEST, before=AccountSecret.parse(stored(description="for CI")), force=True)
    (_, removal), (_, applied) = [each for each in client.requests if "PATCH" in each[0]]
    assert (removal["media_type"], removal["body"]) == (
        "application/merge-patch+json", {"metadata": {"resourceVersion": "7"}, "spec": {"description": None}},
    )  # fmt: skip
    assert applied["body"]["spec"] == MANIFEST["spec"]


async def test_a_description_that_a_tool_owns_is_not_removed() -> None:
    client = conflicting(owned(("argocd-controller", "description")))
    for call in (apply, dry_run):
        with pytest.raises(Conflict, match=r"Argo CD manages token \(spec.description\); change it in Git"):
            await call(client, MANIFEST, before=AccountSecret.parse(stored(description="for CI")), force=False)
    assert {request for request, _ in client.requests} == {f"GET {TOKEN}"}


@pytest.mark.parametrize("field", ["generation", "uid"])
async def test_nothing_is_removed_from_an_object_that_changed_in_the_meantime(field: str) -> None:
    current = stored(description="for CI")
    current["metadata"][field] = 2
    with pytest.raises(Conflict, match="token changed in the meantime"):
        await apply(
            conflicting(current), MANIFEST, before=AccountSecret.parse(stored(description="for CI")), force=True
        )


async def test_a_dry_run_shows_what_would_be_removed() -> None:
    before = AccountSecret.parse(stored(description="for CI"))
    body = await dry_run(conflicting(stored(description="for CI")), MANIFEST, before=before, force=True)
    assert body["spec"] == MANIFEST["spec"]


async def test_an_object_that_keeps_changing_is_reported() -> None:
    client = FakeClient({f"PATCH {TOKEN}": Conflict("the object has been modified"), f"GET {TOKEN}": stored()})
    with pytest.raises(Conflict, match="token is being changed by others; run the command again"):
        await apply(client, CHANGED, before=parsed(), force=False)


async def test_a_cluster_without_the_crd_is_reported() -> None:
    with pytest.raises(NotFound, match="the cluster has no AccountSecrets resource"):
        await list_all(FakeClient({f"GET {ALL}": NotFound("no")}), "team")


async def test_a_variable_of_two_accountsecrets_is_ambiguous() -> None:
    client = FakeClient({f"GET {ALL}": listed(stored("one"), stored("two"))})
    with pytest.raises(AmbiguousName, match="TOKEN has 2 AccountSecrets in the account team: one, two;"):
        await by_variable(client, "team", "TOKEN")


async def test_a_name_that_no_object_can_have_is_not_requested() -> None:
    client = FakeClient({})
    with pytest.raises(NotFound, match="the account team has no such secret"):
        await find(client, "team", "../x")
    assert client.requests == []


def parsed(**spec: str) -> AccountSecret:
    return AccountSecret.parse(stored(**spec))


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (None, parsed(), ["created in team: TOKEN"]),
        (parsed(), parsed(), ["unchanged in team: TOKEN"]),
        (
            parsed(description="for CI"),
            parsed(sealed=NEXT, rotateAfter="30d"),
            [
                "changed in team: TOKEN",
                f"  sealed: new value, key {'b' * 16} (was {'a' * 16})",
                "  description: 'for CI' → none",
                "  rotateAfter: none → '30d'",
            ],
        ),
    ],
    ids=["created", "unchanged", "changed"],
)
def test_the_changes_of_an_accountsecret_are_listed(
    before: AccountSecret | None, after: AccountSecret, lines: list[str]
) -> None:
    assert list(changes(before, after)) == [f"accountsecret.devbox-secrets.dev/token {lines[0]}", *lines[1:]]
