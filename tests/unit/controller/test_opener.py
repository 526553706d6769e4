"""The opener: it opens each sealed value once, and keeps a fingerprint and some values."""

from dataclasses import replace
from unittest import mock

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecret, Reason
from devbox_secrets.controller import metrics
from devbox_secrets.controller.cache import abridge, read_account_secret, without_text
from devbox_secrets.controller.opener import Opener, Values
from devbox_secrets.controller.rules.conditions import NotReady
from devbox_secrets.controller.rules.fingerprint import Fingerprint
from devbox_secrets.crypto import envelope
from devbox_secrets.crypto.envelope import Keyring
from devbox_secrets.errors import Conflict
from unit.controller.objects import KEY, OLD_KEY, account_secret, at, seal
from unit.controller.rules.entries import v


def count_opens() -> float:
    return metrics.REGISTRY.get_sample_value("devbox_secrets_opens_total") or 0


class Texts:
    """Sealed values in the API server, and an opener that can read them."""

    def __init__(self) -> None:
        self.keys = [KEY]
        self.texts: dict[tuple[str, str], str] = {}
        self.reads = 0
        self.opener = Opener(lambda: Keyring(self.keys), self.read)

    async def read(self, namespace: str, name: str) -> str | None:
        self.reads += 1
        return self.texts.get((namespace, name))

    def put(self, variable: str, sealed: str) -> AccountSecret:
        """Store an AccountSecret; return it as the cache has it."""
        self.texts["team", variable.lower()] = sealed
        return read_account_secret(at(1, account_secret(variable, sealed)))

    async def open(self, secret: AccountSecret) -> tuple[str | None, Fingerprint | NotReady]:
        await self.opener.open(secret)
        opened = self.opener.opened(secret)
        assert opened is not None
        return opened.key_id, opened.outcome


@pytest.fixture
def texts() -> Texts:
    return Texts()


LONG = "x" * 100_000


@pytest.mark.parametrize(("value", "reads"), [("1", 0), (LONG, 1)])
async def test_a_value_is_opened_once_and_has_the_id_of_its_key(value: str, reads: int, texts: Texts) -> None:
    secret, before = texts.put("A", seal(value, "A")), count_opens()
    assert texts.opener.opened(secret) is None
    assert await texts.open(secret) == (KEY.public.id, v(value))
    assert await texts.open(secret) == (KEY.public.id, v(value))
    assert await texts.opener.value(secret) == SecretBytes(value.encode())
    assert (count_opens(), texts.reads) == (before + 1, reads)


@pytest.mark.parametrize(("first", "second"), [("1", "2"), (LONG, LONG + "x")])
async def test_a_changed_sealed_value_is_opened_again(first: str, second: str, texts: Texts) -> None:
    await texts.open(texts.put("A", seal(first, "A")))
    changed = texts.put("A", seal(second, "A"))
    assert texts.opener.opened(changed) is None
    assert await texts.open(changed) == (KEY.public.id, v(second))


async def test_an_opened_value_needs_its_sealed_text_only_if_it_was_evicted(texts: Texts) -> None:
    secret = texts.put("A", seal("1", "A"))
    assert await texts.opener.open(secret)
    abridged = without_text(secret)
    assert texts.opener.opened(abridged) == texts.opener.opened(secret)
    assert await texts.opener.value(abridged) == SecretBytes(b"1")
    assert texts.reads == 0
    texts.opener.values = Values()
    assert await texts.opener.value(abridged) == SecretBytes(b"1")
    assert texts.reads == 1


async def test_an_empty_value_is_cached(texts: Texts) -> None:
    secret = without_text(texts.put("A", seal("", "A")))
    assert await texts.opener.open(secret)
    reads = texts.reads
    assert await texts.opener.value(secret) == SecretBytes(b"")
    assert texts.reads == reads


async def test_a_text_is_opened_again_for_another_name(texts: Texts) -> None:
    secret = texts.put("A", seal("1", "A"))
    assert await texts.opener.open(secret)
    renamed = replace(secret, spec=secret.spec.model_copy(update={"name": "B"}))
    assert texts.opener.opened(renamed) is None
    assert not await texts.opener.open(renamed)


async def test_a_text_that_looks_abridged_is_not_an_envelope(texts: Texts) -> None:
    secret = texts.put("A", abridge(seal("1", "A")))
    assert not await texts.opener.open(secret)
    opened = texts.opener.opened(secret)
    assert opened is not None
    assert isinstance(opened.outcome, NotReady)
    assert opened.outcome.reason == Reason.CANNOT_OPEN


@pytest.mark.parametrize(
    ("sealed", "opens"), [(seal("1", "A"), True), (seal("1", "B"), False), (seal(LONG, "A"), False)]
)
def test_a_list_opens_what_needs_no_request(sealed: str, opens: bool, texts: Texts) -> None:
    secret, before = texts.put("A", sealed), count_opens()
    for _ in range(2):
        assert texts.opener.open_listed(secret) is opens
    assert count_opens() == before + opens
    assert (texts.opener.values.get(v("1")) is not None) is opens
    assert texts.reads == 0


