"""Which values move on to the newest key, and what becomes of those that can't."""

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
    """AccountSecrets, what they opened to, and a resealer of them."""

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

    def have(
        self, variable: str, sealed: str, *, manager: str = GATEWAY_FIELD_MANAGER, opened: bool = True, **metadata: str
    ) -> None:
        body = account_secret(variable, sealed)
        body["metadata"] |= metadata
        body["metadata"]["managedFields"] = [{"manager": manager, "fieldsV1": {"f:spec": {"f:sealed": {}}}}]
        self.cache.upsert_account_secret(self.writer.put_account_secret(body))
        if opened:
            self.values[body["metadata"]["uid"]] = SecretBytes(b"1")

    def lose(self, variable: str) -> None:
        body = self.writer.account_secrets.pop(("team", variable.lower()))
        self.cache.delete_account_secret(at(next(self.writer.versions), body))

    async def calls(self) -> list[str]:
        """Reseal a batch, and give what was written for that."""
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


async def test_a_value_of_an_older_key_is_sealed_with_the_newest_and_stays_what_it_is(values: Values) -> None:
    values.have("A", old("A"))
    assert await values.resealer.reseal_batch() == {"team"}
    assert key_id_of(values.sealed("a")) == KEY.public.id
    assert BOTH.open(values.sealed("a"), account="team", name="A") == SecretBytes(b"1")


async def test_a_value_that_was_resealed_is_known_to_be_and_left_alone(
    values: Values, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    values.have("A", old("A"))
    await values.resealer.reseal_batch()
    assert caplog.messages == ["resealed values with the newest key: 1"]
    caplog.clear()
    assert await values.calls() == []
    assert caplog.messages == []


async def test_a_value_of_the_newest_key_stays(values: Values) -> None:
    values.have("A", seal("1", "A"))
    assert await values.calls() == []


async def test_a_value_that_someone_else_may_have_a_copy_of_stays(values: Values) -> None:
    values.have("A", old("A"), manager="kubectl")
    assert await values.calls() == []


async def test_a_value_that_does_not_open_stays_and_holds_back_no_other(values: Values) -> None:
    for number in range(BATCH_SIZE):
        values.have(f"A{number}", old(f"A{number}"), opened=False)
    values.have("B", old("B"))
    assert await values.calls() == ["sealed team/b"]


async def test_a_value_that_is_being_deleted_stays(values: Values) -> None:
    values.have("A", old("A"), deletionTimestamp="2026-01-01T00:00:00Z")
    assert await values.calls() == []


@pytest.mark.parametrize("keys", [[], [OLD_KEY]])
async def test_without_a_newer_key_nothing_moves(keys: list[KeyPair], values: Values) -> None:
    values.keyring = Keyring(keys)
    values.have("A", old("A"))
    assert await values.calls() == []


async def test_a_value_of_a_key_that_is_not_here_stays(values: Values) -> None:
    values.keyring = Keyring([KEY])
    values.have("A", old("A"))
    assert await values.calls() == []


async def test_a_batch_is_short(values: Values) -> None:
    for number in range(BATCH_SIZE + 3):
        values.have(f"A{number}", old(f"A{number}"))
    assert len(await values.calls()) == BATCH_SIZE
    assert len(await values.calls()) == 3


@pytest.mark.parametrize("error", [Conflict("409"), NotFound("404")])
async def test_a_value_that_was_changed_meanwhile_is_left_to_its_owner(
    error: APIError, values: Values, caplog: pytest.LogCaptureFixture
) -> None:
    values.have("A", old("A"))
    values.have("B", old("B"))
    values.writer.fail_once("sealed team/a", error)
    before = outcomes()
    assert await values.calls() == ["sealed team/a", "sealed team/b"]
    assert outcomes() == {**before, "conflict": before["conflict"] + 1, "resealed": before["resealed"] + 1}
    assert caplog.messages == []


async def test_what_is_refused_is_told_once_for_the_batch_and_holds_back_no_other(
    values: Values, caplog: pytest.LogCaptureFixture
) -> None:
    for variable in "ABC":
        values.have(variable, old(variable))
    values.writer.fail_once("sealed team/a", Forbidden("PATCH a: 403 policy"))
    values.writer.fail_once("sealed team/c", Forbidden("PATCH c: 403 policy"))
    before = outcomes()
    assert len(await values.calls()) == 3
    assert caplog.messages == ["failed to reseal values: 2; first error: PATCH a: 403 policy"]
    assert outcomes() == {**before, "failed": before["failed"] + 2, "resealed": before["resealed"] + 1}


@pytest.mark.parametrize("error", [Unreachable("no"), RequestTimeout("no"), NotLeader("not sent")])
async def test_a_batch_ends_with_what_the_next_would_fail_with_as_well(error: APIError, values: Values) -> None:
    values.have("A", old("A"))
    values.have("B", old("B"))
    values.writer.fail_once("sealed team/a", error)
    assert await values.calls() == ["sealed team/a"]


async def test_one_that_fails_waits_each_time_longer_but_for_an_hour_at_the_most(values: Values) -> None:
    values.have("A", old("A"))
    values.writer.fail_always("sealed team/a", Forbidden("403"))
    tried = []
    for second in range(12_000):
        values.now = second
        if await values.calls():
            tried.append(second)
    waits = [later - earlier for earlier, later in pairwise(tried)]
    assert waits == [15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600]


async def test_one_that_waits_holds_back_no_other(values: Values) -> None:
    values.have("A", old("A"))
    values.writer.fail_always("sealed team/a", Forbidden("403"))
    await values.calls()
    values.have("B", old("B"))
    assert await values.calls() == ["sealed team/b"]


async def test_one_that_went_well_at_last_waits_no_longer_than_at_first_the_next_time(values: Values) -> None:
    values.have("A", old("A"))
    values.writer.fail_once("sealed team/a", Forbidden("403"))
    await values.calls()
    values.now += FIRST_DELAY
    assert await values.calls() == ["sealed team/a"]
    values.have("A", old("A"))
    values.writer.fail_once("sealed team/a", Forbidden("403"))
    assert await values.calls() == ["sealed team/a"]
    values.now += FIRST_DELAY
    assert await values.calls() == ["sealed team/a"]


async def test_what_is_gone_is_forgotten_and_what_waits_is_not(values: Values) -> None:
    for variable in "AB":
        values.have(variable, old(variable))
        values.writer.fail_once(f"sealed team/{variable.lower()}", Forbidden("403"))
    await values.calls()
    values.lose("A")
    values.resealer.forget()
    values.have("A", old("A"))
    assert await values.calls() == ["sealed team/a"]


async def test_no_value_is_in_the_log(values: Values, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    values.have("A", old("A"))
    values.values = dict.fromkeys(values.values, SecretBytes(b"canary"))
    await values.calls()
    assert BOTH.open(values.sealed("a"), account="team", name="A") == SecretBytes(b"canary")
    assert "canary" not in caplog.text
