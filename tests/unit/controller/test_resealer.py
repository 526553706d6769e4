"""Which values are resealed with the newest key, and what happens to those that can't be."""

from itertools import pairwise

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.api.names import GATEWAY_FIELD_MANAGER
from devbox_secrets.controller import metrics
from devbox_secrets.controller.cache import Cache
from devbox_secrets.controller.resealer import BATCH_SIZE, Resealer
from devbox_secrets.crypto.envelope import KeyPair, Keyring, key_id_of
from devbox_secrets.errors import APIError, Conflict, Forbidden, NotFound, NotLeader, RequestTimeout, Unreachable
from unit.controller.fake_writer import FakeWriter
from unit.controller.objects import KEY, OLD_KEY, account_secret, at, seal

BOTH = Keyring([OLD_KEY, KEY])
FIRST_DELAY = 15


class Values:
    """AccountSecrets, their values, and a resealer."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.writer = FakeWriter()
        self.keyring = BOTH
        self.values: dict[str, SecretBytes] = {}
        self.now = 0.0
        self.resealer = Resealer(
            self.writer,
            self.cache,
            lambda: self.keyring,
            self.value,
            first_delay=FIRST_DELAY,
            clock=lambda: self.now,
        )

    async def value(self, secret: AccountSecret) -> SecretBytes | None:
        return self.values.get(secret.uid)

    def put(
        self, variable: str, sealed: str, *, manager: str = GATEWAY_FIELD_MANAGER, opened: bool = True, **metadata: str
    ) -> None:
        body = account_secret(variable, sealed)
        body["metadata"] |= metadata
        body["metadata"]["managedFields"] = [{"manager": manager, "fieldsV1": {"f:spec": {"f:sealed": {}}}}]
        self.cache.upsert_account_secret(self.writer.put_account_secret(body))
        if opened:
            self.values[body["metadata"]["uid"]] = SecretBytes(b"1")

    def delete(self, variable: str) -> None:
        body = self.writer.account_secrets.pop(("team", variable.lower()))
        self.cache.delete_account_secret(at(next(self.writer.versions), body))

    async def calls(self) -> list[str]:
        """Reseal a batch; return the calls of the writer."""
        self.writer.calls.clear()
        await self.resealer.reseal_batch()
        return self.writer.calls

    def sealed(self, name: str) -> str:
        return AccountSecret.parse(self.writer.account_secrets["team", name]).spec.sealed


@pytest.fixture
def values() -> Values:
    return Values()


def old(variable: str) -> str:
    return seal("1", variable, key=OLD_KEY)


def outcomes() -> dict[str, float]:
    return {
        outcome: metrics.REGISTRY.get_sample_value("devbox_secrets_reseals_total", {"outcome": outcome}) or 0
        for outcome in ("resealed", "conflict", "failed")
    }


async def test_a_value_of_an_older_key_is_resealed_with_the_newest(values: Values) -> None:
    values.put("A", old("A"))
    assert await values.resealer.reseal_batch() == {"team"}
    assert key_id_of(values.sealed("a")) == KEY.public.id
    assert BOTH.open(values.sealed("a"), account="team", name="A") == SecretBytes(b"1")


async def test_a_resealed_value_is_logged_and_not_resealed_again(
    values: Values, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    values.put("A", old("A"))
    await values.resealer.reseal_batch()
    assert caplog.messages == ["resealed values with the newest key: 1"]
    caplog.clear()
    assert await values.calls() == []
    assert caplog.messages == []


async def test_a_value_of_the_newest_key_is_not_resealed(values: Values) -> None:
    values.put("A", seal("1", "A"))
    assert await values.calls() == []


async def test_a_value_that_someone_else_may_have_a_copy_of_is_not_resealed(values: Values) -> None:
    values.put("A", old("A"), manager="kubectl")
    assert await values.calls() == []


async def test_a_value_that_does_not_open_does_not_delay_others(values: Values) -> None:
    for number in range(BATCH_SIZE):
        values.put(f"A{number}", old(f"A{number}"), opened=False)
    values.put("B", old("B"))
    assert await values.calls() == ["sealed team/b"]


async def test_a_value_that_is_being_deleted_is_not_resealed(values: Values) -> None:
    values.put("A", old("A"), deletionTimestamp="2026-01-01T00:00:00Z")
    assert await values.calls() == []


@pytest.mark.parametrize("keys", [[], [OLD_KEY]])
async def test_nothing_is_resealed_without_a_newer_key(keys: list[KeyPair], values: Values) -> None:
    values.keyring = Keyring(keys)
    values.put("A", old("A"))
    assert await values.calls() == []


async def test_a_value_of_an_unknown_key_is_not_resealed(values: Values) -> None:
    values.keyring = Keyring([KEY])
    values.put("A", old("A"))
    assert await values.calls() == []


async def test_a_batch_has_a_limited_size(values: Values) -> None:
    for number in range(BATCH_SIZE + 3):
        values.put(f"A{number}", old(f"A{number}"))
    assert len(await values.calls()) == BATCH_SIZE
    assert len(await values.calls()) == 3


@pytest.mark.parametrize("error", [Conflict("409"), NotFound("404")])
async def test_a_value_that_was_changed_in_the_meantime_is_skipped(
    error: APIError, values: Values, caplog: pytest.LogCaptureFixture
) -> None:
    values.put("A", old("A"))
    values.put("B", old("B"))
    values.writer.fail_once("sealed team/a", error)
    before = outcomes()
    assert await values.calls() == ["sealed team/a", "sealed team/b"]
    assert outcomes() == {**before, "conflict": before["conflict"] + 1, "resealed": before["resealed"] + 1}
    assert caplog.messages == []


async def test_rejections_are_logged_once_for_a_batch_and_do_not_affect_others(
    values: Values, caplog: pytest.LogCaptureFixture
) -> None:
    for variable in "ABC":
        values.put(variable, old(variable))
    values.writer.fail_once("sealed team/a", Forbidden("PATCH a: 403 policy"))
    values.writer.fail_once("sealed team/c", Forbidden("PATCH c: 403 policy"))
    before = outcomes()
    assert len(await values.calls()) == 3
    assert caplog.messages == ["failed to reseal values: 2; first error: PATCH a: 403 policy"]
    assert outcomes() == {**before, "failed": before["failed"] + 2, "resealed": before["resealed"] + 1}


@pytest.mark.parametrize("error", [Unreachable("no"), RequestTimeout("no"), NotLeader("not sent")])
async def test_a_batch_ends_after_an_error_that_affects_all_requests(error: APIError, values: Values) -> None:
    values.put("A", old("A"))
    values.put("B", old("B"))
    values.writer.fail_once("sealed team/a", error)
    assert await values.calls() == ["sealed team/a"]


async def test_a_value_that_fails_is_retried_with_increasing_delay_up_to_an_hour(values: Values) -> None:
    values.put("A", old("A"))
    values.writer.fail_always("sealed team/a", Forbidden("403"))
    tried = []
    for second in range(12_000):
        values.now = second
        if await values.calls():
            tried.append(second)
    waits = [later - earlier for earlier, later in pairwise(tried)]
    assert waits == [15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600]


async def test_a_value_that_waits_does_not_delay_others(values: Values) -> None:
    values.put("A", old("A"))
    values.writer.fail_always("sealed team/a", Forbidden("403"))
    await values.calls()
    values.put("B", old("B"))
    assert await values.calls() == ["sealed team/b"]


async def test_a_success_resets_the_delay(values: Values) -> None:
    values.put("A", old("A"))
    values.writer.fail_once("sealed team/a", Forbidden("403"))
    await values.calls()
    values.now += FIRST_DELAY
    assert await values.calls() == ["sealed team/a"]
    values.put("A", old("A"))
    values.writer.fail_once("sealed team/a", Forbidden("403"))
    assert await values.calls() == ["sealed team/a"]
    values.now += FIRST_DELAY
    assert await values.calls() == ["sealed team/a"]


async def test_deleted_values_are_forgotten_and_waiting_ones_are_not(values: Values) -> None:
    for variable in "AB":
        values.put(variable, old(variable))
        values.writer.fail_once(f"sealed team/{variable.lower()}", Forbidden("403"))
    await values.calls()
    values.delete("A")
    values.resealer.forget()
    values.put("A", old("A"))
    assert await values.calls() == ["sealed team/a"]


async def test_no_value_is_in_the_log(values: Values, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    values.put("A", old("A"))
    values.values = dict.fromkeys(values.values, SecretBytes(b"canary"))
    await values.calls()
    assert BOTH.open(values.sealed("a"), account="team", name="A") == SecretBytes(b"canary")
    assert "canary" not in caplog.text
