"""The requests of each write, which the permissions in the chart must allow."""

import base64
import re
from collections.abc import Mapping

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecretStatus
from devbox_secrets.controller.rules.events import Event
from devbox_secrets.controller.writes import Writer
from devbox_secrets.errors import Conflict, Forbidden, NotFound
from devbox_secrets.kube.client import APPLY, MERGE, Body, Client, Response
from unit.controller.objects import CREATED, account_secret, secret
from unit.kube.fake_api import FakeApi, FakeClient

SECRET = "/api/v1/namespaces/box/secrets/devbox-account-secrets"  # noqa: S105 - a path
ACCOUNT_SECRET = "/apis/devbox-secrets.dev/v1beta1/namespaces/team/accountsecrets/a"  # noqa: S105 - a path
LEASE = "/apis/coordination.k8s.io/v1/namespaces/ours/leases/devbox-secrets"
EVENTS = "/apis/events.k8s.io/v1/namespaces/team/events"
REGARDING = {"kind": "AccountSecret", "namespace": "team", "name": "a", "resourceVersion": "7"}


class Recorder(FakeClient):
    """Records each request."""

    def __init__(self, api: FakeApi) -> None:
        super().__init__(api)
        self.sent: list[tuple[str, str, dict[str, str], Body, str]] = []

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        media_type: str = "application/json",
        **options: object,
    ) -> Response:
        self.sent.append((method, path, dict(query or {}), body or {}, media_type))
        return await super().send(method, path, query=query, body=body, media_type=media_type, **options)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def client(api: FakeApi) -> Recorder:
    return Recorder(api)


@pytest.fixture
def writer(client: Client) -> Writer:
    return Writer(client)


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({"uid": "uid-1"}, False),
        ({"uid": "uid-1", "labels": {"devbox-secrets.dev/account": "team"}}, True),
        ({"uid": "uid-1", "labels": {"devbox-secrets.dev/account": "other"}}, False),
        ({"uid": "uid-1", "labels": {"devbox-secrets.dev/account": "team"}, "deletionTimestamp": CREATED}, False),
        ({"uid": "uid-2", "labels": {"devbox-secrets.dev/account": "team"}}, False),
        (None, False),
    ],
)
async def test_a_namespace_has_its_uid_and_account_or_is_another(
    api: FakeApi, writer: Writer, metadata: Mapping[str, object] | None, found: bool
) -> None:
    if metadata is not None:
        api.put("/api/v1/namespaces/box", {"metadata": {"name": "box", **metadata}})
    assert await writer.has_namespace("box", "uid-1", "team") == found


async def test_a_secret_is_created_empty_by_a_separate_field_manager(client: Recorder, writer: Writer) -> None:
    body, new = await writer.create_account_secret("box")
    assert new
    assert body["metadata"]["resourceVersion"]
    assert client.sent[1] == (
        "PATCH",
        SECRET,
        {"fieldManager": "devbox-secrets-create"},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "devbox-account-secrets"}, "type": "Opaque"},
        APPLY,
    )


async def test_a_secret_that_exists_is_not_created(api: FakeApi, client: Recorder, writer: Writer) -> None:
    found = api.put(SECRET, secret("box", {"A": "1"}))
    assert await writer.create_account_secret("box") == (found, False)
    assert [each[0] for each in client.sent] == ["GET"]


async def test_a_secret_that_is_created_in_the_meantime_is_not_considered_ours(api: FakeApi, writer: Writer) -> None:
    api.before["PATCH", SECRET] = lambda: api.put(SECRET, secret("box", {"A": "1"}))
    _, new = await writer.create_account_secret("box")
    assert not new


