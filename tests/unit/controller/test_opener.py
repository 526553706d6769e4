"""What sealed values open to, and that each is opened once."""

from dataclasses import replace
from unittest import mock

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.models import AccountSecret, AccountSecretSpec
from devbox_secrets.controller import metrics
from devbox_secrets.controller.opener import Opener
from devbox_secrets.controller.rules.conditions import NotReady
from devbox_secrets.crypto import envelope
from devbox_secrets.crypto.envelope import Keyring
from unit.controller.objects import KEY, OLD_KEY, account_secret, at, seal


def parsed(variable: str, sealed: str) -> AccountSecret:
    return AccountSecret.parse(at(1, account_secret(variable, sealed)))


def test_what_is_damaged_is_not_opened(opener: Opener) -> None:
    for sealed, key_id in ((seal("1", "A"), KEY.public.id), ("not sealed", None)):
        secret = replace(parsed("A", sealed), damaged=("spec.description", "status"))
        found, refused = opener.open(secret)
        assert found == key_id
        assert isinstance(refused, NotReady)
        assert refused.reason == "InvalidSpec"
        assert refused.message.startswith("spec.description can't be read:")


def opens() -> float:
    return metrics.REGISTRY.get_sample_value("devbox_secrets_opens_total") or 0


@pytest.fixture
def opener() -> Opener:
    return Opener(lambda: Keyring([KEY]))


def test_a_value_comes_with_the_id_of_its_key(opener: Opener) -> None:
    assert opener.open(parsed("A", seal("1", "A"))) == (KEY.public.id, SecretBytes(b"1"))


def test_a_value_is_opened_once(opener: Opener) -> None:
    secret, before = parsed("A", seal("1", "A")), opens()
    assert opener.opened(secret) is None
    first, second = opener.open(secret), opener.open(secret)
    assert first == second
    assert opener.opened(secret) == SecretBytes(b"1")
    assert opens() == before + 1


def test_another_sealed_text_is_opened_again(opener: Opener) -> None:
    secret = parsed("A", seal("1", "A"))
    opener.open(secret)
    changed = replace(secret, spec=AccountSecretSpec(name="A", sealed=seal("2", "A")))
    assert opener.opened(changed) is None
    assert opener.open(changed) == (KEY.public.id, SecretBytes(b"2"))


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
def test_a_value_is_not_ready_for_the_reason_why_it_does_not_open(
    sealed: str, key_id: str | None, reason: str, opener: Opener
) -> None:
    found_id, not_ready = opener.open(parsed("A", sealed))
    assert isinstance(not_ready, NotReady)
    assert (found_id, not_ready.reason) == (key_id, reason)
    assert "canary" not in not_ready.message


def test_what_does_not_open_is_tried_again_with_the_keys_of_that_time() -> None:
    keys = [OLD_KEY]
    opener = Opener(lambda: Keyring(keys))
    secret = parsed("A", seal("1", "A"))
    assert isinstance(opener.open(secret)[1], NotReady)
    assert opener.opened(secret) is None
    keys.append(KEY)
    assert opener.open(secret)[1] == SecretBytes(b"1")


def test_a_value_stays_open_when_its_key_goes() -> None:
    keys = [KEY]
    opener = Opener(lambda: Keyring(keys))
    secret = parsed("A", seal("1", "A"))
    opener.open(secret)
    keys.clear()
    assert opener.open(secret)[1] == SecretBytes(b"1")


def test_what_is_gone_is_forgotten_and_the_rest_is_not(opener: Opener) -> None:
    gone, kept = parsed("A", seal("1", "A")), parsed("B", seal("2", "B"))
    opener.open(gone)
    opener.open(kept)
    opener.forget_all_but({kept.uid})
    assert (opener.opened(gone), opener.opened(kept)) == (None, SecretBytes(b"2"))


def test_no_value_is_printed(opener: Opener) -> None:
    opener.open(parsed("A", seal("canary-value", "A")))
    assert "canary" not in repr(vars(opener))
