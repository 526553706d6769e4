"""What sealed values open to, that each is opened once, and what is kept of it."""

from dataclasses import replace
from unittest import mock

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.controller import metrics
from devbox_secrets.controller.cache import read_account_secret
from devbox_secrets.controller.opener import Opener, Values
from devbox_secrets.controller.rules.conditions import NotReady
from devbox_secrets.controller.rules.fingerprint import Fingerprint
from devbox_secrets.crypto import envelope
from devbox_secrets.crypto.envelope import Keyring
from devbox_secrets.errors import Conflict
from unit.controller.objects import KEY, OLD_KEY, account_secret, at, seal
from unit.controller.rules.entries import v


def opens() -> float:
    return metrics.REGISTRY.get_sample_value("devbox_secrets_opens_total") or 0


class Texts:
    """Sealed texts as the API server has them, and an opener that may read them."""

    def __init__(self) -> None:
        self.keys = [KEY]
        self.texts: dict[tuple[str, str], str] = {}
        self.reads = 0
        self.opener = Opener(lambda: Keyring(self.keys), self.read)

    async def read(self, namespace: str, name: str) -> str | None:
        self.reads += 1
        return self.texts.get((namespace, name))

    def have(self, variable: str, sealed: str) -> AccountSecret:
        """Have an AccountSecret; give it as the cache has it."""
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
async def test_a_value_is_opened_once_and_comes_with_the_id_of_its_key(value: str, reads: int, texts: Texts) -> None:
    secret, before = texts.have("A", seal(value, "A")), opens()
    assert texts.opener.opened(secret) is None
    assert await texts.open(secret) == (KEY.public.id, v(value))
    assert await texts.open(secret) == (KEY.public.id, v(value))
    assert await texts.opener.value(secret) == SecretBytes(value.encode())
    assert (opens(), texts.reads) == (before + 1, reads)


@pytest.mark.parametrize(("first", "second"), [("1", "2"), (LONG, LONG + "x")])
async def test_another_sealed_text_is_opened_again(first: str, second: str, texts: Texts) -> None:
    await texts.open(texts.have("A", seal(first, "A")))
    changed = texts.have("A", seal(second, "A"))
    assert texts.opener.opened(changed) is None
    assert await texts.open(changed) == (KEY.public.id, v(second))


@pytest.mark.parametrize("now", [None, seal(LONG + "y", "A")])
async def test_a_long_text_that_is_another_by_now_is_a_conflict(now: str | None, texts: Texts) -> None:
    secret = texts.have("A", seal(LONG, "A"))
    texts.texts = {("team", "a"): now} if now else {}
    with pytest.raises(Conflict, match="team/a"):
        await texts.open(secret)


async def test_a_value_for_which_there_is_no_room_is_opened_again(texts: Texts) -> None:
    texts.opener.values = Values(most_bytes=2 * 100_000)
    first, second, third = (texts.have(name, seal(LONG + name, name)) for name in "ABC")
    for secret in (first, second, third):
        await texts.open(secret)
    before = opens()
    assert await texts.opener.value(third) == SecretBytes(f"{LONG}C".encode())
    assert opens() == before
    assert await texts.opener.value(first) == SecretBytes(f"{LONG}A".encode())
    assert opens() == before + 1


def test_of_values_those_used_last_are_kept() -> None:
    values = Values(most_bytes=2500)
    one, two = values.add(SecretBytes(b"1" * 500)), values.add(SecretBytes(b"2" * 500))
    assert values.get(one)
    values.add(SecretBytes(b"1" * 500))
    values.add(SecretBytes(b"3" * 1000))
    assert values.get(one) == SecretBytes(b"1" * 500)
    assert values.get(two) is None


def sealed_by_another_program(value: bytes) -> str:
    """Seal what no environment variable can be."""
    with mock.patch.object(envelope, "check_value"):
        return KEY.public.seal(SecretBytes(value), account="team", name="A")


@pytest.mark.parametrize(
    ("sealed", "key_id", "reason"),
    [
        pytest.param("canary", None, "CannotOpen", id="no sealed value"),
        pytest.param(seal("1", "A", key=OLD_KEY), OLD_KEY.public.id, "UnknownKey", id="another key"),
        pytest.param(seal("1", "OTHER"), KEY.public.id, "CannotOpen", id="another name"),
        pytest.param(seal("1", "A", account="other"), KEY.public.id, "CannotOpen", id="another account"),
        pytest.param(sealed_by_another_program(b"canary\0"), KEY.public.id, "InvalidValue", id="a NUL"),
        pytest.param(sealed_by_another_program(b"canary\xff"), KEY.public.id, "InvalidValue", id="no text"),
        pytest.param(sealed_by_another_program(b"canary".ljust(131_070)), KEY.public.id, "TooLarge", id="too large"),
    ],
)
async def test_a_value_is_not_ready_for_the_reason_why_it_does_not_open(
    sealed: str, key_id: str | None, reason: str, texts: Texts
) -> None:
    secret = texts.have("A", sealed)
    found_id, not_ready = await texts.open(secret)
    assert isinstance(not_ready, NotReady)
    assert (found_id, not_ready.reason) == (key_id, reason)
    assert "canary" not in not_ready.message
    assert await texts.opener.value(secret) is None


async def test_what_does_not_open_is_tried_again_once_there_are_other_keys(texts: Texts) -> None:
    texts.keys = [OLD_KEY]
    secret = texts.have("A", seal(LONG, "A"))
    assert isinstance((await texts.open(secret))[1], NotReady)
    await texts.open(secret)
    assert texts.reads == 1
    texts.keys.append(KEY)
    assert (await texts.open(secret))[1] == v(LONG)


async def test_a_value_stays_open_when_its_key_goes(texts: Texts) -> None:
    secret = texts.have("A", seal("1", "A"))
    await texts.open(secret)
    texts.keys.clear()
    assert (await texts.open(secret))[1] == v("1")
    assert await texts.opener.value(secret) == SecretBytes(b"1")


async def test_what_is_gone_is_forgotten_and_the_rest_is_not(texts: Texts) -> None:
    gone, kept = texts.have("A", seal("1", "A")), texts.have("B", seal("2", "B"))
    await texts.open(gone)
    await texts.open(kept)
    texts.opener.forget_all_but({kept.uid})
    assert texts.opener.opened(gone) is None
    assert texts.opener.opened(kept) is not None
    texts.opener.forget(kept.uid)
    assert texts.opener.opened(kept) is None


async def test_no_value_is_printed(texts: Texts) -> None:
    await texts.open(texts.have("A", seal("canary-value", "A")))
    assert "canary" not in repr((vars(texts.opener), vars(texts.opener.values)))


async def test_what_is_damaged_is_not_opened(texts: Texts) -> None:
    for sealed, key_id in ((seal("1", "A"), KEY.public.id), ("not sealed", None)):
        secret = replace(texts.have("A", sealed), damaged=("spec.description", "status"))
        found, refused = await texts.open(secret)
        assert found == key_id
        assert isinstance(refused, NotReady)
        assert refused.reason == "InvalidSpec"
        assert refused.message.startswith("invalid spec.description, accepted by")