@pytest.mark.parametrize("now", [None, seal(LONG + "y", "A")])
async def test_a_long_sealed_value_that_changed_in_the_meantime_is_a_conflict(now: str | None, texts: Texts) -> None:
    secret = texts.put("A", seal(LONG, "A"))
    texts.texts = {("team", "a"): now} if now else {}
    with pytest.raises(Conflict, match="team/a"):
        await texts.open(secret)


async def test_a_value_that_was_evicted_is_opened_again(texts: Texts) -> None:
    texts.opener.values = Values(most_bytes=2 * 100_000)
    first, second, third = (texts.put(name, seal(LONG + name, name)) for name in "ABC")
    for secret in (first, second, third):
        await texts.open(secret)
    before = count_opens()
    assert await texts.opener.value(third) == SecretBytes(f"{LONG}C".encode())
    assert count_opens() == before
    assert await texts.opener.value(first) == SecretBytes(f"{LONG}A".encode())
    assert count_opens() == before + 1


def test_the_values_used_last_are_kept() -> None:
    values = Values(most_bytes=2500)
    one, two = values.add(SecretBytes(b"1" * 500)), values.add(SecretBytes(b"2" * 500))
    assert values.get(one)
    values.add(SecretBytes(b"1" * 500))
    values.add(SecretBytes(b"3" * 1000))
    assert values.get(one) == SecretBytes(b"1" * 500)
    assert values.get(two) is None


def sealed_by_another_program(value: bytes) -> str:
    """Seal a value that no environment variable can have."""
    with mock.patch.object(envelope, "check_value"):
        return KEY.public.seal(SecretBytes(value), account="team", name="A")


@pytest.mark.parametrize(
    ("sealed", "key_id", "reason"),
    [
        pytest.param("canary", None, "CannotOpen", id="not a sealed value"),
        pytest.param(seal("1", "A", key=OLD_KEY), OLD_KEY.public.id, "UnknownKey", id="another key"),
        pytest.param(seal("1", "OTHER"), KEY.public.id, "CannotOpen", id="another name"),
        pytest.param(seal("1", "A", account="other"), KEY.public.id, "CannotOpen", id="another account"),
        pytest.param(sealed_by_another_program(b"canary\0"), KEY.public.id, "InvalidValue", id="a NUL"),
        pytest.param(sealed_by_another_program(b"canary\xff"), KEY.public.id, "InvalidValue", id="not text"),
        pytest.param(sealed_by_another_program(b"canary".ljust(131_070)), KEY.public.id, "TooLarge", id="too large"),
    ],
)
async def test_the_reason_says_why_a_value_does_not_open(
    sealed: str, key_id: str | None, reason: str, texts: Texts
) -> None:
    secret = texts.put("A", sealed)
    found_id, not_ready = await texts.open(secret)
    assert isinstance(not_ready, NotReady)
    assert (found_id, not_ready.reason) == (key_id, reason)
    assert "canary" not in not_ready.message
    assert await texts.opener.value(secret) is None


async def test_a_value_that_does_not_open_is_opened_again_if_the_keys_change(texts: Texts) -> None:
    texts.keys = [OLD_KEY]
    secret = texts.put("A", seal(LONG, "A"))
    assert isinstance((await texts.open(secret))[1], NotReady)
    await texts.open(secret)
    assert texts.reads == 1
    texts.keys.append(KEY)
    assert (await texts.open(secret))[1] == v(LONG)


async def test_a_value_stays_open_when_its_key_is_removed(texts: Texts) -> None:
    secret = texts.put("A", seal("1", "A"))
    await texts.open(secret)
    texts.keys.clear()
    assert (await texts.open(secret))[1] == v("1")
    assert await texts.opener.value(secret) == SecretBytes(b"1")


async def test_only_deleted_accountsecrets_are_forgotten(texts: Texts) -> None:
    gone, kept = texts.put("A", seal("1", "A")), texts.put("B", seal("2", "B"))
    await texts.open(gone)
    await texts.open(kept)
    texts.opener.forget_all_but({kept.uid})
    assert texts.opener.opened(gone) is None
    assert texts.opener.opened(kept) is not None
    texts.opener.forget(kept.uid)
    assert texts.opener.opened(kept) is None


async def test_no_value_is_printed(texts: Texts) -> None:
    await texts.open(texts.put("A", seal("canary-value", "A")))
    assert "canary" not in repr((vars(texts.opener), vars(texts.opener.values)))


async def test_a_damaged_accountsecret_is_not_opened(texts: Texts) -> None:
    for sealed, key_id in ((seal("1", "A"), KEY.public.id), ("not sealed", None)):
        secret = replace(texts.put("A", sealed), damaged=("spec.description", "status"))
        found, not_ready = await texts.open(secret)
        assert found == key_id
        assert isinstance(not_ready, NotReady)
        assert not_ready.reason == "InvalidSpec"
        assert not_ready.message.startswith("invalid spec.description, accepted by")
