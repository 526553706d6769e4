"""The operator's process: how its parts are connected, without a control plane."""

import asyncio
import base64
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp
import pytest
from pydantic import SecretBytes

from devbox_secrets.api.names import (
    ACCOUNT_SECRET,
    ALL_ACCOUNT_SECRETS_PATH,
    GATEWAY_FIELD_MANAGER,
    KEYS_SECRET,
    NAMESPACES_PATH,
    PLURAL,
    PUBLIC_KEYS_CONFIGMAP,
    SECRETS_PATH,
    account_secrets_path,
)
from devbox_secrets.controller import process
from devbox_secrets.controller.cache import Cache, abridge, is_abridged
from devbox_secrets.controller.leader import RENEW_DEADLINE_SECONDS, LeaderElector
from devbox_secrets.controller.process import Controller
from devbox_secrets.controller.reconciler import Reconciler
from devbox_secrets.controller.resealer import Resealer
from devbox_secrets.controller.settings import ControllerSettings
from devbox_secrets.controller.watch import Watches
from devbox_secrets.crypto.envelope import KeyPair, Keyring, key_id_of
from devbox_secrets.errors import ConfigError, Conflict, Forbidden, NotFound, Unreachable
from devbox_secrets.kube.client import Client
from devbox_secrets.serving import logs
from unit.controller.objects import KEY, OLD_KEY, Body, account_secret, at, namespace, seal, secret
from unit.controller.virtual_time import in_virtual_time, settle
from unit.kube.fake_api import FakeApi, FakeClient
from unit.serving.ports import free_port

LEASE = "/apis/coordination.k8s.io/v1/namespaces/ours/leases/devbox-secrets"
KEYS = f"/api/v1/namespaces/ours/secrets/{KEYS_SECRET}"
PUBLIC_KEYS = f"/api/v1/namespaces/ours/configmaps/{PUBLIC_KEYS_CONFIGMAP}"
A, B = account_secrets_path("team", "a"), account_secrets_path("team", "b")
MOST_SECONDS = 3600


