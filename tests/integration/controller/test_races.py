"""Changes between the operator's reads and writes, on a real API server.

The reconciler runs in the test's own process, so that each change happens at an exact moment.
"""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.manifest import manifest
from devbox_secrets.api.models import AccountSecret, AccountSecretSpec
from devbox_secrets.api.names import ALL_ACCOUNT_SECRETS_PATH, CREATE_FIELD_MANAGER, NAMESPACES_PATH
from devbox_secrets.controller.cache import Cache
from devbox_secrets.controller.event_recorder import EventRecorder
from devbox_secrets.controller.opener import Opener
from devbox_secrets.controller.reconciler import Reconciler
from devbox_secrets.controller.writes import Writer
from devbox_secrets.crypto.envelope import KeyPair, Keyring
from devbox_secrets.errors import APIError, Conflict
from devbox_secrets.kube.client import APPLY, Client, Response
from devbox_secrets.kube.config import ClientConfig
from harness.controlplane import ControlPlane
from integration.support.account import SECRET
from integration.support.chart import ACCOUNT, Json, get

KEY = KeyPair.generate(datetime(2026, 1, 1, tzinfo=UTC))
VARIABLE = "TOKEN"
NAME = "token"

pytestmark = pytest.mark.usefixtures("crds")


class RacingClient(Client):
    """A client that calls a function just before a write, once."""

    before_creation: Callable[[], object] | None = None
    before_apply: Callable[[], object] | None = None
    before_status: Callable[[], object] | None = None

    async def send(self, method: str, path: str, **options: Any) -> Response:  # noqa: ANN401 - as in its parent
        race: Callable[[], object] | None = None
        if options.get("query", {}).get("fieldManager") == CREATE_FIELD_MANAGER:
            race, self.before_creation = self.before_creation, None
        elif options.get("media_type") == APPLY:
            race, self.before_apply = self.before_apply, None
        elif path.endswith("/status"):
            race, self.before_status = self.before_status, None
        if race:
            race()
        return await super().send(method, path, **options)


class Operator:
    """The operator's parts without its watches: the test decides when it reads objects."""

    def __init__(self, controlplane: ControlPlane, client: RacingClient) -> None:
        self.controlplane = controlplane
        self.client = client
        self.writer = Writer(client)
        self.cache = Cache()
        clock = partial(next, _hours())
        opener = Opener(lambda: Keyring([KEY]), self.writer.read_sealed)
        recorder = EventRecorder(self.writer, self.cache, "test", clock)
        self._reconciler = Reconciler(self.writer, self.cache, opener, recorder.record, reserved=(), clock=clock)

    async def reconcile(self, account: str) -> None:
        await self._reconciler.reconcile(account, time.monotonic())

    async def observe_namespaces(self) -> set[str]:
        return self.cache.replace_namespaces(*await self.client.list_all(NAMESPACES_PATH, dict))

    async def observe_account_secrets(self) -> None:
        self.cache.replace_account_secrets(*await self.client.list_all(ALL_ACCOUNT_SECRETS_PATH, AccountSecret.parse))

    async def begin(self, account: str) -> None:
        """Apply an account's first value, and observe it."""
        self.put(account, b"1")
        await self.observe_namespaces()
        await self.observe_account_secrets()

    def put(self, account: str, value: bytes, **spec: str) -> None:
        sealed = KEY.public.seal(SecretBytes(value), account=account, name=VARIABLE)
        body = manifest(account, AccountSecretSpec(name=VARIABLE, sealed=sealed, **spec), NAME)
        self.controlplane.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(body))

    def status(self, account: str) -> Json:
        status: Json = get(self.controlplane, "accountsecret", NAME, "-n", account).get("status", {})
        return status


def _hours() -> Iterator[datetime]:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    while True:
        yield (now := now + timedelta(hours=1))


@pytest.fixture
async def it(controlplane: ControlPlane) -> AsyncIterator[Operator]:
    async with RacingClient.connect(ClientConfig(controlplane.kubeconfig)) as client:
        yield Operator(controlplane, client)


async def test_nothing_is_ready_before_its_namespace_was_observed(it: Operator, namespace: str) -> None:
    it.put(namespace, b"1")
    await it.observe_account_secrets()
    await it.reconcile(namespace)
    assert it.status(namespace)["conditions"][0]["reason"] == "Pending"
    assert namespace in await it.observe_namespaces()
    await it.reconcile(namespace)
    assert it.status(namespace)["conditions"][0]["reason"] == "Synced"


