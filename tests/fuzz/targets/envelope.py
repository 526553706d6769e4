"""Sealed values and keys: only unchanged sealed values open, and errors repeat no input."""

import json
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretBytes

from devbox_secrets.api.validation import VARIABLE_MAX_BYTES
from devbox_secrets.crypto.envelope import KeyPair, Keyring, PublicKey, key_id_of
from devbox_secrets.errors import CannotOpen, InvalidKey, InvalidValue, NotSealed, UnknownKey, ValueTooLarge
from fuzz.choices import Choices
from fuzz.targets.errors import check_error

_VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "dbs1.json").read_text())
_CREATED = datetime(2026, 1, 1, tzinfo=UTC)
_PAIRS = [
    KeyPair(SecretBytes(seed), _CREATED) for seed in (bytes.fromhex(_VECTORS["key"]["seed"]), b"\1" * 32, b"\2" * 32)
]
_KEYRING = Keyring(_PAIRS[:2])
_SEALED = {(each["sealed"], each["account"], each["name"]) for each in _VECTORS["valid"]}
_ACCOUNTS = ("team-a", "team-b", "a", "x" * 63)
_NAMES = ("GITHUB_TOKEN", "EMPTY", "_", "A" * 253)
_REFUSED = (NotSealed, UnknownKey, CannotOpen, InvalidValue, ValueTooLarge)


def check(data: bytes) -> None:
    """Check one input."""
    choices = Choices(data)
    choices.of((_open, _open_mutated, _parse, _load))(choices)


def _open(choices: Choices) -> None:
    account, name = choices.of(_ACCOUNTS), choices.of(_NAMES)
    text = choices.rest().decode(errors="surrogateescape")
    if not _opens(text, account, name):
        return
    assert (text, account, name) in _SEALED, "opened a value that nobody sealed"


def _open_mutated(choices: Choices) -> None:
    account, name, pair = choices.of(_ACCOUNTS), choices.of(_NAMES), choices.of(_PAIRS)
    value = choices.take(choices.below(1 << 8)) * choices.of((1, 1, 1, 600))
    try:
        sealed = pair.public.seal(SecretBytes(value), account=account, name=name)
    except (InvalidValue, ValueTooLarge):
        assert b"\0" in value or not _is_text(value) or len(name) + len(value) + 2 > VARIABLE_MAX_BYTES
        return
    assert key_id_of(sealed) == pair.public.id
    if pair.public.id in _KEYRING:
        assert _KEYRING.open(sealed, account=account, name=name).get_secret_value() == value
    changed = _mutated(choices, sealed), choices.of((account, *_ACCOUNTS)), choices.of((name, *_NAMES))
    if changed != (sealed, account, name):
        assert not _opens(*changed), "opened a changed value"


def _mutated(choices: Choices, sealed: str) -> str:
    """Change a text at one position, or not at all."""
    place = choices.below(len(sealed))
    piece = choices.text(8) if choices.chance(4) else choices.of(("A", "B", "_", "-", "w", "=", ".", " ", "\n", ""))
    end = place + choices.of((0, 1, 1, 1, 2, 24, len(sealed)))
    return choices.of((sealed, sealed[:place] + piece + sealed[end:]))


def _opens(text: str, account: str, name: str) -> bool:
    try:
        _KEYRING.open(text, account=account, name=name)
    except _REFUSED as error:
        # An error names the key, the account and the variable.
        check_error(error, text.partition(".")[2].partition(".")[2])
        return False
    return True


def _parse(choices: Choices) -> None:
    text = choices.rest().decode(errors="surrogateescape")
    if text.startswith("="):  # a known key, changed at one position
        change = Choices(text[1:].encode(errors="surrogateescape"))
        text = _mutated(change, str(change.of(_PAIRS).public))
    try:
        key = PublicKey.parse(text)
    except InvalidKey as error:
        check_error(error, text)
        return
    assert str(key) == text.strip()
    assert key_id_of(key.seal(SecretBytes(b"x"), account="a", name="A")) == key.id


def _load(choices: Choices) -> None:
    try:
        pair = KeyPair.load(choices.rest())
    except InvalidKey as error:
        check_error(error)
        return
    assert KeyPair.load(pair.dump()) == pair
    assert len(Keyring([pair, *_PAIRS]).newest_first()) == len({pair.public.id, *(it.public.id for it in _PAIRS)})


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
