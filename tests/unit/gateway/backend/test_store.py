"""The store: how it handles the API server's objects, rejections and conflicts."""

from functools import partial

import pytest
from pydantic import SecretBytes

from devbox_secrets.crypto.envelope import KeyPair
from devbox_secrets.errors import Conflict, Forbidden, Invalid, NotFound, ReservedName, ValueTooLarge
from devbox_secrets.gateway.backend import store as store_module
from devbox_secrets.gateway.backend.auth import Caller
from devbox_secrets.gateway.backend.record import Record
from devbox_secrets.gateway.backend.store import Store
from devbox_secrets.gateway.backend.upstream import Body
from devbox_secrets.gateway.contract.errors import ErrorResponse
from unit.gateway.api_server import EDIT, KEYS, VIEW, APIServer, once, ready

V, W = SecretBytes(b"v"), SecretBytes(b"w")


@pytest.fixture
def server() -> APIServer:
    return APIServer()


@pytest.fixture
def caller(server: APIServer) -> Caller:
    return Caller("team-a", server.add_account("team-a"))


@pytest.fixture
def store(server: APIServer) -> Store:
    return Store(server, "devbox-secrets", ("PATH", "LD_*"))


async def create(store: Store, caller: Caller, name: str = "TOKEN", request_id: str | None = None) -> Record:
    return await store.create(caller, name, V, request_id)


# --- Creations


async def test_a_value_is_sealed_for_the_account_and_the_name(server: APIServer, store: Store, caller: Caller) -> None:
    record = await create(store, caller)
    assert (record.variable, record.id.name) == ("TOKEN", "token")
    assert server.opened("team-a", "token") == b"v"


async def test_creating_an_existing_name_is_a_bad_request(store: Store, caller: Caller) -> None:
    await create(store, caller)
    with pytest.raises(ErrorResponse, match="already") as caught:
        await create(store, caller)
    assert caught.value.status == 400


async def test_a_retry_of_a_creation_returns_the_created_secret(
    server: APIServer, store: Store, caller: Caller
) -> None:
    first = await create(store, caller, request_id="one")
    assert await create(store, caller, request_id="one") == first
    assert len(server.objects) == 1


async def test_a_creation_that_loses_a_race_is_rejected(server: APIServer, store: Store, caller: Caller) -> None:
    def before(method: str, _: str) -> None:
        if method == "POST" and not server.objects:
            server.put("team-a", "token", "TOKEN")

    server.before = before
    with pytest.raises(ErrorResponse, match="already"):
        await create(store, caller)


async def test_if_the_object_s_name_is_taken_another_one_is_used(
    server: APIServer, store: Store, caller: Caller
) -> None:
    server.put("team-a", "token", "OTHER")
    record = await create(store, caller)
    assert record.id.name.startswith("token--")


async def test_if_both_names_are_taken_the_error_names_kubectl(server: APIServer, store: Store, caller: Caller) -> None:
    server.before = lambda method, _: _fail(Conflict("409")) if method == "POST" else None
    with pytest.raises(ErrorResponse, match="kubectl"):
        await create(store, caller)


def _fail(error: Exception) -> None:
    raise error


async def test_a_reserved_name_is_not_created(server: APIServer, store: Store, caller: Caller) -> None:
    with pytest.raises(ReservedName):
        await create(store, caller, "LD_PRELOAD")
    assert server.requests == []


# --- Rejected creations


async def test_the_error_in_a_namespace_of_another_account_names_the_home(
    server: APIServer, store: Store, caller: Caller
) -> None:
    server.join("team-a", "platform")
    with pytest.raises(ErrorResponse) as caught:
        await create(store, caller)
    assert caught.value.status == 422
    assert str(caught.value) == (
        "this namespace belongs to the account platform; name that account in the header X-Devbox-Secrets-Account,"
        " and use a token whose user has the role devbox-secrets-edit in platform"
    )


async def test_the_error_for_a_caller_with_only_read_permission_does_not_name_the_home(
    server: APIServer, store: Store
) -> None:
    caller = Caller("box", server.add_account("box", VIEW))
    server.join("box", "platform")
    with pytest.raises(Forbidden):
        await create(store, caller)


@pytest.mark.parametrize("refusal", [Invalid, Forbidden])
async def test_a_rejection_in_the_home_is_unchanged(
    refusal: type[Invalid] | type[Forbidden], server: APIServer, store: Store, caller: Caller
) -> None:
    server.before = once(refusal("by another policy"), "POST")
    with pytest.raises(refusal):
        await create(store, caller)


