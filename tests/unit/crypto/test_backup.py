"""The backup of the sealing keys: the vectors are its specification; the other tests check its properties."""

import json
import resource
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretBytes

from devbox_secrets.crypto.backup import MAX_BYTES, Backup, check_new, passphrase_from
from devbox_secrets.crypto.envelope import KeyPair
from devbox_secrets.errors import BackupLocked, DevboxSecretsError, InvalidBackup, InvalidPassphrase

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "backup1.json").read_text())
STAGES: dict[str, type[DevboxSecretsError]] = {"format": InvalidBackup, "open": BackupLocked}
NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
KEYS = [KeyPair(SecretBytes(bytes([seed] * 32)), datetime(2026, 1, seed, tzinfo=UTC)) for seed in (2, 1)]
PASSPHRASE = passphrase_from("correct horse battery")


def about(vector: dict[str, Any]) -> str:
    return str(vector["about"])


def parsed(vector: dict[str, Any]) -> Backup:
    text = vector["backup"]
    return Backup.parse((text if isinstance(text, str) else json.dumps(text)).encode())


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=about)
def test_a_valid_vector_opens_to_its_keys(vector: dict[str, Any]) -> None:
    keys = parsed(vector).decrypt(passphrase_from(vector["passphrase"]))
    assert [(key.seed.get_secret_value().hex(), key.created.isoformat()) for key in keys] == [
        (key["seed"], key["created"]) for key in vector["keys"]
    ]


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=about)
def test_an_invalid_vector_is_rejected_at_its_stage(vector: dict[str, Any]) -> None:
    with pytest.raises(STAGES[vector["stage"]]) as caught:
        parsed(vector).decrypt(passphrase_from(vector["passphrase"]))
    assert type(caught.value) is STAGES[vector["stage"]]
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_wrong_passphrase_and_a_damaged_file_have_the_same_message() -> None:
    messages = set()
    for vector in VECTORS["invalid"]:
        if vector["stage"] == "open":
            with pytest.raises(BackupLocked) as caught:
                parsed(vector).decrypt(passphrase_from(vector["passphrase"]))
            messages.add(str(caught.value))
    assert messages == {"cannot decrypt the backup: the passphrase is wrong, or the file is damaged"}


@pytest.fixture(scope="module")
def backup() -> Backup:
    return Backup.encrypt(KEYS, PASSPHRASE, NOW)


def test_the_keys_of_a_backup_are_read_back_in_order(backup: Backup) -> None:
    assert Backup.parse(backup.dump().encode()).decrypt(PASSPHRASE) == KEYS


@pytest.mark.usefixtures("_in_tokyo")
def test_a_backup_describes_itself_and_shows_no_seed() -> None:
    backup = Backup.encrypt(KEYS, PASSPHRASE, NOW)
    body = json.loads(backup.dump())
    assert body["header"] == {
        "format": "devbox-secrets-backup-1",
        "created": "2026-01-02T03:04:05Z",
        "keys": [key.public.id for key in KEYS],
        "kdf": {"name": "argon2id", "salt": backup.header.kdf.salt, "iterations": 3, "lanes": 4, "memoryKib": 65536},
        "cipher": "AES-256-GCM",
        "nonce": backup.header.nonce,
    }
    for key in KEYS:
        for form in (key.seed.get_secret_value().hex(), json.loads(key.dump())["seed"]):
            assert form not in backup.dump()
            assert form not in repr(backup)


def test_a_backup_is_written_as_indented_json(backup: Backup) -> None:
    assert backup.dump() == json.dumps(json.loads(backup.dump()), indent=2) + "\n"


def test_two_backups_of_the_same_keys_have_nothing_in_common(backup: Backup) -> None:
    other = Backup.encrypt(KEYS, PASSPHRASE, NOW)
    assert other.header.kdf.salt != backup.header.kdf.salt
    assert other.header.nonce != backup.header.nonce
    assert other.ciphertext != backup.ciphertext


def test_a_file_that_requires_too_much_memory_is_rejected_before_any_is_allocated(backup: Backup) -> None:
    body = json.loads(backup.dump())
    body["header"]["kdf"]["memoryKib"] = 1 << 30
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidBackup, match=r"header\.kdf\.memoryKib"):
        Backup.parse(json.dumps(body).encode())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


NOT_A_BACKUP = (
    "the file isn't a backup that this version of devbox-secrets can read{}; use one created by"
    " `devbox-secrets keys backup`"
)


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (b"{", ""),
        (b"[]", ""),
        (b"{}", " (invalid field: header)"),
        (b'{"header": {"kdf": {"salt": 1}}}', " (invalid field: header.format)"),
    ],
)
def test_the_error_for_an_invalid_backup_names_the_field(raw: bytes, where: str) -> None:
    with pytest.raises(InvalidBackup) as caught:
        Backup.parse(raw)
    assert str(caught.value) == NOT_A_BACKUP.format(where)


def test_a_file_that_is_too_large_is_rejected(backup: Backup) -> None:
    text = backup.dump().encode()
    assert Backup.parse(text + b" " * (MAX_BYTES - len(text))) == backup
    with pytest.raises(InvalidBackup) as caught:
        Backup.parse(text + b" " * (MAX_BYTES + 1 - len(text)))
    assert str(caught.value) == NOT_A_BACKUP.format("")


def test_a_passphrase_is_the_same_in_every_unicode_normalization_form() -> None:
    assert passphrase_from("gr\u00fc\u00dfe") == passphrase_from("gru\u0308\u00dfe")
    assert passphrase_from("a") != passphrase_from("A")


def test_a_passphrase_that_is_not_text_is_rejected_without_showing_it() -> None:
    with pytest.raises(InvalidPassphrase) as caught:
        passphrase_from("canary\udcff")
    assert caught.value.__suppress_context__
    assert str(caught.value) == "the passphrase isn't UTF-8 text"


@pytest.mark.parametrize("text", ["", "short", "elf letters", "\u00fc" * 11])
def test_a_short_new_passphrase_is_rejected(text: str) -> None:
    with pytest.raises(InvalidPassphrase) as caught:
        check_new(passphrase_from(text))
    assert str(caught.value) == (
        "the passphrase has fewer than 12 characters, so anyone with the file could guess it; use five or six random"
        " words"
    )


@pytest.mark.parametrize("text", ["twelve chars", "\u00fc" * 12])
def test_a_long_new_passphrase_is_accepted(text: str) -> None:
    check_new(passphrase_from(text))
