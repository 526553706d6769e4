"""The key backup: only an unchanged backup opens. Its Argon2id parameters are cheap."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretBytes

from devbox_secrets.crypto.backup import Backup, Header, Kdf, passphrase_from
from devbox_secrets.crypto.envelope import KeyPair
from devbox_secrets.errors import BackupLocked, InvalidBackup
from fuzz.choices import Choices
from fuzz.targets.errors import check_error

_PASSPHRASE = passphrase_from("correct horse battery staple")
#: With these lengths, the backup's base64 ends with =, where two texts can decode to the same bytes.
_CREATED = [datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)]
_KEYS = [KeyPair(SecretBytes(bytes([seed] * 32)), created) for seed, created in enumerate(_CREATED)]
#: The maximum of iterations times KiB for one input: a few milliseconds.
_MAX_WORK = 1 << 10
_PARTS = (("header",), ("header", "kdf"), ())
_VALUES: tuple[object, ...] = (
    *(None, True, 0, -1, 1.5, 128, 129, 256, 1 << 18, (1 << 18) + 1, 1e300, 10**30, [], ["0" * 16], {}),
    *("", "0" * 16, "0" * 24, "0" * 32, "AAAA", "argon2id", "AES-256-GCM", "2026-01-01T00:00:00Z"),
)


def _encrypted() -> Backup:
    """Return the same backup each time."""
    header = Header(
        format="devbox-secrets-backup-1",
        created="2026-01-03T00:00:00Z",
        keys=tuple(key.public.id for key in _KEYS),
        kdf=Kdf(name="argon2id", salt="01" * 16, iterations=1, lanes=1, memory_kib=128),
        cipher="AES-256-GCM",
        nonce="02" * 12,
    )
    plain = b"\n".join(key.dump() for key in _KEYS)
    raw = AESGCM(header.kdf.key(_PASSPHRASE)).encrypt(bytes.fromhex(header.nonce), plain, header.associated())
    return Backup(header=header, ciphertext=base64.b64encode(raw).decode())


_BACKUP = _encrypted()


def check(data: bytes) -> None:
    """Check one file: the input itself if it starts like JSON, else the known backup with some changes."""
    raw = data if data[:1] in {b"{", b" ", b""} else _changed(Choices(data[1:]))
    try:
        backup = Backup.parse(raw)
    except InvalidBackup as error:
        check_error(error)
        return
    assert Backup.parse(backup.dump().encode()) == backup
    if backup.header.kdf.iterations * backup.header.kdf.memory_kib > _MAX_WORK:
        return
    try:
        keys = backup.decrypt(_PASSPHRASE)
    except BackupLocked as error:
        check_error(error)
        return
    assert (backup, keys) == (_BACKUP, _KEYS), "a changed backup was opened"


def _changed(choices: Choices) -> bytes:
    body: dict[str, Any] = json.loads(_BACKUP.dump())
    parts = {(): body, ("header",): body["header"], ("header", "kdf"): body["header"]["kdf"]}
    for _ in range(choices.below(3) + 1):
        part = parts[choices.of(_PARTS)]
        name = choices.of((*sorted(part), "other"))
        old = part.get(name)
        part[name] = _text(choices, old) if isinstance(old, str) and choices.chance(2) else choices.of(_VALUES)
    return json.dumps(body).encode()


def _text(choices: Choices, text: str) -> str:
    """Change a text at one position."""
    place = choices.below(len(text) + 1)
    piece = choices.of(["A", "0", "f", "/", "=", "\n", "", choices.text()])
    return text[:place] + piece + text[place + choices.below(3) :]