async def test_without_permission_to_read_the_namespace_a_rejection_is_unchanged(
    server: APIServer, store: Store
) -> None:
    caller = Caller("box", server.add_account("box", EDIT - {"get namespaces"}))
    server.join("box", "platform")
    with pytest.raises(Invalid):
        await create(store, caller)


async def test_the_namespace_is_only_read_after_a_rejection(server: APIServer, store: Store, caller: Caller) -> None:
    await create(store, caller)
    assert "GET /api/v1/namespaces/team-a" not in server.requests


# --- Sealing keys


async def test_the_public_key_is_cached_for_a_while(
    server: APIServer, store: Store, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("A", "B"):
        await create(store, caller, name)
    reads = [request for request in server.requests if "configmaps" in request]
    assert len(reads) == 1
    monkeypatch.setattr(store_module, "KEY_SECONDS", 0)
    newer = KeyPair.generate(KEYS.newest.created)
    server.public_keys = {"newest": str(newer.public)}
    record = await create(store, caller, "C")
    assert server.objects["team-a", record.id.name]["spec"]["sealed"].startswith(f"dbs1.{newer.public.id}.")


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [(None, "public keys doesn't exist"), ({}, "no sealing key"), ({"newest": "x"}, "no sealing key")],
)
async def test_without_a_public_key_a_creation_can_be_retried(
    keys: dict[str, str] | None, sentence: str, server: APIServer, store: Store, caller: Caller
) -> None:
    server.public_keys = keys
    with pytest.raises(ErrorResponse, match=sentence) as caught:
        await create(store, caller)
    assert (caught.value.status, caught.value.retry_after) == (503, 2)


# --- Finding


async def test_a_secret_is_found_by_name_and_by_id(store: Store, caller: Caller) -> None:
    record = await create(store, caller)
    assert await store.by_name(caller, "TOKEN") == record
    assert await store.by_id(caller, record.id.text) == record


async def test_of_two_secrets_with_one_name_the_older_is_found(server: APIServer, store: Store, caller: Caller) -> None:
    server.put("team-a", "older", "TOKEN")
    server.put("team-a", "newer", "TOKEN")
    assert (await store.by_name(caller, "TOKEN")).id.name == "older"


async def test_a_secret_that_devboxes_get_is_found_with_a_single_read(
    server: APIServer, store: Store, caller: Caller
) -> None:
    server.put("team-a", "older", "OTHER")
    record = await create(store, caller)
    await server.set_status("team-a", "token", ready())
    server.requests.clear()
    found = await store.by_name(caller, "TOKEN")
    assert (found.id, found.variable, len(server.requests)) == (record.id, "TOKEN", 1)


@pytest.mark.parametrize("status", [None, ready(message="the older one has the name", reason="NameConflict")])
async def test_an_object_with_the_expected_name_is_not_found_if_devboxes_get_another(
    status: Body | None, server: APIServer, store: Store, caller: Caller
) -> None:
    server.put("team-a", "older", "TOKEN")
    server.put("team-a", "token", "TOKEN")
    if status:
        await server.set_status("team-a", "token", status)
    assert (await store.by_name(caller, "TOKEN")).id.name == "older"


async def test_an_object_with_the_expected_name_is_not_found_if_it_has_another_variable(
    server: APIServer, store: Store, caller: Caller
) -> None:
    server.put("team-a", "token", "OTHER")
    await server.set_status("team-a", "token", ready())
    record = await create(store, caller)
    assert (await store.by_name(caller, "TOKEN")).id == record.id


@pytest.mark.parametrize("name", ["ABSENT", "no-name", "", "A,spec.name=B"])
async def test_an_absent_name_is_not_found(name: str, store: Store, caller: Caller) -> None:
    with pytest.raises(ErrorResponse) as caught:
        await store.by_name(caller, name)
    assert caught.value.status == 404


async def test_an_id_does_not_find_an_object_that_was_created_again(
    server: APIServer, store: Store, caller: Caller
) -> None:
    record = await create(store, caller)
    del server.objects["team-a", "token"]
    await create(store, caller)
    with pytest.raises(ErrorResponse) as caught:
        await store.by_id(caller, record.id.text)
    assert caught.value.status == 404


# --- Pages


async def test_pages_are_newest_first_and_follow_one_another(store: Store, caller: Caller) -> None:
    ids = [(await create(store, caller, f"S{number}")).id.text for number in range(5)][::-1]
    first = await store.page(caller, 2, None)
    assert ([it.id.text for it in first.records], first.has_more, first.total) == (ids[:2], True, 5)
    last = await store.page(caller, 3, ids[1])
    assert ([it.id.text for it in last.records], last.has_more, last.total) == (ids[2:], False, 5)