class Cluster:
    """A cluster in memory, and an operator without watches."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - the settings' own
        self.api = FakeApi()
        self.api.put(LEASE, {"metadata": {"name": "devbox-secrets"}})
        self.api.put(PUBLIC_KEYS, {"metadata": {"name": PUBLIC_KEYS_CONFIGMAP}})
        self.put_keys(KEY)
        self.put_namespace("team")
        self.settings = ControllerSettings(namespace="ours", rotate_keys=None, **settings)
        loop = asyncio.get_running_loop()
        self.frozen_seconds = 0
        """For how long the process was frozen: its clock continued, but no timer fired."""

        def clock() -> float:
            return loop.time() + self.frozen_seconds

        with mock.patch.object(process, "LeaderElector", partial(LeaderElector, clock=clock)):
            self.controller = Controller(FakeClient(self.api), self.settings)

    def put_keys(self, *keys: KeyPair) -> None:
        data = {key.public.id: base64.b64encode(key.dump()).decode() for key in keys}
        self.api.put(KEYS, {"metadata": {"name": KEYS_SECRET, "namespace": "ours"}, "data": data})

    def put_namespace(self, name: str, account: str | None = None) -> Body:
        return self.api.put(f"{NAMESPACES_PATH}/{name}", namespace(name, account))

    def put(self, variable: str, sealed: str, managed_fields: object = (), **spec: str) -> Body:
        """Store an AccountSecret, and notify the operator as its watch would."""
        body = account_secret(variable, sealed, "team", **spec)
        body["metadata"]["managedFields"] = managed_fields
        written = self.api.put(account_secrets_path("team", variable.lower()), body)
        self.controller.enqueue(self.controller.cache.upsert_account_secret(written))
        return written

    def put_unnoticed(self, variable: str, sealed: str) -> None:
        """Store an AccountSecret without notifying the operator."""
        self.api.put(account_secrets_path("team", variable.lower()), account_secret(variable, sealed))

    def values(self, where: str = "team") -> dict[str, str] | None:
        """Return the values of a namespace's account Secret, or None if it doesn't exist."""
        found = self.api.objects.get(f"{NAMESPACES_PATH}/{where}/secrets/{ACCOUNT_SECRET}")
        data: dict[str, str] = (found or {}).get("data") or {}
        return {name: base64.b64decode(raw).decode() for name, raw in data.items()} if found else None

    def reason(self, path: str = A) -> str | None:
        conditions = (self.api.objects[path].get("status") or {}).get("conditions") or []
        return next((str(each["reason"]) for each in conditions if each["type"] == "Ready"), None)

    def give_lease_to(self, holder: str, renew_time: str = "") -> None:
        spec = {"holderIdentity": holder, "renewTime": renew_time}
        self.api.put(LEASE, {"metadata": {"name": "devbox-secrets"}, "spec": spec})

    def metric(self, name: str) -> float:
        """Return the value of one of the metrics that Prometheus reads."""
        (line,) = (line for line in self.controller.measure().decode().splitlines() if line.startswith(f"{name} "))
        return float(line.rpartition(" ")[2])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Controller]:
        """Read everything, and run all jobs during the block."""
        await self.controller.sync()
        tasks = [asyncio.create_task(job) for job in self.controller.jobs()]
        try:
            await settle()
            yield self.controller
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in ended] == [asyncio.CancelledError] * len(tasks)


@in_virtual_time
async def test_the_operator_is_not_ready_before_it_has_read_everything() -> None:
    cluster = Cluster()
    assert await cluster.controller.unready() == "reading the cluster's state; the Lease has not been read yet"
    await cluster.controller.sync()
    assert await cluster.controller.unready() is None


@in_virtual_time
async def test_the_operator_is_not_ready_before_it_knows_the_leader() -> None:
    cluster = Cluster()
    cluster.api.fail("GET", LEASE, Forbidden("GET …: 403"))
    await cluster.controller.sync()
    assert cluster.controller.has_synced
    assert await cluster.controller.unready() == "cannot read or renew the Lease: GET …: 403"
    await cluster.controller.elector.acquire_or_renew()
    assert await cluster.controller.unready() is None


@in_virtual_time
async def test_the_operator_lists_each_kind_once_and_only_secrets_of_one_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    cluster = Cluster()
    cluster.put_unnoticed("A", seal("1", "A"))
    await cluster.controller.sync()
    read = cluster.api.paths("GET")
    assert sorted(read) == sorted([LEASE, KEYS, NAMESPACES_PATH, SECRETS_PATH, ALL_ACCOUNT_SECRETS_PATH])
    # Namespaces first, because they determine the account of a Secret.
    assert read[-3:] == [NAMESPACES_PATH, SECRETS_PATH, ALL_ACCOUNT_SECRETS_PATH]
    assert cluster.api.paths("PATCH") == [LEASE]
    assert caplog.messages[-1] == "ready: 1 AccountSecrets, 1 sealing keys"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (KEYS, "cannot read the sealing keys"),
        (NAMESPACES_PATH, "cannot list the cluster's objects"),
        (SECRETS_PATH, "cannot list the cluster's objects"),
        (ALL_ACCOUNT_SECRETS_PATH, "cannot list the cluster's objects"),
    ],
)
@in_virtual_time
async def test_a_failure_at_the_start_is_reported_and_retried_until_it_succeeds(
    path: str, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster()
    cluster.api.fail("GET", path, *[Forbidden("GET …: 403")] * 10)
    syncing = asyncio.create_task(cluster.controller.sync())
    await asyncio.sleep(1)
    assert await cluster.controller.unready() == f"reading the cluster's state; {problem}: GET …: 403"
    await syncing
    assert await cluster.controller.unready() is None
    assert caplog.messages == [f"{problem}: GET …: 403; retrying"]


@in_virtual_time
async def test_the_leader_reconciles_every_account() -> None:
    cluster = Cluster()
    cluster.put_namespace("box", "team")
    cluster.put_unnoticed("A", seal("1", "A"))
    async with cluster.running():
        assert cluster.values() == cluster.values("box") == {"A": "1"}
        assert cluster.reason() == "Synced"


@in_virtual_time
async def test_a_change_is_reconciled() -> None:
    cluster = Cluster()
    async with cluster.running():
        cluster.put("A", seal("1", "A"))
        await settle()
        assert cluster.values() == {"A": "1"}


@in_virtual_time
async def test_a_replica_that_does_not_lead_enqueues_and_writes_nothing() -> None:
    cluster = Cluster()
    cluster.give_lease_to("other")
    async with cluster.running() as controller:
        cluster.put("A", seal("1", "A"))
        await settle()
        assert cluster.metric("devbox_secrets_workqueue_depth") == 0
        assert cluster.metric("devbox_secrets_leader") == 0
        assert cluster.api.paths("PATCH") == cluster.api.paths("POST") == []
        assert await controller.unready() is None


@in_virtual_time
async def test_the_queue_of_a_former_leader_is_not_reported() -> None:
    cluster = Cluster()
    teams = [f"team-{number}" for number in range(20)]  # more than workers
    for team in teams:
        cluster.put_namespace(team)
    async with cluster.running() as controller:
        cluster.give_lease_to("other", "2099-01-01T00:00:00.000000Z")
        cluster.frozen_seconds = 60  # so nothing can be written, and everything is retried later
        for team in teams:
            body = cluster.api.put(account_secrets_path(team, "a"), account_secret("A", seal("1", "A"), team))
            controller.enqueue(controller.cache.upsert_account_secret(body))
        await asyncio.sleep(5)
        assert not controller.elector.leading.is_set()
        assert cluster.metric("devbox_secrets_workqueue_depth") == 0


@in_virtual_time
async def test_a_new_leader_reconciles_from_a_list_of_its_term() -> None:
    cluster = Cluster()
    cluster.give_lease_to("other")
    async with cluster.running():
        cluster.put_unnoticed("A", seal("1", "A"))
        cluster.give_lease_to("")
        cluster.api.requests.clear()
        await asyncio.sleep(2)
        assert ALL_ACCOUNT_SECRETS_PATH in cluster.api.paths("GET")
        assert cluster.values() == {"A": "1"}


@in_virtual_time
async def test_a_leader_does_not_list_twice_in_a_term() -> None:
    cluster = Cluster()
    async with cluster.running():
        await asyncio.sleep(1)
        assert cluster.api.paths("GET").count(NAMESPACES_PATH) == 1


@in_virtual_time
async def test_a_new_leader_that_cannot_list_does_not_lead_yet(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    cluster.give_lease_to("other")
    async with cluster.running() as controller:
        cluster.give_lease_to("")
        cluster.api.fail("GET", NAMESPACES_PATH, Unreachable("GET …: no"))
        await asyncio.sleep(1.5)
        assert controller.elector.is_leader()
        assert not controller.elector.leading.is_set()
        assert "cannot start leading yet: GET …: no" in caplog.messages
        await asyncio.sleep(1)
        assert controller.elector.leading.is_set()


@in_virtual_time
async def test_an_account_that_fails_is_retried_later_and_the_reason_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    cluster = Cluster()
    async with cluster.running():
        before = cluster.metric("devbox_secrets_reconcile_errors_total")
        cluster.api.fail("PATCH", f"{A}/status", Conflict("PATCH …: 409 Conflict"))
        cluster.put("A", seal("1", "A"))
        await settle()
        assert cluster.metric("devbox_secrets_reconcile_errors_total") == before + 1
        assert "account team: retrying in 0.2s: PATCH …: 409 Conflict" in caplog.messages
        assert cluster.reason() is None
        await asyncio.sleep(0.3)
        assert cluster.reason() == "Synced"


@in_virtual_time
async def test_an_account_that_fails_does_not_delay_others() -> None:
    cluster = Cluster()
    cluster.put_namespace("other")
    async with cluster.running():
        cluster.api.fail("PATCH", f"{A}/status", *[Unreachable("no")] * 100)
        cluster.put("A", seal("1", "A"))
        body = cluster.api.put(
            account_secrets_path("other", "x"), account_secret("X", seal("2", "X", account="other"), "other")
        )
        cluster.controller.enqueue(cluster.controller.cache.upsert_account_secret(body))
        await settle()
        assert cluster.values("other") == {"X": "2"}


@in_virtual_time
async def test_only_the_type_of_an_unexpected_error_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("DEBUG")
    cluster = Cluster()
    failures = [ValueError("canary-value")]
    reconcile = Reconciler.reconcile

    async def failing(self: Reconciler, *args: Any) -> None:  # noqa: ANN401 - the reconciler's own
        if failures:
            raise failures.pop()
        await reconcile(self, *args)

    monkeypatch.setattr(Reconciler, "reconcile", failing)
    async with cluster.running():
        cluster.put("A", seal("canary-value", "A"))
        await settle()
        assert [line for line in caplog.messages if "retrying" in line] == [
            "account team: retrying in 0.2s: ValueError"
        ]
        await asyncio.sleep(0.3)
        assert cluster.values() == {"A": "canary-value"}
    assert "canary" not in caplog.text


@in_virtual_time
async def test_a_replica_that_lost_the_lease_writes_nothing() -> None:
    cluster = Cluster()
    async with cluster.running() as controller:
        cluster.api.fail("PATCH", LEASE, *[Unreachable("no")] * MOST_SECONDS)
        await asyncio.sleep(RENEW_DEADLINE_SECONDS + 1)
        assert not controller.elector.leading.is_set()
        cluster.put("A", seal("1", "A"))
        await asyncio.sleep(60)
        assert cluster.values() is None


@in_virtual_time
async def test_a_process_that_was_frozen_between_reading_and_writing_does_not_write() -> None:
    cluster = Cluster()
    async with cluster.running():

        def freeze() -> None:
            cluster.frozen_seconds = 20

        where = f"{NAMESPACES_PATH}/team/secrets/{ACCOUNT_SECRET}"
        cluster.api.before["GET", where] = freeze
        cluster.put("A", seal("1", "A"))
        await settle()
        assert ("GET", where) in cluster.api.requests
        assert ("PATCH", where) not in cluster.api.requests


@in_virtual_time
async def test_deleted_objects_are_forgotten_by_a_resync(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[type] = []
    monkeypatch.setattr(Reconciler, "forget", lambda self: forgotten.append(type(self)))
    monkeypatch.setattr(Resealer, "forget", lambda self: forgotten.append(type(self)))
    cluster = Cluster()
    async with cluster.running():
        await asyncio.sleep(cluster.settings.resync_seconds + 1)
    assert forgotten == [Reconciler, Resealer]


@in_virtual_time
async def test_a_change_that_the_watches_missed_is_found_by_a_resync() -> None:
    cluster = Cluster()
    async with cluster.running():
        cluster.put_unnoticed("A", seal("1", "A"))
        await asyncio.sleep(cluster.settings.resync_seconds - 1)
        assert cluster.values() is None
        await asyncio.sleep(2)
        assert cluster.values() == {"A": "1"}


@in_virtual_time
async def test_a_new_key_opens_values_that_waited_for_it() -> None:
    cluster = Cluster()
    async with cluster.running():
        cluster.put("A", seal("1", "A", key=OLD_KEY))
        cluster.put("B", seal("2", "B"))
        await settle()
        assert (cluster.reason(A), cluster.reason(B)) == ("UnknownKey", "Synced")
        cluster.put_keys(OLD_KEY, KEY)
        await asyncio.sleep(cluster.settings.keys_refresh_seconds + 1)
        assert cluster.values() == {"A": "1", "B": "2"}
        assert cluster.metric("devbox_secrets_sealing_keys") == 2


@in_virtual_time
async def test_a_key_that_is_added_while_it_is_reported_missing_opens_the_value() -> None:
    cluster = Cluster()
    async with cluster.running():
        reported = cluster.api.held["PATCH", f"{A}/status"] = asyncio.Event()
        cluster.put("A", seal("1", "A", key=OLD_KEY))
        await settle()
        cluster.put_keys(OLD_KEY, KEY)
        await asyncio.sleep(cluster.settings.keys_refresh_seconds + 1)
        assert cluster.reason() is None
        reported.set()
        await settle()
        assert (cluster.reason(), cluster.values()) == ("Synced", {"A": "1"})


@in_virtual_time
async def test_a_failure_to_read_the_keys_is_logged_and_they_stay_in_use(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    async with cluster.running():
        cluster.api.fail("GET", KEYS, Forbidden("GET …: 403"))
        await asyncio.sleep(cluster.settings.keys_refresh_seconds + 1)
        assert caplog.messages == ["cannot read or write the sealing keys: GET …: 403"]
        cluster.put("A", seal("1", "A"))
        await settle()
        assert cluster.values() == {"A": "1"}


@in_virtual_time
async def test_the_operator_is_not_ready_while_values_need_lost_keys() -> None:
    cluster = Cluster()
    cluster.put_unnoticed("A", seal("1", "A"))
    cluster.api.delete(KEYS)
    async with cluster.running() as controller:
        unready = await controller.unready()
        assert unready
        assert "devbox-secrets keys restore FILE" in unready
        assert cluster.metric("devbox_secrets_sealing_keys_lost") == 1
        (event,) = (body for body in cluster.api.objects.values() if body.get("reason") == "SealingKeysLost")
        assert event["regarding"] == {"apiVersion": "v1", "kind": "Secret", "namespace": "ours", "name": KEYS_SECRET}
        cluster.put_keys(KEY)
        await asyncio.sleep(cluster.settings.keys_refresh_seconds + 1)
        assert await controller.unready() is None
        assert cluster.metric("devbox_secrets_sealing_keys_lost") == 0
        assert cluster.values() == {"A": "1"}


@in_virtual_time
async def test_at_shutdown_lost_keys_are_written_back_before_the_lease_is_released() -> None:
    cluster = Cluster()
    async with cluster.running() as controller:
        cluster.api.delete(KEYS)
        await controller.stop_leading()
        assert KEY.public.id in cluster.api.objects[KEYS]["data"]
        assert cluster.api.paths("PATCH")[-2:] == [KEYS, LEASE]


@in_virtual_time
async def test_a_replica_that_does_not_lead_writes_no_keys_back_at_shutdown() -> None:
    cluster = Cluster()
    cluster.give_lease_to("another", "2026-01-01T00:00:00Z")
    async with cluster.running() as controller:
        cluster.api.delete(KEYS)
        await controller.stop_leading()
        assert KEYS not in cluster.api.objects


@in_virtual_time
async def test_the_lease_is_released_even_if_the_keys_cannot_be_written_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster()
    async with cluster.running() as controller:
        cluster.api.delete(KEYS)
        cluster.api.fail("PATCH", KEYS, Forbidden("PATCH …: 403"))
        await controller.stop_leading()
        assert "cannot write back the sealing keys: PATCH …: 403" in caplog.messages
        assert cluster.api.objects[LEASE]["spec"]["holderIdentity"] == ""


@in_virtual_time
async def test_a_replica_that_does_not_lead_reads_the_keys_and_writes_none() -> None:
    cluster = Cluster()
    cluster.give_lease_to("other")
    async with cluster.running():
        cluster.put_keys(OLD_KEY, KEY)
        for turn in range(4):
            cluster.give_lease_to("other", f"renewed {turn}")
            await asyncio.sleep(5)
        assert cluster.metric("devbox_secrets_sealing_keys") == 2
        assert cluster.api.paths("PATCH") == []


@in_virtual_time
async def test_a_value_that_becomes_too_old_is_reported_without_a_change() -> None:
    cluster = Cluster()
    async with cluster.running() as controller:
        cluster.put("A", seal("1", "A"), rotateAfter="1d")
        await settle()
        found = cluster.api.objects[A]
        long_ago = {**found["status"], "changedAt": "2026-01-01T00:00:00Z"}
        controller.cache.upsert_account_secret(cluster.api.put(A, {**found, "status": long_ago}))
        assert cluster.metric("devbox_secrets_rotation_due") == 0
        await asyncio.sleep(cluster.settings.rescan_seconds + 1)
        assert cluster.metric("devbox_secrets_rotation_due") == 1


@in_virtual_time
async def test_a_missed_deletion_is_noticed_when_kopf_lists() -> None:
    cluster = Cluster()
    cluster.put("A", seal("1", "A"))
    cluster.put("B", seal("2", "B"))
    async with cluster.running():
        assert cluster.values() == {"A": "1", "B": "2"}
        cluster.api.delete(A)
        cluster.controller.list_again("accountsecrets")
        await settle()
        assert cluster.values() == {"B": "2"}


@in_virtual_time
async def test_only_the_kind_that_kopf_lists_is_listed() -> None:
    cluster = Cluster()
    async with cluster.running():
        cluster.api.requests.clear()
        cluster.controller.list_again("secrets")
        await settle()
        assert cluster.api.paths("GET") == [SECRETS_PATH]


@in_virtual_time
async def test_a_kind_that_cannot_be_listed_does_not_affect_others() -> None:
    cluster = Cluster()
    cluster.put("A", seal("1", "A"))
    async with cluster.running():
        cluster.api.fail("GET", SECRETS_PATH, *[Unreachable("GET …: no")] * 1000)
        cluster.api.delete(A)
        cluster.controller.list_again()
        await asyncio.sleep(1)
        assert not cluster.values()
        assert await cluster.controller.unready() == "cannot list secrets: GET …: no"


@in_virtual_time
async def test_kopf_is_restarted_when_a_kind_is_served_again(monkeypatch: pytest.MonkeyPatch) -> None:
    restarts: list[None] = []
    monkeypatch.setattr(Watches, "restart", lambda _: restarts.append(None))
    cluster = Cluster()
    async with cluster.running():
        cluster.api.fail("GET", ALL_ACCOUNT_SECRETS_PATH, Unreachable("GET …: no"))
        cluster.controller.list_again()
        await asyncio.sleep(1)
        assert restarts == []
        cluster.api.fail("GET", ALL_ACCOUNT_SECRETS_PATH, NotFound("GET …: 404"), Unreachable("GET …: no"))
        cluster.controller.list_again()
        await asyncio.sleep(2)
        assert len(restarts) == 1


@in_virtual_time
async def test_after_a_restore_of_etcd_the_operator_starts_over_with_the_current_state(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster()
    cluster.put("A", seal("1", "A"))
    restore = cluster.api.snapshot()
    for turn in range(20):
        cluster.put("A", seal("later", "A"))
        cluster.put(f"B{turn}", seal("2", f"B{turn}"))
    async with cluster.running() as controller:
        assert (cluster.values() or {})["A"] == "later"
        restore()
        await asyncio.sleep(5)
        assert cluster.values() == {"A": "1"}
        assert len(list(controller.cache.all_account_secrets())) == 1
        # Later events are processed, though their versions are older than those before the restore.
        cluster.put("C", seal("3", "C"))
        await settle()
        assert cluster.values() == {"A": "1", "C": "3"}
    assert any("older than before" in message for message in caplog.messages)


@in_virtual_time
async def test_an_older_lease_is_enough_to_start_over(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    async with cluster.running():
        restore = cluster.api.snapshot()
        await asyncio.sleep(5)  # the Lease is renewed, and nothing is listed
        restore()
        for _ in range(3):  # later writes, so the lists aren't older than before
            cluster.put_unnoticed("A", seal("1", "A"))
        await asyncio.sleep(5)
        assert cluster.values() == {"A": "1"}
    assert any("older than before" in message for message in caplog.messages)


@pytest.mark.parametrize("listed", [True, False])
@in_virtual_time
async def test_only_the_sealed_texts_of_values_that_do_not_open_stay_in_memory(listed: bool) -> None:
    cluster = Cluster()
    texts = {"A": seal("1", "A"), "B": seal("2", "B", key=OLD_KEY)}
    if listed:
        for name, text in texts.items():
            cluster.put_unnoticed(name, text)
    async with cluster.running() as controller:
        for name, text in texts.items():
            cluster.put(name, text)
        await settle()
        assert cluster.values() == {"A": "1"}
        kept = [each.spec.sealed for each in controller.cache.all_account_secrets()]
        assert kept == [abridge(texts["A"]), texts["B"]]
        cluster.put_keys(KEY, OLD_KEY)
        await asyncio.sleep(60)
        assert cluster.values() == {"A": "1", "B": "2"}
        assert all(is_abridged(each.spec.sealed) for each in controller.cache.all_account_secrets())


@in_virtual_time
async def test_a_value_that_cannot_be_opened_for_an_unexpected_reason_is_listed_with_the_others() -> None:
    cluster = Cluster()
    cluster.put_namespace("other")
    cluster.api.put(account_secrets_path("other", "a"), account_secret("A", seal("1", "A", "other"), "other"))
    cluster.put_unnoticed("A", seal("2", "A"))

    def open_others(keyring: Keyring, sealed: str, *, account: str, name: str) -> SecretBytes:
        if account == "team":
            raise RuntimeError
        return opens(keyring, sealed, account=account, name=name)

    opens = Keyring.open
    with mock.patch.object(Keyring, "open", open_others):
        async with cluster.running():
            assert cluster.values("other") == {"A": "1"}
            assert cluster.values() is None


def test_a_malformed_event_is_logged_without_its_content(caplog: pytest.LogCaptureFixture) -> None:
    Controller(FakeClient(FakeApi()), ControllerSettings())._take("secrets", "ADDED", {"data": "canary"})  # noqa: SLF001 - what the watches call
    assert caplog.messages == ["cannot read a watch event for secrets: KeyError"]


@pytest.mark.parametrize(("waiting", "expected"), [(4, [0, 0, 0, 0]), (5, [1, 1, 2, 2])])
@in_virtual_time
async def test_statuses_wait_while_values_arrive_and_many_accounts_wait(waiting: int, expected: list[int]) -> None:
    controller = Controller(FakeClient(FakeApi()), ControllerSettings())
    controller._queue.add(f"account-{number}" for number in range(waiting))  # noqa: SLF001 - no worker runs
    body, calls = account_secret("A", seal("1", "A")), []
    with mock.patch.object(Reconciler, "let_statuses_wait") as wait:
        for event, version, generation in (("ADDED", 5, 1), ("MODIFIED", 6, 1), ("MODIFIED", 7, 2), ("DELETED", 8, 3)):
            body["metadata"]["generation"] = generation
            controller._take(PLURAL, event, at(version, body))  # noqa: SLF001 - what the watches call
            calls.append(wait.call_count)
    assert calls == expected


@in_virtual_time
async def test_a_list_that_fails_does_not_affect_what_is_known_of_a_cached_value() -> None:
    cluster = Cluster()
    cluster.put_unnoticed("A", seal("1", "A"))
    async with cluster.running() as controller:
        cluster.put_unnoticed("A", seal("2", "A"))
        cluster.put_unnoticed("B", seal("3", "B"))
        del cluster.api.objects[B]["metadata"]["generation"]  # stands for a request that fails
        controller.list_again(PLURAL)
        await settle()
        controller.enqueue(controller.cache.upsert_namespace(cluster.put_namespace("box", "team")))
        await settle()
        assert cluster.values("box") == {"A": "1"}


@pytest.mark.parametrize(
    ("kind", "body", "known"),
    [
        ("secrets", at(5, secret("box", {})), True),
        ("secrets", at(6, secret("box", {})), False),
        ("secrets", {"data": "canary"}, False),
        ("namespaces", at(5, namespace("box")), False),
    ],
)
def test_an_event_for_a_version_in_the_cache_is_not_news(kind: str, body: Body, known: bool) -> None:
    controller = Controller(FakeClient(FakeApi()), ControllerSettings())
    controller.cache.upsert_secret(at(5, secret("box", {})))
    assert controller._knows(kind, body) == known  # noqa: SLF001 - what the watches call


@in_virtual_time
async def test_a_list_that_fails_is_retried_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    cluster.put("A", seal("1", "A"))
    async with cluster.running():
        cluster.api.delete(A)
        cluster.api.fail("GET", ALL_ACCOUNT_SECRETS_PATH, *[Unreachable("no")] * 5)
        cluster.controller.list_again("accountsecrets")
        await asyncio.sleep(3)
        assert not cluster.values()
    assert caplog.text.count("cannot list accountsecrets") == 1


@in_virtual_time
async def test_everything_is_listed_when_the_api_server_is_back() -> None:
    cluster = Cluster()
    cluster.put("A", seal("1", "A"))
    async with cluster.running():
        cluster.api.fail("PATCH", LEASE, Unreachable("no"))
        cluster.api.delete(A)
        await asyncio.sleep(3)
        assert not cluster.values()


@in_virtual_time
async def test_a_namespace_whose_account_has_no_home_has_an_event() -> None:
    cluster = Cluster()
    cluster.put_namespace("box", "nobody")
    async with cluster.running():
        await asyncio.sleep(2 * cluster.settings.rescan_seconds + 1)
        assert cluster.api.paths("POST") == ["/apis/events.k8s.io/v1/namespaces/box/events"]


@in_virtual_time
async def test_a_replica_that_does_not_lead_records_no_event() -> None:
    cluster = Cluster()
    cluster.put_namespace("box", "nobody")
    cluster.give_lease_to("other")
    async with cluster.running():
        for turn in range(10):
            cluster.give_lease_to("other", f"renewed {turn}")
            await asyncio.sleep(5)
        assert cluster.api.paths("POST") == []


BY_THE_GATEWAY = [{"manager": GATEWAY_FIELD_MANAGER, "fieldsV1": {"f:spec": {"f:sealed": {}}}}]


@pytest.mark.parametrize(("enabled", "key"), [(True, KEY), (False, OLD_KEY)])
@in_virtual_time
async def test_the_gateway_s_values_are_resealed_with_the_newest_key_if_enabled(enabled: bool, key: KeyPair) -> None:
    cluster = Cluster(reseal_gateway_values=enabled)
    cluster.put_keys(OLD_KEY, KEY)
    async with cluster.running():
        cluster.put("A", seal("1", "A", key=OLD_KEY), managed_fields=BY_THE_GATEWAY)
        await asyncio.sleep(2 * cluster.settings.rescan_seconds)
        assert key_id_of(cluster.api.objects[A]["spec"]["sealed"]) == key.public.id
        assert cluster.api.objects[A]["status"]["keyId"] == key.public.id
        assert cluster.values() == {"A": "1"}


@in_virtual_time
async def test_an_unexpected_error_while_resealing_is_logged_by_type_and_retried(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    async def failing(_: Resealer) -> set[str]:
        nonlocal tries
        tries += 1
        raise ValueError("canary-value")

    monkeypatch.setattr(Resealer, "reseal_batch", failing)
    cluster = Cluster(reseal_gateway_values=True)
    async with cluster.running():
        await asyncio.sleep(cluster.settings.rescan_seconds + 1)
    assert tries == 2
    assert caplog.messages == ["cannot reseal values: ValueError"] * 2
    assert "canary" not in caplog.text


JOBS = {
    "the resync": (
        SECRETS_PATH,
        "resync_seconds",
        "cannot list secrets: ValueError; retrying",
    ),
    "the keys": (KEYS, "keys_refresh_seconds", "cannot read or write the sealing keys: ValueError"),
}


@pytest.mark.parametrize("what", JOBS)
@in_virtual_time
async def test_a_job_continues_after_an_unexpected_error(what: str, caplog: pytest.LogCaptureFixture) -> None:
    path, period, message = JOBS[what]
    cluster = Cluster()
    async with cluster.running():
        cluster.api.fail("GET", path, ValueError("canary-value"))
        await asyncio.sleep(getattr(cluster.settings, period) + 1)
        assert caplog.messages == [message]
        before = cluster.api.paths("GET").count(path)
        await asyncio.sleep(getattr(cluster.settings, period))
        assert cluster.api.paths("GET").count(path) > before


@in_virtual_time
async def test_listing_and_starting_to_lead_are_retried_after_an_unexpected_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster()
    cluster.put("A", seal("1", "A"))
    cluster.give_lease_to("other")
    async with cluster.running() as controller:
        cluster.api.fail("GET", NAMESPACES_PATH, ValueError("canary-value"))
        controller.list_again()
        await asyncio.sleep(1)
        cluster.give_lease_to("")
        cluster.api.fail("GET", NAMESPACES_PATH, ValueError("canary-value"))
        await asyncio.sleep(3)
        assert cluster.values() == {"A": "1"}
    assert "cannot list namespaces: ValueError; retrying" in caplog.messages
    assert "cannot start leading yet: ValueError" in caplog.messages
    assert "canary" not in caplog.text


@in_virtual_time
async def test_the_rescan_continues_after_an_unexpected_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def failing(_: Cache, __: str) -> set[str]:
        nonlocal tries
        tries += 1
        raise ValueError("canary-value")

    monkeypatch.setattr(Cache, "falling_due", failing)
    cluster = Cluster()
    async with cluster.running():
        await asyncio.sleep(cluster.settings.rescan_seconds * 2 + 1)
    assert tries == 2
    assert caplog.messages == [f"rescan failed; retrying in {cluster.settings.rescan_seconds:.0f}s: ValueError"] * 2


ODD: dict[str, Body] = {
    "a status with an array instead of a time": {"status": {"changedAt": []}},
    "a status with an invalid time": {"status": {"changedAt": "9999-12-31T23:00:00-05:00"}},
    "someone else's status": {"status": {"observedGeneration": 1, "conditions": []}},
}


@pytest.mark.parametrize("what", ODD)
@in_virtual_time
async def test_a_damaged_status_is_overwritten(what: str) -> None:
    cluster = Cluster()
    cluster.put("B", seal("2", "B"))
    async with cluster.running() as controller:
        body = {**account_secret("A", seal("1", "A"), rotateAfter="1d"), **ODD[what]}
        controller.enqueue(controller.cache.upsert_account_secret(cluster.api.put(A, body)))
        await asyncio.sleep(cluster.settings.rescan_seconds + 1)
        assert cluster.values() == {"A": "1", "B": "2"}
        assert cluster.reason(A) == "Synced"
        assert cluster.metric("devbox_secrets_rotation_due") == 0


@in_virtual_time
async def test_a_damaged_spec_is_reported_and_does_not_affect_others(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    async with cluster.running() as controller:
        cluster.put("A", seal("1", "A"))
        await settle()
        odd = cluster.api.objects[A]
        odd = {**odd, "spec": {**odd["spec"], "description": ["canary"]}}
        controller.enqueue(controller.cache.upsert_account_secret(cluster.api.put(A, odd)))
        cluster.put("B", seal("2", "B"))
        await settle()
        assert cluster.values() == {"A": "1", "B": "2"}
        assert cluster.reason(A) == "InvalidSpec"
        condition = cluster.api.objects[A]["status"]["conditions"][0]
        assert condition["message"].startswith("invalid spec.description, accepted by")
        assert "devboxes keep the value of" in condition["message"]
    assert "AccountSecret team/a: invalid fields: spec.description" in caplog.messages
    assert "canary" not in caplog.text


@in_virtual_time
async def test_the_operator_is_healthy_while_it_works_and_while_it_is_idle() -> None:
    cluster = Cluster()
    assert await cluster.controller.unhealthy() is None
    async with cluster.running() as controller:
        assert await controller.unhealthy() is None
        await asyncio.sleep(MOST_SECONDS)
        assert await controller.unhealthy() is None


@in_virtual_time
async def test_the_operator_is_unhealthy_if_its_queue_is_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster(workers=1)
    forever = asyncio.Event()

    async def hanging(*_: object) -> None:
        await forever.wait()

    monkeypatch.setattr(Reconciler, "reconcile", hanging)
    async with cluster.running() as controller:
        controller.enqueue({"a", "b", "c", "d"})
        await asyncio.sleep(119)
        assert await controller.unhealthy() is None
        await asyncio.sleep(2)
        assert await controller.unhealthy() == "the queue has been stuck for 121s"


@in_virtual_time
async def test_the_metrics_count_accountsecrets_and_keys() -> None:
    cluster = Cluster()
    cluster.put_unnoticed("A", seal("1", "A"))
    cluster.put_unnoticed("B", seal("2", "OTHER"))
    async with cluster.running():
        cluster.controller.cache.upsert_account_secret(
            cluster.api.put(account_secrets_path("nobody", "c"), account_secret("C", "dbs1.…", "nobody"))
        )
        assert cluster.metric('devbox_secrets_accountsecrets{reason="Synced"}') == 1
        assert cluster.metric('devbox_secrets_accountsecrets{reason="CannotOpen"}') == 1
        assert cluster.metric('devbox_secrets_accountsecrets{reason="Pending"}') == 1
        assert cluster.metric('devbox_secrets_accountsecrets{reason="NameConflict"}') == 0
        assert cluster.metric("devbox_secrets_leader") == 1
        assert cluster.metric("devbox_secrets_sealing_keys") == 1
        created = cluster.metric("devbox_secrets_newest_sealing_key_timestamp_seconds")
        assert created == KEY.created.timestamp()


@in_virtual_time
async def test_the_metrics_can_be_read_before_the_first_sync() -> None:
    assert Cluster().metric("devbox_secrets_sealing_keys") == 0


@in_virtual_time
async def test_no_value_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    cluster = Cluster()
    async with cluster.running():
        cluster.put("A", seal("canary-value", "A"))
        await settle()
        assert cluster.values() == {"A": "canary-value"}
    assert "canary" not in caplog.text
    assert base64.b64encode(b"canary-value").decode() not in caplog.text


class Process:
    """The operator's process with an API server in memory, without watches."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster = Cluster(port=free_port())
        self.watching = asyncio.Event()
        monkeypatch.setattr(Client, "connect", self.connect)
        monkeypatch.setattr(Watches, "run", self.watch)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[FakeClient]:
        yield FakeClient(self.cluster.api)

    async def watch(self, _recover: object) -> None:
        self.watching.set()
        await asyncio.Event().wait()

    async def run(self) -> None:
        await process._run(self.cluster.settings)  # noqa: SLF001 - `run` would start another event loop

    @property
    def holder(self) -> object:
        return self.cluster.api.objects[LEASE]["spec"]["holderIdentity"]