async def test_a_secret_is_applied_with_force_at_the_known_version(
    api: FakeApi, client: Recorder, writer: Writer
) -> None:
    version = api.put(SECRET, secret("box", {}))["metadata"]["resourceVersion"]
    await writer.apply_account_secret("box", "team", {"A": SecretBytes(b"1"), "B": SecretBytes(b"")}, "uid", version)
    assert client.sent == [
        (
            "PATCH",
            SECRET,
            {"fieldManager": "devbox-secrets", "force": "true"},
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "Opaque",
                "metadata": {
                    "name": "devbox-account-secrets",
                    "labels": {"app.kubernetes.io/managed-by": "devbox-secrets", "devbox-secrets.dev/account": "team"},
                    "uid": "uid",
                    "resourceVersion": version,
                },
                "data": {"A": base64.b64encode(b"1").decode(), "B": ""},
            },
            APPLY,
        )
    ]


async def test_applying_does_not_create_a_deleted_secret_again(api: FakeApi, writer: Writer) -> None:
    metadata = api.put(SECRET, secret("box", {}))["metadata"]
    api.delete(SECRET)
    with pytest.raises(Conflict):
        await writer.apply_account_secret("box", "team", {}, metadata["uid"], metadata["resourceVersion"])
    assert SECRET not in api.objects


async def test_keys_are_removed_by_name(api: FakeApi, client: Recorder, writer: Writer) -> None:
    version = api.put(SECRET, secret("box", {"A": "1", "X": "2"}))["metadata"]["resourceVersion"]
    body = await writer.remove_account_secret_keys("box", ["X"], version)
    assert list(body["data"]) == ["A"]
    change = {"metadata": {"resourceVersion": version}, "data": {"X": None}}
    assert client.sent == [("PATCH", SECRET, {"fieldManager": "devbox-secrets"}, change, MERGE)]


async def test_a_secret_is_deleted_at_the_known_version(api: FakeApi, writer: Writer) -> None:
    version = api.put(SECRET, secret("box", {}))["metadata"]["resourceVersion"]
    await writer.delete_account_secret("box", version)
    assert SECRET not in api.objects


async def test_a_secret_that_is_gone_needs_no_deletion(client: Recorder, writer: Writer) -> None:
    await writer.delete_account_secret("box", "7")
    assert [each[:2] for each in client.sent] == [("DELETE", SECRET)]


async def test_fields_that_a_status_no_longer_has_are_removed(api: FakeApi, writer: Writer) -> None:
    found = api.put(ACCOUNT_SECRET, {**account_secret("A", "dbs1.…"), "status": {"keyId": "0123456789abcdef"}})
    status = AccountSecretStatus(observed_generation=2, changed_at="2026-01-01T00:00:00Z", conditions=())
    version = await writer.write_status("team", "a", status, found["metadata"]["resourceVersion"])
    written = api.objects[ACCOUNT_SECRET]
    assert written["status"] == {"observedGeneration": 2, "changedAt": "2026-01-01T00:00:00Z", "conditions": []}
    assert version == written["metadata"]["resourceVersion"]
    assert api.requests == [("PATCH", f"{ACCOUNT_SECRET}/status")]


async def test_only_the_sealed_value_is_replaced(api: FakeApi, client: Recorder, writer: Writer) -> None:
    version = api.put(ACCOUNT_SECRET, account_secret("A", "dbs1.old"))["metadata"]["resourceVersion"]
    body = await writer.write_sealed("team", "a", "dbs1.new", version)
    assert body["spec"] == {"name": "A", "sealed": "dbs1.new"}
    change = {"metadata": {"resourceVersion": version}, "spec": {"sealed": "dbs1.new"}}
    assert client.sent == [("PATCH", ACCOUNT_SECRET, {"fieldManager": "devbox-secrets"}, change, MERGE)]