async def test_a_list_is_read_from_the_api_server_in_parts(
    server: APIServer, store: Store, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_PAGE_SIZE", 2)
    for number in range(5):
        server.put("team-a", f"s{number}", f"S{number}")
    assert (await store.page(caller, 10, None)).total == 5
    assert len(server.requests) == 3


async def test_a_page_after_an_invalid_id_is_a_bad_request(store: Store, caller: Caller) -> None:
    with pytest.raises(ErrorResponse, match="starting_after") as caught:
        await store.page(caller, 10, "TOKEN")
    assert caught.value.status == 400


# --- Updates


async def test_an_update_seals_the_new_value(server: APIServer, store: Store, caller: Caller) -> None:
    record = await create(store, caller)
    updated = await store.update(caller, partial(store.by_name, caller, "TOKEN"), W, None)
    assert (updated.id, updated.generation) == (record.id, 2)
    assert server.opened("team-a", "token") == b"w"


async def test_a_retry_of_an_older_update_does_not_restore_its_value(
    server: APIServer, store: Store, caller: Caller
) -> None:
    await create(store, caller)
    find = partial(store.by_name, caller, "TOKEN")
    await store.update(caller, find, V, "first")
    second = await store.update(caller, find, W, "second")
    assert await store.update(caller, find, V, "first") == second
    assert server.opened("team-a", "token") == b"w"


async def test_the_same_id_with_another_value_is_another_request(
    server: APIServer, store: Store, caller: Caller
) -> None:
    await create(store, caller, request_id="one")
    with pytest.raises(ErrorResponse, match="already"):
        await store.create(caller, "TOKEN", W, "one")
    find = partial(store.by_name, caller, "TOKEN")
    for value in (V, W, V):
        await store.update(caller, find, value, "one")
    assert server.opened("team-a", "token") == b"w"  # the third is a retry of the first


async def test_a_retry_with_another_token_is_another_request(server: APIServer, store: Store, caller: Caller) -> None:
    find = partial(store.by_name, caller, "TOKEN")
    await create(store, caller)
    await store.update(caller, find, V, "first")
    await store.update(caller, find, W, "second")
    server.users["newer"], server.rights["newer", "team-a"] = server.users[caller.token], EDIT
    await store.update(Caller("team-a", "newer"), find, V, "first")
    assert server.opened("team-a", "token") == b"v"


async def test_an_update_that_conflicts_is_retried(server: APIServer, store: Store, caller: Caller) -> None:
    await create(store, caller)
    server.before = once(Conflict("409"), "PATCH")
    await store.update(caller, partial(store.by_name, caller, "TOKEN"), W, None)
    assert server.opened("team-a", "token") == b"w"


async def test_an_update_that_always_conflicts_can_be_retried_later(
    server: APIServer, store: Store, caller: Caller
) -> None:
    await create(store, caller)
    server.before = lambda method, _: _fail(Conflict("409")) if method == "PATCH" else None
    with pytest.raises(ErrorResponse) as caught:
        await store.update(caller, partial(store.by_name, caller, "TOKEN"), W, None)
    assert caught.value.status == 503
    assert sum(request.startswith("PATCH") for request in server.requests) == 5


async def test_an_update_s_value_must_fit(store: Store, caller: Caller) -> None:
    await create(store, caller)
    with pytest.raises(ValueTooLarge):
        await store.update(caller, partial(store.by_name, caller, "TOKEN"), SecretBytes(b"v" * 131_072), None)


# --- Deletions


async def test_a_deletion_returns_the_deleted_secret(server: APIServer, store: Store, caller: Caller) -> None:
    record = await create(store, caller)
    assert await store.delete(caller, partial(store.by_name, caller, "TOKEN")) == record
    assert server.objects == {}


async def test_a_deletion_does_not_delete_a_secret_that_was_created_again(
    server: APIServer, store: Store, caller: Caller
) -> None:
    await create(store, caller)

    def before(method: str, _: str) -> None:
        if method == "DELETE":
            server.put("team-a", "token", "TOKEN")

    server.before = before
    with pytest.raises(ErrorResponse) as caught:
        await store.delete(caller, partial(store.by_name, caller, "TOKEN"))
    assert caught.value.status == 404
    assert ("team-a", "token") in server.objects


# --- The cluster


async def test_a_cluster_without_the_crd_is_not_an_empty_account(
    server: APIServer, store: Store, caller: Caller
) -> None:
    server.before = once(NotFound("404"), "GET")
    with pytest.raises(ErrorResponse, match="CRD") as caught:
        await store.page(caller, 10, None)
    assert caught.value.status == 503
