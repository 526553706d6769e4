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

from devbox_secrets.api.names import (
    ACCOUNT_SECRET,
    ALL_ACCOUNT_SECRETS_PATH,
    GATEWAY_FIELD_MANAGER,
    KEYS_SECRET,
    NAMESPACES_PATH,
    PUBLIC_KEYS_CONFIGMAP,
    SECRETS_PATH,
    account_secrets_path,
)
from devbox_secrets.controller import process
from devbox_secrets.controller.cache import Cache
from devbox_secrets.controller.leader import RENEW_DEADLINE_SECONDS, LeaderElector
from devbox_secrets.controller.process import Controller
from devbox_secrets.controller.reconciler import Reconciler
from devbox_secrets.controller.resealer import Resealer
from devbox_secrets.controller.settings import ControllerSettings
from devbox_secrets.controller.watch import Watches
from devbox_secrets.crypto.envelope import KeyPair, key_id_of
from devbox_secrets.errors import ConfigError, Conflict, Forbidden, NotFound, Unreachable
from devbox_secrets.kube.client import Client
from devbox_secrets.serving import logs
from unit.controller.objects import KEY, OLD_KEY, Body, account_secret, namespace, seal
from unit.controller.virtual_time import in_virtual_time, settle
from unit.kube.fake_api import FakeApi, FakeClient
from unit.serving.ports import free_port

LEASE = "/apis/coordination.k8s.io/v1/namespaces/ours/leases/devbox-secrets"
KEYS = f"/api/v1/namespaces/ours/secrets/{KEYS_SECRET}"
PUBLIC_KEYS = f"/api/v1/namespaces/ours/configmaps/{PUBLIC_KEYS_CONFIGMAP}"
A, B = account_secrets_path("team", "a"), account_secrets_path("team", "b")
MOST_SECONDS = 3600


class Cluster:
    """What is in the cluster, and an operator that hears of nothing but what it asks for."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - the settings' own
        self.api = FakeApi()
        self.api.put(LEASE, {"metadata": {"name": "devbox-secrets"}})
        self.api.put(PUBLIC_KEYS, {"metadata": {"name": PUBLIC_KEYS_CONFIGMAP}})
        self.have_keys(KEY)
        self.have_namespace("team")
        self.settings = ControllerSettings(namespace="ours", rotate_keys=None, **settings)
        loop = asyncio.get_running_loop()
        self.frozen_seconds = 0
        """For how long the process stood still: its clock went on, and no timer had its turn."""

        def clock() -> float:
            return loop.time() + self.frozen_seconds

        with mock.patch.object(process, "LeaderElector", partial(LeaderElector, clock=clock)):
            self.controller = Controller(FakeClient(self.api), self.settings)

    def have_keys(self, *keys: KeyPair) -> None:
        data = {key.public.id: base64.b64encode(key.dump()).decode() for key in keys}
        self.api.put(KEYS, {"metadata": {"name": KEYS_SECRET, "namespace": "ours"}, "data": data})

    def have_namespace(self, name: str, account: str | None = None) -> Body:
        return self.api.put(f"{NAMESPACES_PATH}/{name}", namespace(name, account))

    def have(self, variable: str, sealed: str, managed_fields: object = (), **spec: str) -> Body:
        """Have an AccountSecret, of which the operator hears as by its watch."""
        body = account_secret(variable, sealed, "team", **spec)
        body["metadata"]["managedFields"] = managed_fields
        written = self.api.put(account_secrets_path("team", variable.lower()), body)
        self.controller.enqueue(self.controller.cache.upsert_account_secret(written))
        return written

    def put_unheard(self, variable: str, sealed: str) -> None:
        """Have an AccountSecret of which the operator hears nothing."""
        self.api.put(account_secrets_path("team", variable.lower()), account_secret(variable, sealed))

    def values(self, where: str = "team") -> dict[str, str] | None:
        """Give what a namespace's account Secret holds, if there is one."""
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
        """Give one of the metrics that Prometheus reads."""
        (line,) = (line for line in self.controller.measure().decode().splitlines() if line.startswith(f"{name} "))
        return float(line.rpartition(" ")[2])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Controller]:
        """Have read everything, and run all jobs."""
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
async def test_it_is_not_ready_before_it_has_read_everything() -> None:
    cluster = Cluster()
    assert await cluster.controller.unready() == "reading the cluster's state; the Lease has not been read yet"
    await cluster.controller.sync()
    assert await cluster.controller.unready() is None