async def test_a_change_is_dated_even_if_its_first_status_write_conflicts(it: Operator, namespace: str) -> None:
    await it.begin(namespace)
    await it.reconcile(namespace)
    before = it.status(namespace)["changedAt"]

    it.put(namespace, b"2")
    await it.observe_account_secrets()
    it.client.before_status = partial(it.put, namespace, b"2", description="meanwhile")
    with pytest.raises(APIError, match="409"):
        await it.reconcile(namespace)
    await it.observe_account_secrets()
    await it.reconcile(namespace)
    assert it.status(namespace)["changedAt"] > before


async def test_a_secret_written_to_a_namespace_that_left_meanwhile_is_deleted(
    it: Operator, controlplane: ControlPlane, namespace: str
) -> None:
    guest = f"{namespace}-guest"
    controlplane.kubectl("create", "namespace", guest)
    controlplane.kubectl("label", "namespace", guest, f"{ACCOUNT}={namespace}")
    await it.begin(namespace)

    def leave() -> None:
        controlplane.kubectl("label", "namespace", guest, f"{ACCOUNT}-")
        assert guest in it.cache.upsert_namespace(get(controlplane, "namespace", guest))

    it.client.before_apply = leave
    await it.reconcile(namespace)
    # Now the watch delivers the written Secret.
    find = ("secret", SECRET, "-n", guest)
    assert it.cache.upsert_secret(get(controlplane, *find, "--show-managed-fields")) == {guest}
    await it.reconcile(guest)
    assert "NotFound" in controlplane.kubectl("get", *find, check=False).stderr


async def test_someone_elses_secret_created_just_before_ours_is_not_changed(
    it: Operator, controlplane: ControlPlane, namespace: str
) -> None:
    await it.begin(namespace)
    it.client.before_creation = partial(
        controlplane.kubectl,
        *("create", "secret", "generic", SECRET, "-n", namespace, "--from-literal=THEIRS=x"),
    )
    with pytest.raises(APIError, match="was created meanwhile"):
        await it.reconcile(namespace)
    await it.reconcile(namespace)
    assert it.status(namespace)["conditions"][0]["reason"] == "NotOwned"
    theirs = get(controlplane, "secret", SECRET, "-n", namespace)
    assert theirs["data"] == {"THEIRS": "eA=="}
    assert "labels" not in theirs["metadata"]


async def test_a_secret_that_was_created_but_never_filled_is_still_owned(
    it: Operator, controlplane: ControlPlane, namespace: str
) -> None:
    await it.begin(namespace)
    body, new = await it.writer.create_account_secret(namespace)
    assert new
    it.cache.upsert_secret(body)
    await it.reconcile(namespace)
    assert it.status(namespace)["conditions"][0]["reason"] == "Synced"
    assert get(controlplane, "secret", SECRET, "-n", namespace)["data"] == {VARIABLE: "MQ=="}


async def test_a_write_planned_for_an_older_version_is_rejected(it: Operator, namespace: str) -> None:
    created, _ = await it.writer.create_account_secret(namespace)
    uid, old = created["metadata"]["uid"], created["metadata"]["resourceVersion"]
    await it.writer.apply_account_secret(namespace, namespace, {VARIABLE: SecretBytes(b"new")}, uid, old)
    with pytest.raises(APIError, match="409"):
        await it.writer.apply_account_secret(namespace, namespace, {VARIABLE: SecretBytes(b"old")}, uid, old)
    body, new = await it.writer.create_account_secret(namespace)
    assert not new
    assert body["data"] == {VARIABLE: "bmV3"}


async def test_a_write_to_a_deleted_secret_is_rejected(
    it: Operator, controlplane: ControlPlane, namespace: str
) -> None:
    created, _ = await it.writer.create_account_secret(namespace)
    uid, version = created["metadata"]["uid"], created["metadata"]["resourceVersion"]
    await it.writer.delete_account_secret(namespace, version)
    with pytest.raises(Conflict):
        await it.writer.apply_account_secret(namespace, namespace, {VARIABLE: SecretBytes(b"1")}, uid, version)
    assert "NotFound" in controlplane.kubectl("get", "secret", SECRET, "-n", namespace, check=False).stderr
