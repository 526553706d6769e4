"""What is written for an account, in which order, and what is reported if a write fails."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.controller import metrics
from devbox_secrets.controller.cache import Cache
from devbox_secrets.controller.opener import Opener, Values
from devbox_secrets.controller.reconciler import _SECRET_WRITES, _STATUS_WRITES, Reconciler, _each
from devbox_secrets.controller.rules.events import Event
from devbox_secrets.controller.settings import ControllerSettings
from devbox_secrets.crypto.envelope import Keyring
from devbox_secrets.errors import APIError, Conflict, Forbidden, NotFound, ServerError, Unreachable
from devbox_secrets.kube.connection import _CONNECTIONS
from unit.controller.fake_writer import FakeWriter
from unit.controller.objects import KEY, OLD_KEY, Body, account_secret, at, edited, namespace, seal, secret
from unit.controller.virtual_time import run

REFUSED = Forbidden("PATCH …: 403 quota")


class Cluster:
    """A cluster in memory, and a reconciler that knows its state."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.writer = FakeWriter()
        self.keyring = Keyring([KEY])
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.recorded: list[tuple[str, str]] = []
        self.failures = 0
        self.restart()

    async def record(self, secret: AccountSecret, event: Event) -> None:
        self.recorded.append((secret.name, event.reason))

    def put_namespace(self, name: str, account: str | None = None, **metadata: str) -> None:
        body = namespace(name, account, **metadata)
        self.writer.namespaces[name] = body["metadata"]["uid"], account or name
        self.cache.upsert_namespace(at(next(self.writer.versions), body))

    def put_secret(self, body: Body) -> None:
        self.cache.upsert_secret(self.writer.put_secret(body))

    def put(self, variable: str, value: str, *, account: str = "team", generation: int = 1, **spec: object) -> None:
        """Store an AccountSecret with this value, or another generation of it."""
        self.put_sealed(variable, seal(value, variable, account), account=account, generation=generation, **spec)

    def put_sealed(
        self, variable: str, sealed: str, *, account: str = "team", generation: int = 1, **spec: object
    ) -> None:
        body = account_secret(variable, sealed, account, **spec)
        body["metadata"]["generation"] = generation
        before = self.writer.account_secrets.get((account, variable.lower()), {})
        self.cache.upsert_account_secret(self.writer.put_account_secret({**body, "status": before.get("status") or {}}))

    def delete(self, variable: str, *, account: str = "team") -> None:
        """Delete an AccountSecret."""
        body = self.writer.account_secrets.pop((account, variable.lower()))
        self.cache.delete_account_secret(at(next(self.writer.versions), body))

    def delete_secret(self, where: str) -> None:
        """Delete an account Secret."""
        del self.writer.secrets[where]
        self.notify_deletion(where)

    def notify_deletion(self, where: str) -> None:
        """Notify the reconciler of an account Secret's deletion."""
        self.cache.delete_secret(at(next(self.writer.versions), secret(where, {})))

    def notify_secret(self, where: str) -> None:
        """Notify the reconciler of an account Secret's state."""
        self.cache.upsert_secret(self.writer.secrets[where])

    def add_finalizer(self, where: str, **metadata: str) -> None:
        """Add a finalizer to an account Secret."""
        body = self.writer.secrets[where]
        changed = {**body["metadata"], "finalizers": ["a.example/hold"], **metadata}
        self.put_secret({**body, "metadata": changed})

    def restart(self) -> None:
        """Start a new process, which has the same cache."""
        self.opener = Opener(lambda: self.keyring, self.writer.read_sealed)
        self.reconciler = Reconciler(
            self.writer, self.cache, self.opener, self.record, reserved=["PATH"], clock=lambda: self.now
        )

    async def reconcile(self, account: str = "team") -> None:
        await self.reconciler.reconcile(account, since=0, failures=self.failures)

    async def calls(self, account: str = "team") -> list[str]:
        """Reconcile; return the calls of the writer."""
        self.writer.calls.clear()
        await self.reconcile(account)
        return self.writer.calls

    async def failing_calls(self, error: type[Exception], account: str = "team") -> list[str]:
        """Reconcile, which fails; return the calls of the writer."""
        self.writer.calls.clear()
        with pytest.raises(error):
            await self.reconcile(account)
        self.failures += 1
        return self.writer.calls

    def reason(self, name: str) -> str | None:
        """Return why an AccountSecret is Ready, or isn't."""
        ready = self.writer.status(name).ready
        return ready.reason if ready else None

    def message(self, name: str) -> str:
        ready = self.writer.status(name).ready
        return ready.message if ready else ""


@pytest.fixture
def cluster() -> Cluster:
    """Return a cluster with an account that has only its home."""
    cluster = Cluster()
    cluster.put_namespace("team")
    return cluster


def drift_repairs() -> float:
    return metrics.REGISTRY.get_sample_value("devbox_secrets_drift_repairs_total") or 0


def syncs() -> float:
    return metrics.REGISTRY.get_sample_value("devbox_secrets_sync_duration_seconds_count") or 0


async def test_a_secret_is_created_empty_then_filled_then_reported(cluster: Cluster) -> None:
    cluster.put("A", "1")
    assert await cluster.calls() == ["create team", "apply team", "status team/a"]
    assert cluster.writer.values("team") == {"A": "1"}
    assert cluster.reason("a") == "Synced"