@in_virtual_time
async def test_it_is_not_ready_before_it_knows_who_leads() -> None:
    cluster = Cluster()
    cluster.api.fail("GET", LEASE, Forbidden("GET …: 403"))
    await cluster.controller.sync()
    assert cluster.controller.has_synced
    assert await cluster.controller.unready() == "cannot read or renew the Lease: GET …: 403"
    await cluster.controller.elector.acquire_or_renew()
    assert await cluster.controller.unready() is None


@in_virtual_time
async def test_it_reads_the_three_kinds_once_and_of_the_secrets_those_of_one_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    cluster = Cluster()
    cluster.put_unheard("A", seal("1", "A"))
    await cluster.controller.sync()
    read = cluster.api.paths("GET")
    assert sorted(read) == sorted([LEASE, KEYS, NAMESPACES_PATH, SECRETS_PATH, ALL_ACCOUNT_SECRETS_PATH])
    # Namespaces first: only then is it known whose a Secret is.
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
async def test_what_can_not_be_read_at_the_start_is_told_and_tried_until_it_can(
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
async def test_who_leads_reconciles_every_account() -> None:
    cluster = Cluster()
    cluster.have_namespace("box", "team")
    cluster.put_unheard("A", seal("1", "A"))
    async with cluster.running():
        assert cluster.values() == cluster.values("box") == {"A": "1"}
        assert cluster.reason() == "Synced"


@in_virtual_time
async def test_a_change_is_reconciled() -> None:
    cluster = Cluster()
    async with cluster.running():
        cluster.have("A", seal("1", "A"))
        await settle()
        assert cluster.values() == {"A": "1"}


@in_virtual_time
async def test_who_does_not_lead_enqueues_and_writes_nothing() -> None:
    cluster = Cluster()
    cluster.give_lease_to("other")
    async with cluster.running() as controller:
        cluster.have("A", seal("1", "A"))
        await settle()
        assert cluster.metric("devbox_secrets_workqueue_depth") == 0
        assert cluster.metric("devbox_secrets_leader") == 0
        assert cluster.api.paths("PATCH") == cluster.api.paths("POST") == []
        assert await controller.unready() is None


@in_virtual_time
async def test_what_waits_at_a_former_leader_is_not_reported() -> None:
    cluster = Cluster()
    teams = [f"team-{number}" for number in range(20)]  # more than workers
    for team in teams:
        cluster.have_namespace(team)
    async with cluster.running() as controller:
        cluster.give_lease_to("other", "2099-01-01T00:00:00.000000Z")
        cluster.frozen_seconds = 60  # so nothing can be written, and everything comes back later
        for team in teams:
            body = cluster.api.put(account_secrets_path(team, "a"), account_secret("A", seal("1", "A"), team))
            controller.enqueue(controller.cache.upsert_account_secret(body))
        await asyncio.sleep(5)
        assert not controller.elector.leading.is_set()
        assert cluster.metric("devbox_secrets_workqueue_depth") == 0


@in_virtual_time
async def test_who_becomes_the_leader_reconciles_from_a_list_of_that_term() -> None:
    cluster = Cluster()
    cluster.give_lease_to("other")
    async with cluster.running():
        cluster.put_unheard("A", seal("1", "A"))
        cluster.give_lease_to("")
        cluster.api.requests.clear()
        await asyncio.sleep(2)
        assert ALL_ACCOUNT_SECRETS_PATH in cluster.api.paths("GET")
        assert cluster.values() == {"A": "1"}


@in_virtual_time
async def test_a_list_of_the_same_term_is_not_made_again() -> None:
    cluster = Cluster()
    async with cluster.running():
        await asyncio.sleep(1)
        assert cluster.api.paths("GET").count(NAMESPACES_PATH) == 1


@in_virtual_time
async def test_who_can_not_list_in_its_term_is_not_leading_yet(caplog: pytest.LogCaptureFixture) -> None:
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
async def test_an_account_that_fails_is_tried_again_later_with_the_reason_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    cluster = Cluster()
    async with cluster.running():
        before = cluster.metric("devbox_secrets_reconcile_errors_total")
        cluster.api.fail("PATCH", f"{A}/status", Conflict("PATCH …: 409 Conflict"))
        cluster.have("A", seal("1", "A"))
        await settle()
        assert cluster.metric("devbox_secrets_reconcile_errors_total") == before + 1
        assert "account team: retrying in 0.2s: PATCH …: 409 Conflict" in caplog.messages
        assert cluster.reason() is None
        await asyncio.sleep(0.3)
        assert cluster.reason() == "Synced"


@in_virtual_time
async def test_an_account_that_fails_holds_back_no_other() -> None:
    cluster = Cluster()
    cluster.have_namespace("other")
    async with cluster.running():
        cluster.api.fail("PATCH", f"{A}/status", *[Unreachable("no")] * 100)
        cluster.have("A", seal("1", "A"))
        body = cluster.api.put(
            account_secrets_path("other", "x"), account_secret("X", seal("2", "X", account="other"), "other")
        )
        cluster.controller.enqueue(cluster.controller.cache.upsert_account_secret(body))
        await settle()
        assert cluster.values("other") == {"X": "2"}


@in_virtual_time
async def test_of_an_error_that_nobody_expects_the_log_has_the_type_alone(
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
        cluster.have("A", seal("canary-value", "A"))
        await settle()
        assert [line for line in caplog.messages if "retrying" in line] == [
            "account team: retrying in 0.2s: ValueError"
        ]
        await asyncio.sleep(0.3)
        assert cluster.values() == {"A": "canary-value"}
    assert "canary" not in caplog.text


@in_virtual_time
async def test_nothing_is_written_by_who_lost_the_lease() -> None:
    cluster = Cluster()
    async with cluster.running() as controller:
        cluster.api.fail("PATCH", LEASE, *[Unreachable("no")] * MOST_SECONDS)
        await asyncio.sleep(RENEW_DEADLINE_SECONDS + 1)
        assert not controller.elector.leading.is_set()
        cluster.have("A", seal("1", "A"))
        await asyncio.sleep(60)
        assert cluster.values() is None


@in_virtual_time
async def test_nothing_is_written_by_a_process_that_was_frozen_while_it_was_writing() -> None:
    cluster = Cluster()
    async with cluster.running():

        def freeze() -> None:
            cluster.frozen_seconds = 20

        where = f"{NAMESPACES_PATH}/team/secrets/{ACCOUNT_SECRET}"
        cluster.api.before["GET", where] = freeze
        cluster.have("A", seal("1", "A"))
        await settle()
        assert ("GET", where) in cluster.api.requests
        assert ("PATCH", where) not in cluster.api.requests


@in_virtual_time
async def test_what_is_gone_is_forgotten_when_everything_is_listed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[type] = []
    monkeypatch.setattr(Reconciler, "forget", lambda self: forgotten.append(type(self)))
    monkeypatch.setattr(Resealer, "forget", lambda self: forgotten.append(type(self)))
    cluster = Cluster()
    async with cluster.running():
        await asyncio.sleep(cluster.settings.resync_seconds + 1)
    assert forgotten == [Reconciler, Resealer]


@in_virtual_time
async def test_a_change_that_no_watch_told_is_found_when_everything_is_listed_again() -> None:
    cluster = Cluster()
    async with cluster.running():
        cluster.put_unheard("A", seal("1", "A"))
        await asyncio.sleep(cluster.settings.resync_seconds - 1)
        assert cluster.values() is None
        await asyncio.sleep(2)
        assert cluster.values() == {"A": "1"}


@in_virtual_time
async def test_a_key_that_comes_opens_what_waited_for_it() -> None:
    cluster = Cluster()
    async with cluster.running():
        cluster.have("A", seal("1", "A", key=OLD_KEY))
        cluster.have("B", seal("2", "B"))
        await settle()
        assert (cluster.reason(A), cluster.reason(B)) == ("UnknownKey", "Synced")
        cluster.have_keys(OLD_KEY, KEY)
        await asyncio.sleep(cluster.settings.keys_refresh_seconds + 1)
        assert cluster.values() == {"A": "1", "B": "2"}
        assert cluster.metric("devbox_secrets_sealing_keys") == 2


@in_virtual_time
async def test_a_key_that_comes_while_it_is_reported_missing_opens_the_value() -> None:
    cluster = Cluster()
    async with cluster.running():
        reported = cluster.api.held["PATCH", f"{A}/status"] = asyncio.Event()
        cluster.have("A", seal("1", "A", key=OLD_KEY))
        await settle()
        cluster.have_keys(OLD_KEY, KEY)
        await asyncio.sleep(cluster.settings.keys_refresh_seconds + 1)
        assert cluster.reason() is None
        reported.set()
        await settle()
        assert (cluster.reason(), cluster.values()) == ("Synced", {"A": "1"})


@in_virtual_time
async def test_keys_that_can_not_be_read_are_logged_and_stay_in_use(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    async with cluster.running():
        cluster.api.fail("GET", KEYS, Forbidden("GET …: 403"))
        await asyncio.sleep(cluster.settings.keys_refresh_seconds + 1)
        assert caplog.messages == ["cannot read or write the sealing keys: GET …: 403"]
        cluster.have("A", seal("1", "A"))
        await settle()
        assert cluster.values() == {"A": "1"}


@in_virtual_time
async def test_it_is_not_ready_while_values_need_keys_that_are_gone_and_recovers_by_itself() -> None:
    cluster = Cluster()
    cluster.put_unheard("A", seal("1", "A"))
    cluster.api.delete(KEYS)
    async with cluster.running() as controller:
        unready = await controller.unready()
        assert unready
        assert "devbox-secrets keys restore FILE" in unready
        assert cluster.metric("devbox_secrets_sealing_keys_lost") == 1
        (event,) = (body for body in cluster.api.objects.values() if body.get("reason") == "SealingKeysLost")
        assert event["regarding"] == {"apiVersion": "v1", "kind": "Secret", "namespace": "ours", "name": KEYS_SECRET}
        cluster.have_keys(KEY)
        await asyncio.sleep(cluster.settings.keys_refresh_seconds + 1)
        assert await controller.unready() is None
        assert cluster.metric("devbox_secrets_sealing_keys_lost") == 0
        assert cluster.values() == {"A": "1"}


@in_virtual_time
async def test_lost_keys_are_written_back_on_the_way_out_before_the_lease_is_released() -> None:
    cluster = Cluster()
    async with cluster.running() as controller:
        cluster.api.delete(KEYS)
        await controller.stop_leading()
        assert KEY.public.id in cluster.api.objects[KEYS]["data"]
        assert cluster.api.paths("PATCH")[-2:] == [KEYS, LEASE]


@in_virtual_time
async def test_who_does_not_lead_writes_no_keys_back_on_the_way_out() -> None:
    cluster = Cluster()
    cluster.give_lease_to("another", "2026-01-01T00:00:00Z")
    async with cluster.running() as controller:
        cluster.api.delete(KEYS)
        await controller.stop_leading()
        assert KEYS not in cluster.api.objects


@in_virtual_time
async def test_the_lease_is_released_although_the_keys_can_not_be_written_back(
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
async def test_who_does_not_lead_follows_the_keys_and_writes_none() -> None:
    cluster = Cluster()
    cluster.give_lease_to("other")
    async with cluster.running():
        cluster.have_keys(OLD_KEY, KEY)
        for turn in range(4):
            cluster.give_lease_to("other", f"renewed {turn}")
            await asyncio.sleep(5)
        assert cluster.metric("devbox_secrets_sealing_keys") == 2
        assert cluster.api.paths("PATCH") == []


@in_virtual_time
async def test_a_value_that_becomes_too_old_is_told_without_any_change() -> None:
    cluster = Cluster()
    async with cluster.running() as controller:
        cluster.have("A", seal("1", "A"), rotateAfter="1d")
        await settle()
        found = cluster.api.objects[A]
        long_ago = {**found["status"], "changedAt": "2026-01-01T00:00:00Z"}
        controller.cache.upsert_account_secret(cluster.api.put(A, {**found, "status": long_ago}))
        assert cluster.metric("devbox_secrets_rotation_due") == 0
        await asyncio.sleep(cluster.settings.rescan_seconds + 1)
        assert cluster.metric("devbox_secrets_rotation_due") == 1


@in_virtual_time
async def test_a_deletion_that_was_missed_is_noticed_when_kopf_lists() -> None:
    cluster = Cluster()
    cluster.have("A", seal("1", "A"))
    cluster.have("B", seal("2", "B"))
    async with cluster.running():
        assert cluster.values() == {"A": "1", "B": "2"}
        cluster.api.delete(A)
        cluster.controller.list_again("accountsecrets")
        await settle()
        assert cluster.values() == {"B": "2"}


@in_virtual_time
async def test_of_the_kinds_that_one_alone_is_listed_which_kopf_lists() -> None:
    cluster = Cluster()
    async with cluster.running():
        cluster.api.requests.clear()
        cluster.controller.list_again("secrets")
        await settle()
        assert cluster.api.paths("GET") == [SECRETS_PATH]


@in_virtual_time
async def test_a_kind_that_can_not_be_listed_holds_back_no_other() -> None:
    cluster = Cluster()
    cluster.have("A", seal("1", "A"))
    async with cluster.running():
        cluster.api.fail("GET", SECRETS_PATH, *[Unreachable("GET …: no")] * 1000)
        cluster.api.delete(A)
        cluster.controller.list_again()
        await asyncio.sleep(1)
        assert not cluster.values()
        assert await cluster.controller.unready() == "cannot list secrets: GET …: no"


@in_virtual_time
async def test_kopf_starts_again_when_a_kind_is_served_again(monkeypatch: pytest.MonkeyPatch) -> None:
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
async def test_after_a_restore_of_etcd_it_starts_over_with_what_there_is(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    cluster.have("A", seal("1", "A"))
    restore = cluster.api.snapshot()
    for turn in range(20):
        cluster.have("A", seal("later", "A"))
        cluster.have(f"B{turn}", seal("2", f"B{turn}"))
    async with cluster.running() as controller:
        assert (cluster.values() or {})["A"] == "later"
        restore()
        await asyncio.sleep(5)
        assert cluster.values() == {"A": "1"}
        assert len(list(controller.cache.all_account_secrets())) == 1
        # What comes then is heard of, though it's older than what was seen.
        cluster.have("C", seal("3", "C"))
        await settle()
        assert cluster.values() == {"A": "1", "C": "3"}
    assert any("older than before" in message for message in caplog.messages)


@in_virtual_time
async def test_a_lease_that_is_older_than_before_is_enough_to_start_over(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    async with cluster.running():
        restore = cluster.api.snapshot()
        await asyncio.sleep(5)  # the Lease is renewed, and nothing is listed
        restore()
        for _ in range(3):  # what anyone wrote since: the lists aren't older than those of before
            cluster.put_unheard("A", seal("1", "A"))
        await asyncio.sleep(5)
        assert cluster.values() == {"A": "1"}
    assert any("older than before" in message for message in caplog.messages)


def test_an_event_that_can_not_be_read_is_logged_without_it(caplog: pytest.LogCaptureFixture) -> None:
    Controller(FakeClient(FakeApi()), ControllerSettings())._take("secrets", "ADDED", {"data": "canary"})  # noqa: SLF001 - what the watches call
    assert caplog.messages == ["cannot read a watch event for secrets: KeyError"]


@in_virtual_time
async def test_a_list_that_fails_is_tried_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    cluster.have("A", seal("1", "A"))
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
    cluster.have("A", seal("1", "A"))
    async with cluster.running():
        cluster.api.fail("PATCH", LEASE, Unreachable("no"))
        cluster.api.delete(A)
        await asyncio.sleep(3)
        assert not cluster.values()


@in_virtual_time
async def test_a_namespace_whose_account_has_no_home_has_an_event() -> None:
    cluster = Cluster()
    cluster.have_namespace("box", "nobody")
    async with cluster.running():
        await asyncio.sleep(2 * cluster.settings.rescan_seconds + 1)
        assert cluster.api.paths("POST") == ["/apis/events.k8s.io/v1/namespaces/box/events"]


@in_virtual_time
async def test_who_does_not_lead_records_no_event() -> None:
    cluster = Cluster()
    cluster.have_namespace("box", "nobody")
    cluster.give_lease_to("other")
    async with cluster.running():
        for turn in range(10):
            cluster.give_lease_to("other", f"renewed {turn}")
            await asyncio.sleep(5)
        assert cluster.api.paths("POST") == []


OF_THE_GATEWAY = [{"manager": GATEWAY_FIELD_MANAGER, "fieldsV1": {"f:spec": {"f:sealed": {}}}}]


@pytest.mark.parametrize(("switched_on", "key"), [(True, KEY), (False, OLD_KEY)])
@in_virtual_time
async def test_the_gateway_s_values_move_on_to_the_newest_key_where_that_is_wanted(
    switched_on: bool, key: KeyPair
) -> None:
    cluster = Cluster(reseal_gateway_values=switched_on)
    cluster.have_keys(OLD_KEY, KEY)
    async with cluster.running():
        cluster.have("A", seal("1", "A", key=OLD_KEY), managed_fields=OF_THE_GATEWAY)
        await asyncio.sleep(2 * cluster.settings.rescan_seconds)
        assert key_id_of(cluster.api.objects[A]["spec"]["sealed"]) == key.public.id
        assert cluster.api.objects[A]["status"]["keyId"] == key.public.id
        assert cluster.values() == {"A": "1"}


@in_virtual_time
async def test_a_resealing_that_fails_unexpectedly_is_logged_by_its_type_and_tried_again(
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
async def test_a_job_that_fails_unexpectedly_goes_on(what: str, caplog: pytest.LogCaptureFixture) -> None:
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
async def test_a_relist_and_a_start_that_fail_unexpectedly_are_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    cluster.have("A", seal("1", "A"))
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
async def test_a_rescan_that_fails_unexpectedly_goes_on(
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
    "a status with an array in a time's place": {"status": {"changedAt": []}},
    "a status with a time that is none": {"status": {"changedAt": "9999-12-31T23:00:00-05:00"}},
    "a status of someone else": {"status": {"observedGeneration": 1, "conditions": []}},
}


@pytest.mark.parametrize("what", ODD)
@in_virtual_time
async def test_a_damaged_status_is_written_over(what: str) -> None:
    cluster = Cluster()
    cluster.have("B", seal("2", "B"))
    async with cluster.running() as controller:
        body = {**account_secret("A", seal("1", "A"), rotateAfter="1d"), **ODD[what]}
        controller.enqueue(controller.cache.upsert_account_secret(cluster.api.put(A, body)))
        await asyncio.sleep(cluster.settings.rescan_seconds + 1)
        assert cluster.values() == {"A": "1", "B": "2"}
        assert cluster.reason(A) == "Synced"
        assert cluster.metric("devbox_secrets_rotation_due") == 0


@in_virtual_time
async def test_a_damaged_spec_is_told_and_holds_nothing_back(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    async with cluster.running() as controller:
        cluster.have("A", seal("1", "A"))
        await settle()
        odd = cluster.api.objects[A]
        odd = {**odd, "spec": {**odd["spec"], "description": ["canary"]}}
        controller.enqueue(controller.cache.upsert_account_secret(cluster.api.put(A, odd)))
        cluster.have("B", seal("2", "B"))
        await settle()
        assert cluster.values() == {"A": "1", "B": "2"}
        assert cluster.reason(A) == "InvalidSpec"
        condition = cluster.api.objects[A]["status"]["conditions"][0]
        assert condition["message"].startswith("invalid spec.description, accepted by")
        assert "devboxes keep the value of" in condition["message"]
    assert "AccountSecret team/a: invalid fields: spec.description" in caplog.messages
    assert "canary" not in caplog.text


@in_virtual_time
async def test_it_is_healthy_while_it_works_and_while_there_is_nothing_to_do() -> None:
    cluster = Cluster()
    assert await cluster.controller.unhealthy() is None
    async with cluster.running() as controller:
        assert await controller.unhealthy() is None
        await asyncio.sleep(MOST_SECONDS)
        assert await controller.unhealthy() is None


@in_virtual_time
async def test_it_is_unhealthy_when_nothing_is_worked_on_although_something_waits(
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
async def test_the_metrics_count_what_is_there() -> None:
    cluster = Cluster()
    cluster.put_unheard("A", seal("1", "A"))
    cluster.put_unheard("B", seal("2", "OTHER"))
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
async def test_the_metrics_can_be_read_before_anything_else_was() -> None:
    assert Cluster().metric("devbox_secrets_sealing_keys") == 0


@in_virtual_time
async def test_no_value_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    cluster = Cluster()
    async with cluster.running():
        cluster.have("A", seal("canary-value", "A"))
        await settle()
        assert cluster.values() == {"A": "canary-value"}
    assert "canary" not in caplog.text
    assert base64.b64encode(b"canary-value").decode() not in caplog.text


class Process:
    """The process itself, on an API server in memory and without watches."""

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


async def test_a_process_answers_the_probes_works_and_gives_the_lease_back_when_it_is_told_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    it = Process(monkeypatch)
    it.cluster.put_unheard("A", seal("1", "A"))
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


async def test_a_process_whose_job_ends_by_an_error_ends_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Process(monkeypatch)

    async def broken(_: object) -> None:
        await asyncio.sleep(0)
        raise ValueError("a bug")

    monkeypatch.setattr(Controller, "_rescan", broken)
    with pytest.raises(ValueError, match="a bug"):
        await it.run()
    assert it.holder == ""


async def test_a_process_that_is_told_to_stop_while_it_reads_stops(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_process_without_a_cluster_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    with pytest.raises(ConfigError, match="no cluster to connect to"):
        process.run(ControllerSettings())


def test_a_process_that_is_stopped_while_it_reads_ends_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stopped(_: ControllerSettings) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(process, "_run", stopped)
    configured: list[tuple[object, ...]] = []
    monkeypatch.setattr(logs, "configure", lambda *args: configured.append(args))
    process.run(ControllerSettings())
    assert configured == [("INFO", "text", {"kopf": logging.CRITICAL})]