async def test_a_write_does_not_overwrite_a_newer_state(api: FakeApi, writer: Writer) -> None:
    for path in (SECRET, ACCOUNT_SECRET, LEASE):
        api.put(path, {"metadata": {}})
    for write in (
        writer.apply_account_secret("box", "team", {}, "uid", "0"),
        writer.remove_account_secret_keys("box", [], "0"),
        writer.delete_account_secret("box", "0"),
        writer.write_status("team", "a", AccountSecretStatus(), "0"),
        writer.write_sealed("team", "a", "dbs1.new", "0"),
        writer.write_lease("ours", {}, "0"),
    ):
        with pytest.raises(Conflict):
            await write


async def test_writing_to_a_deleted_accountsecret_is_an_error(writer: Writer) -> None:
    with pytest.raises(NotFound):
        await writer.write_status("team", "a", AccountSecretStatus(), "7")
    with pytest.raises(NotFound):
        await writer.write_sealed("team", "a", "dbs1.new", "7")


async def test_an_event_refers_to_its_object_and_is_in_its_namespace(client: Recorder, writer: Writer) -> None:
    await writer.create_event(REGARDING, Event("CannotOpen", "why"), "2026-01-01T00:00:00.000000Z", "replica-1")
    ((method, path, _, body, _),) = client.sent
    assert (method, path) == ("POST", EVENTS)
    assert body == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": body["metadata"],
        "type": "Warning",
        "reason": "CannotOpen",
        "note": "why",
        "action": "Sync",
        "regarding": REGARDING,
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "devbox-secrets.dev",
        "reportingInstance": "replica-1",
    }


async def event_name(regarding: dict[str, str], event: Event) -> str:
    client = Recorder(FakeApi())
    await Writer(client).create_event(regarding, event, "2026-01-01T00:00:00.000000Z", "replica-1")
    name: str = client.sent[0][3]["metadata"]["name"]
    return name


@pytest.mark.parametrize(
    ("regarding", "event", "same"),
    [
        pytest.param(REGARDING, Event("CannotOpen", "why"), True, id="the same"),
        pytest.param(REGARDING, Event("CannotOpen", "why", "Normal"), True, id="another type"),
        pytest.param(REGARDING, Event("CannotOpen", "other"), False, id="another message"),
        pytest.param(REGARDING, Event("UnknownKey", "why"), False, id="another reason"),
        pytest.param({**REGARDING, "resourceVersion": "8"}, Event("CannotOpen", "why"), False, id="a later state"),
    ],
)
async def test_the_same_event_for_the_same_state_has_the_same_name(
    regarding: dict[str, str], event: Event, same: bool
) -> None:
    assert (await event_name(regarding, event) == await event_name(REGARDING, Event("CannotOpen", "why"))) is same


async def test_an_event_that_already_exists_is_not_an_error(api: FakeApi, writer: Writer) -> None:
    api.fail("POST", EVENTS, Conflict("409"), Forbidden("403"))
    await writer.create_event(REGARDING, Event("CannotOpen", "why"), "…", "replica-1")
    with pytest.raises(Forbidden):
        await writer.create_event(REGARDING, Event("CannotOpen", "why"), "…", "replica-1")


async def test_long_names_and_messages_of_events_are_shortened(client: Recorder, writer: Writer) -> None:
    await writer.create_event({**REGARDING, "name": "n" * 253}, Event("CannotOpen", "é" * 1000), "…", "replica-1")
    body = client.sent[0][3]
    assert len(body["metadata"]["name"]) <= 253
    assert body["note"] == "é" * 512


async def test_the_shortened_name_of_an_event_is_valid() -> None:
    name = await event_name({**REGARDING, "name": f"{'n' * 199}-{'n' * 10}"}, Event("CannotOpen", "why"))
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name)


async def test_the_lease_is_read_and_changed_at_its_version(api: FakeApi, writer: Writer) -> None:
    api.put(LEASE, {"metadata": {"name": "devbox-secrets"}})
    found = await writer.read_lease("ours")
    await writer.write_lease("ours", {"holderIdentity": "a"}, found["metadata"]["resourceVersion"])
    assert (await writer.read_lease("ours"))["spec"] == {"holderIdentity": "a"}