async def test_every_member_namespace_gets_the_same_values(cluster: Cluster) -> None:
    cluster.put_namespace("box", "team")
    cluster.put("A", "1")
    cluster.put("B", "2")
    await cluster.reconcile()
    assert cluster.writer.values("team") == cluster.writer.values("box") == {"A": "1", "B": "2"}


async def test_nothing_is_written_when_nothing_differs(cluster: Cluster) -> None:
    cluster.put_namespace("box", "team")
    cluster.put("A", "1")
    await cluster.reconcile()
    assert await cluster.calls() == []


async def test_an_unknown_account_needs_no_write(cluster: Cluster) -> None:
    assert await cluster.calls("nobody") == []


async def test_a_restart_on_an_unchanged_cluster_writes_nothing(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    after = Cluster()
    after.put_namespace("team")
    after.writer.versions = cluster.writer.versions
    after.put_secret(cluster.writer.secrets["team"])
    after.cache.upsert_account_secret(cluster.writer.put_account_secret(cluster.writer.account_secrets["team", "a"]))
    assert await after.calls() == []


async def test_a_new_value_is_applied_without_creating_anything(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.put("A", "2", generation=2)
    assert await cluster.calls() == ["apply team", "status team/a"]
    assert cluster.writer.values("team") == {"A": "2"}


async def test_the_duration_of_a_sync_is_only_measured_if_something_was_written(cluster: Cluster) -> None:
    cluster.put("A", "1")
    before = syncs()
    await cluster.reconcile()
    assert syncs() == before + 1
    await cluster.reconcile()
    assert syncs() == before + 1


async def test_a_secret_that_someone_else_changed_is_repaired_and_counted(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.put_secret(edited(cluster.writer.secrets["team"], values={"A": "by hand"}))
    before = drift_repairs()
    assert await cluster.calls() == ["apply team"]
    assert cluster.writer.values("team") == {"A": "1"}
    assert drift_repairs() == before + 1


async def test_a_secret_that_someone_else_deleted_is_repaired_and_counted(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.delete_secret("team")
    before = drift_repairs()
    assert await cluster.calls() == ["create team", "apply team"]
    assert drift_repairs() == before + 1


async def test_a_change_of_the_desired_values_is_not_drift(cluster: Cluster) -> None:
    before = drift_repairs()
    for generation, value in enumerate(["1", "2", "1"], start=1):
        cluster.put("A", value, generation=generation)
        await cluster.reconcile()
    assert drift_repairs() == before


async def test_keys_of_another_field_manager_are_removed(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.put_secret(secret("team", {"A": "1", "_STRAY": "x", "_MORE": "y"}))
    assert await cluster.calls() == ["apply team", "remove team _MORE _STRAY"]
    assert cluster.writer.values("team") == {"A": "1"}
    assert await cluster.calls() == []


async def test_an_immutable_secret_is_deleted_first(cluster: Cluster) -> None:
    cluster.put_secret(secret("team", {}, immutable=True))
    cluster.put("A", "1")
    assert await cluster.calls() == ["delete team", "create team", "apply team", "status team/a"]
    assert cluster.writer.values("team") == {"A": "1"}


def foreign(where: str) -> Body:
    """Return a Secret that someone else created."""
    body = secret(where, {"THEIRS": "x"})
    del body["metadata"]["labels"], body["metadata"]["managedFields"]
    return body


async def test_someone_else_s_secret_is_never_written_and_the_status_says_where(cluster: Cluster) -> None:
    cluster.put_namespace("box", "team")
    cluster.put_secret(foreign("box"))
    cluster.put("A", "1")
    assert await cluster.calls() == ["create team", "apply team", "status team/a"]
    assert cluster.writer.values("box") == {"THEIRS": "x"}
    assert cluster.reason("a") == "NotOwned"
    assert "box" in cluster.message("a")
    assert cluster.recorded == [("a", "NotOwned")]


async def test_changed_at_is_when_the_value_was_written_after_someone_else_s_secret_was_deleted(
    cluster: Cluster,
) -> None:
    cluster.put_secret(foreign("team"))
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.delete_secret("team")
    cluster.now += timedelta(hours=1)
    before = drift_repairs()
    assert await cluster.calls() == ["create team", "apply team", "status team/a"]
    assert drift_repairs() == before
    assert cluster.writer.status("a").changed_at == "2026-01-01T01:00:00Z"


async def test_a_secret_that_someone_else_creates_just_before_ours_is_not_written(cluster: Cluster) -> None:
    cluster.put("A", "1")
    cluster.writer.before["create team"] = lambda: cluster.writer.put_secret(foreign("team"))
    assert await cluster.failing_calls(Conflict) == ["create team"]
    assert await cluster.calls() == ["status team/a"]
    assert cluster.writer.values("team") == {"THEIRS": "x"}
    assert cluster.reason("a") == "NotOwned"


async def test_a_secret_that_we_created_and_could_not_fill_is_filled_by_a_retry(cluster: Cluster) -> None:
    cluster.put("A", "1")
    cluster.writer.fail_once("apply team", Unreachable("gone"))
    assert await cluster.failing_calls(Unreachable) == ["create team", "apply team"]
    # Its event may not have arrived yet: then the next try reads it.
    assert await cluster.failing_calls(Conflict) == ["create team"]
    assert await cluster.calls() == ["apply team", "status team/a"]
    assert cluster.writer.values("team") == {"A": "1"}


async def test_a_labeled_namespace_keeps_an_empty_secret(cluster: Cluster) -> None:
    cluster.put_namespace("box", "team")
    assert await cluster.calls() == ["create box", "apply box"]
    assert cluster.writer.values("box") == {}
    assert await cluster.calls() == []


async def test_without_values_the_home_s_secret_is_deleted_and_a_labeled_namespace_s_is_emptied(
    cluster: Cluster,
) -> None:
    cluster.put_namespace("box", "team")
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.delete("A")
    assert sorted(await cluster.calls()) == ["apply box", "delete team"]
    assert cluster.writer.values("box") == {}
    assert "team" not in cluster.writer.secrets


async def test_creating_a_secret_again_after_we_deleted_it_is_not_drift(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.delete("A")
    await cluster.reconcile()
    cluster.notify_deletion("team")
    cluster.put("A", "1")
    before = drift_repairs()
    await cluster.reconcile()
    assert cluster.writer.values("team") == {"A": "1"}
    assert drift_repairs() == before


async def test_a_secret_that_changes_just_before_its_deletion_is_not_deleted(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.delete("A")
    cluster.writer.before["delete team"] = lambda: cluster.writer.put_secret(foreign("team"))
    await cluster.failing_calls(Conflict)
    assert cluster.writer.values("team") == {"THEIRS": "x"}


async def test_a_rejection_in_one_namespace_does_not_affect_others(cluster: Cluster) -> None:
    for name in ("a-box", "b-box", "c-box"):
        cluster.put_namespace(name, "team")
    cluster.put("A", "1")
    cluster.writer.fail_always("create b-box", REFUSED)
    await cluster.failing_calls(Forbidden)
    assert [cluster.writer.values(name) for name in ("a-box", "c-box", "team")] == [{"A": "1"}] * 3


async def test_a_rejection_is_retried_before_it_is_reported(cluster: Cluster) -> None:
    cluster.put("A", "1")
    cluster.writer.fail_once("create team", REFUSED)
    assert await cluster.failing_calls(Forbidden) == ["create team"]
    assert await cluster.calls() == ["create team", "apply team", "status team/a"]
    assert cluster.recorded == []


async def test_a_repeated_rejection_is_reported_with_its_namespace_and_reason(cluster: Cluster) -> None:
    cluster.put_namespace("box", "team")
    cluster.put("A", "1")
    cluster.writer.fail_always("create box", REFUSED)
    assert "status team/a" not in await cluster.failing_calls(Forbidden)
    assert "status team/a" in await cluster.failing_calls(Forbidden)
    assert cluster.reason("a") == "NotWritten"
    assert "box: PATCH …: 403 quota" in cluster.message("a")
    assert cluster.recorded == [("a", "NotWritten")]
    assert "status team/a" not in await cluster.failing_calls(Forbidden)


@pytest.mark.parametrize("error", [Conflict("409"), Unreachable("no"), ServerError("500"), NotFound("404")])
async def test_an_error_that_a_retry_may_solve_is_reported_after_six_failures(
    error: APIError, cluster: Cluster
) -> None:
    cluster.put("A", "1")
    cluster.writer.fail_always("create team", error)
    reasons = []
    for _ in range(7):
        await cluster.failing_calls(type(error))
        reasons.append(cluster.reason("a"))
    assert reasons == [None] * 5 + ["NotWritten"] * 2


async def test_changed_at_is_when_a_rejected_value_was_finally_written(cluster: Cluster) -> None:
    cluster.put("A", "1")
    cluster.writer.fail_always("create team", REFUSED)
    for _ in range(2):
        await cluster.failing_calls(Forbidden)
    cluster.writer.recover()
    cluster.now += timedelta(hours=1)
    await cluster.reconcile()
    assert cluster.reason("a") == "Synced"
    assert cluster.writer.status("a").changed_at == "2026-01-01T01:00:00Z"
    assert cluster.recorded == [("a", "NotWritten"), ("a", "Synced")]


async def test_the_first_failure_is_raised_after_everything_else_is_done(cluster: Cluster) -> None:
    cluster.put_namespace("a-box", "team")
    cluster.put_namespace("b-box", "team")
    cluster.put("A", "1")
    cluster.writer.fail_always("create a-box", first := Forbidden("first"))
    cluster.writer.fail_always("create b-box", Forbidden("second"))
    cluster.failures = 1
    cluster.writer.fail_always("status team/a", Forbidden("third"))
    with pytest.raises(Forbidden) as caught:
        await cluster.reconcile()
    assert caught.value is first
    assert cluster.writer.values("team") == {"A": "1"}


async def test_a_failed_status_write_is_raised_and_does_not_affect_others(cluster: Cluster) -> None:
    cluster.put("A", "1")
    cluster.put("B", "2")
    cluster.writer.fail_always("status team/a", REFUSED)
    await cluster.failing_calls(Forbidden)
    assert (cluster.reason("a"), cluster.reason("b")) == (None, "Synced")


async def test_a_status_is_only_written_if_it_differs(cluster: Cluster) -> None:
    cluster.put("A", "1")
    cluster.put("B", "2")
    await cluster.reconcile()
    cluster.put("B", "3", generation=2)
    assert await cluster.calls() == ["apply team", "status team/b"]


async def test_an_accountsecret_that_was_deleted_in_the_meantime_needs_no_status(cluster: Cluster) -> None:
    cluster.put("A", "1")
    cluster.writer.before["status team/a"] = cluster.writer.account_secrets.clear
    assert await cluster.calls() == ["create team", "apply team", "status team/a"]
    assert cluster.recorded == []


async def test_an_accountsecret_that_changed_in_the_meantime_is_retried(cluster: Cluster) -> None:
    cluster.put("A", "1")
    cluster.writer.before["status team/a"] = lambda: cluster.put("A", "2", generation=2)
    await cluster.failing_calls(Conflict)
    assert await cluster.calls() == ["apply team", "status team/a"]
    assert cluster.reason("a") == "Synced"


async def test_without_a_home_no_status_is_written() -> None:
    cluster = Cluster()
    cluster.put("A", "1")
    assert await cluster.calls() == []


async def test_devboxes_keep_the_previous_value_if_a_new_one_does_not_open(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.put_sealed("A", seal("2", "OTHER"), generation=2)
    assert await cluster.calls() == ["status team/a"]
    assert cluster.writer.values("team") == {"A": "1"}
    assert cluster.reason("a") == "CannotOpen"
    assert "devboxes keep the value of 2026-01-01T00:00:00Z" in cluster.message("a")


LOST = {
    "the home's is someone else's": lambda cluster: cluster.put_secret(foreign("team")),
    "the home's was deleted": lambda cluster: cluster.delete_secret("team"),
    "the home's was edited": lambda cluster: cluster.put_secret(
        edited(cluster.writer.secrets["team"], values={"A": "forged"})
    ),
}


@pytest.mark.parametrize("happens", LOST.values(), ids=LOST)
@pytest.mark.parametrize("restarted", [False, True])
async def test_the_last_good_value_stays_whatever_happens_to_the_home_s_secret(
    restarted: bool, happens: Callable[[Cluster], None], cluster: Cluster
) -> None:
    cluster.put_namespace("box", "team")
    cluster.put("A", "1")
    await cluster.reconcile()
    happens(cluster)
    cluster.put_sealed("A", seal("2", "OTHER"), generation=2)
    if restarted:
        cluster.restart()
    await cluster.reconcile()
    assert cluster.writer.values("box") == {"A": "1"}
    assert cluster.writer.values("team") in ({"A": "1"}, {"THEIRS": "x"})
    assert "devboxes keep the value of" in cluster.message("a")


async def former_leader(cluster: Cluster) -> Reconciler:
    """Give devboxes a value, and let another replica give a newer one before the next can't be opened."""
    cluster.put("A", "1")
    await cluster.reconcile()
    former = cluster.reconciler
    cluster.restart()
    cluster.put("A", "2", generation=2)
    await cluster.reconcile()
    cluster.put_sealed("A", seal("3", "OTHER"), generation=3)
    return former


async def test_a_leader_does_not_restore_what_it_gave_before_another_replica_led(cluster: Cluster) -> None:
    former = await former_leader(cluster)
    former.start_over()
    await former.reconcile("team", since=0)
    assert cluster.writer.values("team") == {"A": "2"}


async def test_a_reconciliation_that_outlasts_the_lease_is_not_remembered(cluster: Cluster) -> None:
    cluster.writer.before["apply team"] = cluster.reconciler.start_over
    former = await former_leader(cluster)
    await former.reconcile("team", since=0)
    assert cluster.writer.values("team") == {"A": "2"}


async def failed_update(cluster: Cluster, error: type[Exception]) -> None:
    """Let the write of a second value fail before the third can't be opened."""
    cluster.put("A", "2", generation=2)
    await cluster.failing_calls(error)
    cluster.notify_secret("team")
    cluster.put_sealed("A", seal("3", "OTHER"), generation=3)
    await cluster.reconcile()


@pytest.mark.parametrize("error", [Unreachable("no response"), ServerError("504")])
async def test_a_value_whose_write_may_have_taken_effect_is_the_last_good_one(
    error: APIError, cluster: Cluster
) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.writer.before["apply team"] = lambda: cluster.put_secret(secret("team", {"A": "2"}))
    cluster.writer.fail_once("apply team", error)
    await failed_update(cluster, type(error))
    assert cluster.writer.values("team") == {"A": "2"}


@pytest.mark.parametrize("error", [Conflict("409"), REFUSED])
async def test_a_value_beside_unknown_keys_that_could_not_be_removed_is_the_last_good_one(
    error: APIError, cluster: Cluster
) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.put_secret(edited(cluster.writer.secrets["team"], values={"_X": "theirs"}))
    cluster.writer.fail_once("remove team _X", error)
    await failed_update(cluster, ServerError)
    assert cluster.writer.values("team") == {"A": "2"}


async def test_a_value_whose_write_was_rejected_is_not_the_last_good_one(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.writer.fail_once("apply team", REFUSED)
    await failed_update(cluster, Forbidden)
    assert cluster.writer.values("team") == {"A": "1"}


async def unequal(cluster: Cluster) -> None:
    """Let a replica end after it has written a new value in only one namespace, and the next value can't be opened."""
    cluster.put_namespace("box", "team")
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.put_secret(secret("box", {"A": "2"}))
    cluster.put_sealed("A", seal("3", "OTHER"), generation=2)
    cluster.restart()


async def test_if_namespaces_differ_each_keeps_its_value_until_the_next_one_opens(cluster: Cluster) -> None:
    await unequal(cluster)
    for _ in range(2):
        await cluster.reconcile()
    assert (cluster.writer.values("team"), cluster.writer.values("box")) == ({"A": "1"}, {"A": "2"})
    assert cluster.reason("a") == "CannotOpen"
    assert await cluster.calls() == []
    cluster.put("A", "4", generation=3)
    await cluster.reconcile()
    assert cluster.writer.values("team") == cluster.writer.values("box") == {"A": "4"}


async def test_if_namespaces_differ_each_keeps_its_value_when_another_variable_changes(cluster: Cluster) -> None:
    await unequal(cluster)
    cluster.put("B", "1")
    await cluster.reconcile()
    assert cluster.writer.values("team") == {"A": "1", "B": "1"}
    assert cluster.writer.values("box") == {"A": "2", "B": "1"}


async def test_if_namespaces_differ_one_without_a_value_gets_the_home_s(cluster: Cluster) -> None:
    await unequal(cluster)
    await cluster.reconcile()
    cluster.put_namespace("new", "team")
    cluster.put_secret(edited(cluster.writer.secrets["box"], values={"A": "forged"}))
    await cluster.reconcile()
    assert cluster.writer.values("new") == cluster.writer.values("box") == {"A": "1"}


async def test_a_value_that_this_process_gave_is_written_where_it_is_missing_even_if_the_next_does_not_open(
    cluster: Cluster,
) -> None:
    cluster.put_namespace("box", "team")
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.writer.fail_once("apply box", REFUSED)
    await failed_update(cluster, Forbidden)
    assert cluster.writer.values("team") == cluster.writer.values("box") == {"A": "2"}


async def test_the_last_good_value_is_written_from_memory_if_every_secret_is_gone(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.put_sealed("A", seal("2", "OTHER"), generation=2)
    cluster.restart()
    await cluster.reconcile()
    cluster.delete_secret("team")
    await cluster.reconcile()
    assert cluster.writer.values("team") == {"A": "1"}


async def test_a_value_that_never_fit_is_not_the_last_good_one(cluster: Cluster) -> None:
    cluster.put("A", "1")
    cluster.put("B", "b" * 130_000)
    for name in "CDEFGHI":
        cluster.put(name, name * 130_000)
    await cluster.reconcile()
    cluster.put("A", "2" * 130_000, generation=2)
    await cluster.reconcile()
    assert cluster.reason("a") == "TooLarge"
    cluster.put_sealed("A", seal("3", "OTHER"), generation=3)
    await cluster.reconcile()
    assert cluster.writer.values("team")["A"] == "1"


async def test_values_of_a_former_account_never_reach_the_new_one(cluster: Cluster) -> None:
    cluster.put_namespace("other")
    cluster.put_namespace("box", "other")
    cluster.put("A", "theirs", account="other")
    await cluster.reconcile("other")
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.put_sealed("A", seal("2", "OTHER"), generation=2)
    cluster.delete_secret("team")
    cluster.restart()
    cluster.put_namespace("box", "team")
    await cluster.reconcile()
    assert cluster.writer.values("box") == {}
    assert "team" not in cluster.writer.secrets


async def test_a_value_of_which_only_the_fingerprint_is_known_is_read_again(cluster: Cluster) -> None:
    long = "x" * 100_000
    cluster.put("A", long)
    await cluster.reconcile()
    cluster.opener.values = Values()
    cluster.put_namespace("box", "team")
    assert await cluster.calls() == ["read team", "create box", "apply box"]
    assert cluster.writer.values("box") == {"A": long}
    cluster.opener.values = Values()
    cluster.keyring = Keyring([])
    cluster.put_namespace("cube", "team")
    assert await cluster.calls() == ["read box", "create cube", "apply cube"]
    assert cluster.writer.values("cube") == {"A": long}


async def test_evicted_values_are_read_with_one_request(cluster: Cluster) -> None:
    for name in "ABC":
        cluster.put(name, f"value of {name}")
    await cluster.reconcile()
    cluster.opener.values = Values()
    cluster.put("A", "2", generation=2)
    assert await cluster.calls() == ["read team", "apply team", "status team/a"]
    assert cluster.writer.values("team") == {"A": "2", "B": "value of B", "C": "value of C"}


async def test_a_value_is_never_given_to_another_variable(cluster: Cluster) -> None:
    sealed = seal("1", "A")
    cluster.put_sealed("A", sealed)
    await cluster.reconcile()
    cluster.put_sealed("A", sealed, generation=2, name="B")
    await cluster.reconcile()
    assert cluster.reason("a") == "CannotOpen"
    assert "team" not in cluster.writer.secrets


async def test_a_value_that_can_no_longer_be_opened_or_read_is_reported(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.opener.values = Values()
    cluster.keyring = Keyring([])
    cluster.delete_secret("team")
    assert await cluster.failing_calls(Conflict) == ["read team/a"]
    await cluster.reconcile()
    assert cluster.reason("a") == "UnknownKey"
    assert "team" not in cluster.writer.secrets


async def test_a_secret_that_changed_just_before_a_value_is_read_from_it_is_not_trusted(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.put_sealed("A", seal("2", "OTHER"), generation=2)
    cluster.restart()
    cluster.writer.before["read team"] = lambda: cluster.put_secret(
        edited(cluster.writer.secrets["team"], values={"A": "forged"})
    )
    assert await cluster.failing_calls(Conflict) == ["read team"]


async def test_a_secret_with_a_finalizer_is_emptied_before_it_is_deleted(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.add_finalizer("team")
    cluster.delete("A")
    assert await cluster.calls() == ["apply team", "delete team"]
    assert cluster.writer.values("team") == {}
    cluster.notify_secret("team")
    assert await cluster.calls() == []


async def test_a_deleted_secret_that_a_finalizer_holds_is_still_updated(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.add_finalizer("team", deletionTimestamp="2026-01-01T00:00:00Z")
    cluster.put("B", "2")
    await cluster.reconcile()
    assert cluster.writer.values("team") == {"A": "1", "B": "2"}
    cluster.delete("A")
    cluster.delete("B")
    assert await cluster.calls() == ["apply team"]
    assert cluster.writer.values("team") == {}


async def test_an_immutable_secret_that_a_finalizer_holds_is_reported(cluster: Cluster) -> None:
    cluster.put_secret(secret("team", {"OLD": "x"}, immutable=True))
    cluster.add_finalizer("team")
    cluster.put("A", "1")
    assert await cluster.failing_calls(Conflict) == ["delete team", "create team"]
    assert await cluster.calls() == ["status team/a"]
    assert cluster.reason("a") == "NotWritten"
    assert "team (a.example/hold)" in cluster.message("a")


async def test_an_accountsecret_that_is_being_deleted_counts_as_deleted(cluster: Cluster) -> None:
    cluster.put("A", "1")
    cluster.put("B", "2")
    await cluster.reconcile()
    body = cluster.writer.account_secrets["team", "a"]
    body = {**body, "metadata": {**body["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    cluster.cache.upsert_account_secret(cluster.writer.put_account_secret(body))
    assert await cluster.calls() == ["apply team", "status team/a"]
    assert cluster.writer.values("team") == {"B": "2"}
    assert cluster.reason("a") == "Deleting"


async def test_a_value_is_synced_once_its_key_is_added(cluster: Cluster) -> None:
    cluster.put_sealed("A", seal("1", "A", key=OLD_KEY))
    await cluster.reconcile()
    assert cluster.reason("a") == "UnknownKey"
    cluster.keyring = Keyring([KEY, OLD_KEY])
    await cluster.reconcile()
    assert cluster.reason("a") == "Synced"
    assert cluster.writer.status("a").key_id == OLD_KEY.public.id


async def test_a_reserved_name_and_an_accountsecret_outside_a_home_are_not_ready(cluster: Cluster) -> None:
    cluster.put("PATH", "/evil")
    cluster.put_namespace("box", "team")
    cluster.put("A", "1", account="box")
    assert await cluster.calls() == ["create box", "apply box", "status team/path"]
    assert await cluster.calls("box") == ["status box/a"]
    ready = cluster.writer.status("a", "box").ready
    assert ready is not None
    assert ready.reason == "WrongNamespace"
    assert cluster.reason("path") == "ReservedName"


async def test_many_values_are_opened_in_batches_so_that_other_tasks_can_run(cluster: Cluster) -> None:
    for number in range(41):
        cluster.put(f"A{number}", "x")
    turns = 0

    async def other() -> None:
        nonlocal turns
        while not cluster.writer.calls:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    turns = 0
    await cluster.reconcile()
    await task
    assert turns >= 2


CHANGED = "2026-01-01T02:00:00Z"


def seal_again(value: str) -> str:
    """Seal a value of A; the text differs each time."""
    return KEY.public.seal(SecretBytes(value.encode()), account="team", name="A")


@pytest.mark.parametrize(
    ("change", "changed_at"),
    [
        pytest.param(lambda cluster: cluster.put("A", "2", generation=2), CHANGED, id="another value"),
        pytest.param(
            lambda cluster: cluster.put_sealed("A", seal_again("1"), generation=2),
            "2026-01-01T00:00:00Z",
            id="the same value, sealed again",
        ),
    ],
)
async def test_changed_at_is_correct_after_a_failed_status_write(
    change: Callable[[Cluster], None], changed_at: str, cluster: Cluster
) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.now += timedelta(hours=1)
    change(cluster)
    cluster.writer.fail_once("status team/a", Unreachable("gone"))
    await cluster.failing_calls(Unreachable)
    # The account Secret already has the new value.
    cluster.now += timedelta(hours=1)
    assert await cluster.calls() == ["status team/a"]
    assert cluster.writer.status("a").changed_at == changed_at


async def test_changing_a_value_and_back_without_a_status_write_counts_as_a_change(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.writer.fail_always("status team/a", Unreachable("gone"))
    cluster.put("A", "2", generation=2)
    await cluster.failing_calls(Unreachable)
    # A devbox that starts now has the value 2; the status must not say that it has the current one.
    cluster.now += timedelta(hours=2)
    cluster.writer.recover()
    cluster.put("A", "1", generation=3)
    await cluster.reconcile()
    assert cluster.writer.status("a").changed_at == CHANGED


async def test_changing_a_value_back_after_a_reported_change_is_another_change(cluster: Cluster) -> None:
    cluster.put("A", "1")
    for generation, value in enumerate(["2", "1"], start=2):
        await cluster.reconcile()
        cluster.now += timedelta(hours=1)
        cluster.put("A", value, generation=generation)
    await cluster.reconcile()
    assert cluster.writer.status("a").changed_at == CHANGED


async def test_the_response_to_our_write_is_cached_before_its_event_arrives(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    assert cluster.cache.upsert_secret(cluster.writer.secrets["team"]) == set()
    assert cluster.cache.upsert_account_secret(cluster.writer.account_secrets["team", "a"]) == set()


@pytest.mark.parametrize("exists", [True, False])
async def test_a_namespace_that_moves_while_another_secret_is_written_gets_no_value(
    exists: bool, cluster: Cluster
) -> None:
    cluster.put_namespace("zone", "team")
    if exists:
        cluster.put("A", "1")
        await cluster.reconcile()
    cluster.put("A", "2", generation=2)
    cluster.writer.before["apply team"] = lambda: cluster.put_namespace("zone", "other")
    calls = await cluster.failing_calls(Conflict)
    assert [call for call in calls if "zone" in call] == []
    assert (await cluster.calls())[-1] == "status team/a"


async def test_a_response_from_a_namespace_that_moved_to_another_account_is_not_cached(
    cluster: Cluster,
) -> None:
    cluster.put_namespace("box", "team")
    cluster.put("A", "1")
    cluster.writer.before["apply box"] = lambda: cluster.put_namespace("box", "other")
    await cluster.reconcile()
    assert cluster.cache.upsert_secret(cluster.writer.secrets["box"]) == {"other"}


async def test_deleted_accountsecrets_are_forgotten(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    (known,) = cluster.cache.account_secrets("team")
    cluster.reconciler.forget()
    assert cluster.opener.opened(known) is not None
    cluster.delete("A")
    cluster.reconciler.forget()
    assert cluster.opener.opened(known) is None


async def test_a_namespace_created_again_with_the_same_name_has_no_drift(cluster: Cluster) -> None:
    cluster.put("A", "1")
    cluster.put_namespace("box", "team")
    await cluster.reconcile()
    cluster.cache.delete_namespace(at(next(cluster.writer.versions), namespace("box", "team")))
    cluster.delete_secret("box")
    cluster.reconciler.forget()
    cluster.put_namespace("box", "team")
    before = drift_repairs()
    assert await cluster.calls() == ["create box", "apply box"]
    assert drift_repairs() == before


async def test_the_previous_values_of_existing_accountsecrets_are_not_forgotten(cluster: Cluster) -> None:
    cluster.put("A", "1")
    await cluster.reconcile()
    cluster.writer.fail_once("status team/a", Unreachable("gone"))
    cluster.put("A", "2", generation=2)
    await cluster.failing_calls(Unreachable)
    cluster.reconciler.forget()
    cluster.now += timedelta(hours=2)
    await cluster.reconcile()
    assert cluster.writer.status("a").changed_at == CHANGED


async def test_no_value_is_in_the_log(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    cluster.put("A", "canary-value")
    await cluster.reconcile()
    cluster.put_sealed("A", seal("canary-value", "OTHER"), generation=2)
    await cluster.reconcile()
    assert "variables: 1" in caplog.text
    assert "CannotOpen" in caplog.text
    assert "canary" not in caplog.text


async def test_a_change_is_one_line_in_the_log_however_many_namespaces_it_affects(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for name in ("box-1", "box-2"):
        cluster.put_namespace(name, "team")
    cluster.put("A", "1")
    for _ in range(2):
        await cluster.reconcile()
    assert caplog.messages == ["account team: changed account Secrets (namespaces: 3, variables: 1)"]


async def test_a_large_account_uses_only_a_part_of_the_slots() -> None:
    busy, most = Counter[str](), Counter[str]()

    async def job(account: str) -> None:
        for each in (account, "all"):
            busy[each] += 1
            most[each] = max(most[each], busy[each])
        await asyncio.sleep(0)
        busy.subtract([account, "all"])

    slots = asyncio.Semaphore(4)
    await asyncio.gather(*(_each(job, [account] * 100, slots, at_once=4) for account in ("a", "b")))
    assert most == {"a": 4, "b": 4, "all": 6}


@pytest.mark.parametrize(
    ("waits", "single"), [([], 0), ([0.0], 8), ([0.0, 0.1], 16), ([it / 20 for it in range(200)], 56)]
)
def test_statuses_are_written_one_at_a_time_while_they_are_to_wait(waits: list[float], single: int) -> None:
    running, at_once = 0, Counter[int]()

    async def write_status(*_: object) -> str:
        nonlocal running
        running += 1
        await asyncio.sleep(0.01)
        at_once[running] += 1
        await asyncio.sleep(0.01)
        running -= 1
        raise NotFound("no")

    async def main() -> None:
        cluster = Cluster()
        cluster.put_namespace("team")
        for number in range(400):
            cluster.put(f"V{number}", "1")
        for seconds in waits:
            asyncio.get_running_loop().call_later(seconds, cluster.reconciler.let_statuses_wait)
        await asyncio.sleep(0.001)
        with mock.patch.object(cluster.writer, "write_status", write_status):
            await cluster.reconcile()

    run(main())
    assert at_once == Counter({1: single, 8: 400 - single})


async def test_accounts_whose_requests_take_long_do_not_delay_another() -> None:
    all_hang = asyncio.Event()

    async def hang(_: int) -> None:
        if slots.locked():
            all_hang.set()
        await asyncio.Event().wait()

    async def succeed(_: int) -> None:
        pass

    slots = asyncio.Semaphore(6)
    slow = [asyncio.create_task(_each(hang, range(100), slots, at_once=4)) for _ in range(3)]
    await all_hang.wait()
    async with asyncio.timeout(5):
        assert await _each(succeed, range(100), slots, at_once=1) == [None] * 100
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)
    assert not slots.locked()


def test_no_write_waits_for_a_connection() -> None:
    assert _SECRET_WRITES + _STATUS_WRITES + ControllerSettings().workers + 1 < _CONNECTIONS


async def test_a_failed_job_does_not_affect_others_and_results_are_in_order() -> None:
    failure = ServerError("no")

    async def job(number: int) -> None:
        await asyncio.sleep(0)
        if number == 3:
            raise failure

    assert await _each(job, range(20), asyncio.Semaphore(3), at_once=4) == [
        failure if number == 3 else None for number in range(20)
    ]


async def test_a_namespace_that_was_created_again_unnoticed_gets_nothing() -> None:
    cluster = Cluster()
    cluster.put_namespace("team")
    cluster.put_namespace("box", "team")
    cluster.put("A", "1")
    cluster.writer.namespaces["box"] = "uid-new", "team"
    assert await cluster.failing_calls(Conflict) == ["create team", "apply team"]
    assert "box" not in cluster.writer.secrets
    cluster.put_namespace("box", "team", uid="uid-new")
    await cluster.reconcile()
    assert cluster.writer.values("box") == {"A": "1"}


async def test_a_namespace_that_is_created_again_just_before_its_secret_gets_no_value() -> None:
    cluster = Cluster()
    cluster.put_namespace("team")
    cluster.put_namespace("box", "team")
    cluster.put("A", "1")
    cluster.writer.before["create box"] = lambda: cluster.writer.namespaces.pop("box")
    assert await cluster.failing_calls(Conflict) == ["create box", "create team", "apply team"]
    assert cluster.writer.values("box") == {}
    cluster.notify_secret("box")
    await cluster.failing_calls(Conflict)
    assert cluster.writer.values("box") == {}


async def member_of_another_account() -> Cluster:
    """Return a cluster with two accounts, team and other, and a namespace of the latter."""
    cluster = Cluster()
    for name, account in (("team", None), ("other", None), ("box", "other")):
        cluster.put_namespace(name, account)
    cluster.put("A", "1")
    cluster.put("A", "2", account="other")
    await cluster.reconcile()
    await cluster.reconcile("other")
    return cluster


async def test_a_namespace_that_joins_after_the_home_was_deleted_gets_no_value() -> None:
    cluster = await member_of_another_account()
    del cluster.writer.namespaces["team"]
    cluster.put_namespace("box", "team")
    assert await cluster.failing_calls(Conflict) == []
    assert cluster.writer.values("box") == {"A": "2"}


async def test_a_namespace_that_moved_on_unnoticed_gets_no_value() -> None:
    cluster = await member_of_another_account()
    cluster.put_namespace("box", "team")
    cluster.writer.namespaces["box"] = "uid-box", "third"
    assert await cluster.failing_calls(Conflict) == []
    assert cluster.writer.values("box") == {"A": "2"}


async def test_a_namespace_that_rejoins_in_another_term_of_leadership_is_checked_again() -> None:
    cluster = await member_of_another_account()
    cluster.put_namespace("box", "team")
    await cluster.reconcile()
    # Another replica leads, and the namespace is in another account for a while.
    cluster.put_secret(secret("box", {"A": "2"}, "other"))
    cluster.reconciler.start_over()
    del cluster.writer.namespaces["team"]
    assert await cluster.failing_calls(Conflict) == []
    assert cluster.writer.values("box") == {"A": "2"}


async def test_a_namespace_that_rejoins_with_the_same_secret_is_checked_again() -> None:
    cluster = await member_of_another_account()
    cluster.put_namespace("box", "team")
    await cluster.reconcile()
    cluster.add_finalizer("box")
    cluster.put_namespace("box")
    assert await cluster.calls("box") == ["apply box", "delete box"]
    cluster.notify_secret("box")
    del cluster.writer.namespaces["team"]
    cluster.put_namespace("box", "team")
    assert await cluster.failing_calls(Conflict) == []
    assert cluster.writer.values("box") == {}
