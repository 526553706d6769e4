"""The backup of the sealing keys: JSON, encrypted with a passphrase.

Argon2id (RFC 9106) derives a key from the passphrase, and AES-256-GCM encrypts the sealing keys with it.
Everything else in the file is associated data, so a modified file can't be decrypted.

tests/vectors is the specification of the format.
"""

import base64
import json
import secrets
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from pydantic import BaseModel, ConfigDict, Field, SecretBytes, ValidationError
from pydantic.alias_generators import to_camel

from devbox_secrets.crypto.envelope import KeyPair
from devbox_secrets.errors import BackupLocked, InvalidBackup, InvalidKey, InvalidPassphrase

#: An attacker with the file can try an unlimited number of passphrases.
PASSPHRASE_MIN_LENGTH = 12
#: More than a backup of all keys that a Secret can hold.
MAX_BYTES = 4 << 20
_KEY_BYTES = 32


class _Model(BaseModel):
    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        hide_input_in_errors=True,
    )


class Kdf(_Model):
    """How a key is derived from a passphrase.

    The parameters are limited, since the derivation runs before anything proves that the file is genuine.
    """

    name: Literal["argon2id"]
    salt: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    iterations: Annotated[int, Field(ge=1, le=16)]
    lanes: Annotated[int, Field(ge=1, le=16)]
    memory_kib: Annotated[int, Field(ge=8 * 16, le=1 << 18)]

    def key(self, passphrase: SecretBytes) -> bytes:
        """Derive the key; with the maximum parameters this takes four seconds and 256 MiB."""
        return Argon2id(
            salt=bytes.fromhex(self.salt),
            length=_KEY_BYTES,
            iterations=self.iterations,
            lanes=self.lanes,
            memory_cost=self.memory_kib,
        ).derive(passphrase.get_secret_value())


class Header(_Model):
    """What a backup shows without its passphrase. Each field has exactly one representation."""

    format: Literal["devbox-secrets-backup-1"]
    created: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
    keys: Annotated[tuple[Annotated[str, Field(pattern="^[0-9a-f]{16}$")], ...], Field(min_length=1)]
    """The ids of the keys in the backup, in order."""
    kdf: Kdf
    cipher: Literal["AES-256-GCM"]
    nonce: Annotated[str, Field(pattern="^[0-9a-f]{24}$")]

    def associated(self) -> bytes:
        """Return the associated data: the header as JSON with sorted names and without spaces."""
        return json.dumps(self.model_dump(by_alias=True), sort_keys=True, separators=(",", ":")).encode()


class Backup(_Model):
    """The content of a backup file."""

    header: Header
    # Only canonical base64: the unused bits of the last character are 0.
    ciphertext: Annotated[
        str,
        Field(pattern="^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$", repr=False),
    ]

    @classmethod
    def parse(cls, raw: bytes) -> "Backup":
        """Parse a backup file without decrypting it.

        Raises:
            InvalidBackup: it isn't a backup, or needs more time or memory than is reasonable.
        """
        if len(raw) > MAX_BYTES:
            raise _not_a_backup()
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
        raise _not_a_backup(where)

    @classmethod
    def encrypt(cls, keys: Sequence[KeyPair], passphrase: SecretBytes, created: datetime) -> "Backup":
        """Create a backup of at least one sealing key."""
        header = Header(
            format="devbox-secrets-backup-1",
            created=created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            keys=tuple(key.public.id for key in keys),
            # RFC 9106, section 4: the second recommended option, with 64 MiB of memory.
            kdf=Kdf(name="argon2id", salt=secrets.token_hex(16), iterations=3, lanes=4, memory_kib=1 << 16),
            cipher="AES-256-GCM",
            nonce=secrets.token_hex(12),
        )
        plain = b"\n".join(key.dump() for key in keys)
        aead = AESGCM(header.kdf.key(passphrase))
        ciphertext = aead.encrypt(bytes.fromhex(header.nonce), plain, header.associated())
        return cls(header=header, ciphertext=base64.b64encode(ciphertext).decode())

    def dump(self) -> str:
        """Return the content of the backup file."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    def decrypt(self, passphrase: SecretBytes) -> list[KeyPair]:
        """Decrypt the backup.

        Raises:
            BackupLocked: the passphrase is wrong, or the file was changed.
        """
        header = self.header
        locked = BackupLocked("cannot decrypt the backup: the passphrase is wrong, or the file is damaged")
        try:
            aead = AESGCM(header.kdf.key(passphrase))
            plain = aead.decrypt(bytes.fromhex(header.nonce), base64.b64decode(self.ciphertext), header.associated())
            keys = [KeyPair.load(line) for line in plain.split(b"\n")]
        except (InvalidTag, InvalidKey):
            raise locked from None
        if tuple(key.public.id for key in keys) != header.keys:
            raise locked
        return keys


def _not_a_backup(where: str = "") -> InvalidBackup:
    return InvalidBackup(
        "the file isn't a backup that this version of devbox-secrets can read"
        + (f" (invalid field: {where})" if where else "")
        + "; use one created by `devbox-secrets keys backup`"
    )


def passphrase_from(text: str) -> SecretBytes:
    """Normalize a passphrase (Unicode NFC, UTF-8), so that it doesn't depend on the keyboard.

    Raises:
        InvalidPassphrase: it isn't text.
    """
    try:
        return SecretBytes(unicodedata.normalize("NFC", text).encode())
    except UnicodeEncodeError:
        # From None: the original exception contains it.
        raise InvalidPassphrase("the passphrase isn't UTF-8 text") from None


def check_new(passphrase: SecretBytes) -> None:
    """Reject a new passphrase that is easy to guess.

    Raises:
        InvalidPassphrase: it's too short.
    """
    if len(passphrase.get_secret_value().decode()) < PASSPHRASE_MIN_LENGTH:
        raise InvalidPassphrase(
            f"the passphrase has fewer than {PASSPHRASE_MIN_LENGTH} characters, so anyone with the file could guess"
            " it; use five or six random words"
        )
