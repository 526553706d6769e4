"""ServiceAccounts whose tokens are API keys: what is created, and the message for each rejection."""

import pytest

from devbox_secrets.cli.resources.service_accounts import Role, ServiceAccount, base_url
from devbox_secrets.errors import APIError, Conflict, DevboxSecretsError, Forbidden, KeyTooWide, NotFound, NotOurs
from unit.cli.fake_client import FakeClient, Json

RBAC = "/apis/rbac.authorization.k8s.io/v1"
BINDINGS = f"{RBAC}/namespaces/team/rolebindings"
ROLE = f"GET {RBAC}/clusterroles/devbox-secrets-edit"
ACCOUNTS = "/api/v1/namespaces/team/serviceaccounts"
# As in the API server's errors: if a role doesn't exist, the kind is that of the binding.
NO_ROLE = {"name": "devbox-secrets-edit", "group": "rbac.authorization.k8s.io", "kind": "rolebindings"}
NO_NAMESPACE = {"name": "team", "kind": "namespaces"}
TERMINATING = {"name": "ci", "kind": "rolebindings", "causes": [{"reason": "NamespaceTerminating"}]}


def bindings(*items: Json) -> Json:
    return {"metadata": {"resourceVersion": "1"}, "items": list(items)}


def binding(role: str) -> Json:
    return {
        "metadata": {"name": f"ci-{role}"},
        "roleRef": {"kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "ci", "namespace": "team"}],
    }


def responses(**changed: Json | Exception) -> dict[str, Json | Exception]:
    """The responses of a cluster where everything can be created."""
    requests = {"role": ROLE, "list": f"GET {BINDINGS}", "bind": f"POST {BINDINGS}", "create": f"POST {ACCOUNTS}"}
    usual: dict[str, Json | Exception] = {"role": {}, "list": bindings(), "bind": {}, "create": {}}
    return {requests[name]: response for name, response in (usual | changed).items()}


def service_account(responses: dict[str, Json | Exception]) -> ServiceAccount:
    return ServiceAccount(FakeClient(responses), "team", "ci")


async def test_the_role_is_bound_before_the_service_account_is_created() -> None:
    client = FakeClient(responses())
    assert await ServiceAccount(client, "team", "ci").create(Role.EDIT) == [
        "bound devbox-secrets-edit to serviceaccount/ci in team",
        "created serviceaccount/ci in team",
    ]
    assert [request for request, _ in client.requests][-2:] == [f"POST {BINDINGS}", f"POST {ACCOUNTS}"]


async def test_existing_objects_are_not_changed() -> None:
    existing = responses(list=bindings(binding("devbox-secrets-edit")), create=Conflict("already exists"))
    assert await service_account(existing).create(Role.EDIT) == []


@pytest.mark.parametrize(
    ("changed", "error", "sentence"),
    [
        ({"role": NotFound("no")}, NotFound, "the ClusterRole devbox-secrets-edit doesn't exist;"),
        (
            {"role": Forbidden("no"), "bind": NotFound("no", details=NO_ROLE)},
            NotFound,
            "the ClusterRole devbox-secrets-edit doesn't exist;",
        ),
        ({"bind": NotFound("no", details=NO_NAMESPACE)}, NotFound, "the namespace team doesn't exist; create it,"),
        ({"list": Forbidden("no")}, Forbidden, "you don't have permission to read or create RoleBindings in team;"),
        ({"bind": Forbidden("no")}, Forbidden, "you don't have permission to read or create RoleBindings in team;"),
        ({"bind": Forbidden("403 …", details=TERMINATING)}, Forbidden, "^403 …$"),
        ({"bind": Conflict("no")}, NotOurs, "the RoleBinding ci-devbox-secrets-edit in team is already in use;"),
        ({"create": APIError("something else")}, APIError, "something else"),
    ],
    ids=[
        "no role", "no role, for a caller who cannot read it", "no namespace", "cannot list", "cannot bind",
        "the namespace is being deleted",
        "a binding of that name", "anything else",
    ],
)  # fmt: skip
async def test_a_rejected_creation_is_reported(
    changed: dict[str, Exception], error: type[DevboxSecretsError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        await service_account(responses(**changed)).create(Role.EDIT)


async def test_an_edit_key_is_not_issued_as_a_view_key() -> None:
    with pytest.raises(
        KeyTooWide, match="ci in team can edit secrets because of the RoleBinding ci-devbox-secrets-edit"
    ):
        await service_account(responses(list=bindings(binding("devbox-secrets-edit")))).create(Role.VIEW)


@pytest.mark.parametrize(
    ("ports", "url"),
    [
        ([{"name": "http", "port": 80}], "http://devbox-secrets-gateway.ours.svc"),
        ([{"name": "https", "port": 8443}], "https://devbox-secrets-gateway.ours.svc:8443"),
        ([{"port": 80}], None),
        ([{"name": "metrics", "port": 9}, {"name": "http", "port": 80}], "http://devbox-secrets-gateway.ours.svc"),
        (None, None),
    ],
)
async def test_the_gateway_s_address_is_that_of_its_service(
    ports: list[dict[str, object]] | None, url: str | None
) -> None:
    spec = {} if ports is None else {"ports": ports}
    client = FakeClient({"GET /api/v1/namespaces/ours/services/devbox-secrets-gateway": {"spec": spec}})
    assert await base_url(client, "ours") == url