async def test_a_process_responds_to_probes_and_releases_the_lease_on_sigterm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    it = Process(monkeypatch)
    it.cluster.put_unnoticed("A", seal("1", "A"))
    running = asyncio.create_task(it.run())
    await it.watching.wait()
    async with aiohttp.ClientSession() as session:
        for path in ("readyz", "healthz", "metrics"):
            async with session.get(f"http://127.0.0.1:{it.cluster.settings.port}/{path}") as response:
                assert response.status == 200
    assert it.holder
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert it.holder == ""


async def test_a_process_exits_if_a_job_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Process(monkeypatch)

    async def broken(_: object) -> None:
        await asyncio.sleep(0)
        raise ValueError("a bug")

    monkeypatch.setattr(Controller, "_rescan", broken)
    with pytest.raises(ValueError, match="a bug"):
        await it.run()
    assert it.holder == ""


async def test_a_process_stops_on_sigterm_while_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Process(monkeypatch)
    reading = asyncio.Event()

    async def slow(_: Controller) -> None:
        reading.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Controller, "sync", slow)
    running = asyncio.create_task(it.run())
    await reading.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(asyncio.CancelledError):
        await running


def test_a_process_without_a_cluster_fails_with_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    with pytest.raises(ConfigError, match="no cluster to connect to"):
        process.run(ControllerSettings())


def test_a_process_that_is_stopped_exits_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stopped(_: ControllerSettings) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(process, "_run", stopped)
    configured: list[tuple[object, ...]] = []
    monkeypatch.setattr(logs, "configure", lambda *args: configured.append(args))
    process.run(ControllerSettings())
    assert configured == [("INFO", "text", {"kopf": logging.CRITICAL})]
