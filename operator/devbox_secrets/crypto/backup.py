"""The backup of the sealing keys: JSON that a passphrase opens.

Argon2id (RFC 9106) makes a key of the passphrase, AES-256-GCM encrypts the sealing keys with it, and
whatever else the file says is the associated data: a file in which that was changed doesn't open.

tests/vectors is the format's specification.
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

#: Who has the file may try as many passphrases as they like.
PASSPHRASE_MIN_LENGTH = 12
#: More than the Secret of the keys can hold, as a backup has it.
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
    """How a passphrase becomes a key.

    What a file may ask for is bounded: it's done before anything shows that the file is one of ours.
    """

    name: Literal["argon2id"]
    salt: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    iterations: Annotated[int, Field(ge=1, le=16)]
    lanes: Annotated[int, Field(ge=1, le=16)]
    memory_kib: Annotated[int, Field(ge=8 * 16, le=1 << 18)]

    def key(self, passphrase: SecretBytes) -> bytes:
        """Derive the key: at the bounds in four seconds and 256 MiB."""
        return Argon2id(
            salt=bytes.fromhex(self.salt),
            length=_KEY_BYTES,
            iterations=self.iterations,
            lanes=self.lanes,
            memory_cost=self.memory_kib,
        ).derive(passphrase.get_secret_value())


class Header(_Model):
    """What a backup tells without its passphrase. Each field has one text alone for what it says."""

    format: Literal["devbox-secrets-backup-1"]
    created: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
    keys: Annotated[tuple[Annotated[str, Field(pattern="^[0-9a-f]{16}$")], ...], Field(min_length=1)]
    """The ids of the keys that are in it, in their order."""
    kdf: Kdf
    cipher: Literal["AES-256-GCM"]
    nonce: Annotated[str, Field(pattern="^[0-9a-f]{24}$")]

    def associated(self) -> bytes:
        """Give what the encryption binds: the header as JSON, names in order, without space."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":")).encode()


class Backup(_Model):
    """A backup as it is in its file."""

    header: Header
    ciphertext: Annotated[
        str, Field(pattern="^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$", repr=False)
    ]

    @classmethod
    def parse(cls, raw: bytes) -> "Backup":
        """Read a backup's file, without opening it.

        Raises:
            InvalidBackup: it isn't one, or asks for more time or memory than is reasonable.
        """
        try:
            if len(raw) > MAX_BYTES:
                raise ValueError("too large")  # noqa: TRY301 - as anything else that is no backup
            return cls.model_validate_json(raw)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
        except ValueError:
            where = ""
        raise InvalidBackup(
            "the file isn't a backup that this version of devbox-secrets can read"
            + (f" (its {where})" if where else "")
            + "; give one that `devbox-secrets keys backup` wrote"
        )

    @classmethod
    def encrypt(cls, keys: Sequence[KeyPair], passphrase: SecretBytes, created: datetime) -> "Backup":
        """Make the backup of some sealing keys, of which there must be one."""
        header = Header(
            format="devbox-secrets-backup-1",
            created=created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            keys=tuple(key.public.id for key in keys),
            # RFC 9106, section 4: what suits everywhere, in 64 MiB of memory.
            kdf=Kdf(name="argon2id", salt=secrets.token_hex(16), iterations=3, lanes=4, memory_kib=1 << 16),
            cipher="AES-256-GCM",
            nonce=secrets.token_hex(12),
        )
        plain = b"\n".join(key.dump() for key in keys)
        aead = AESGCM(header.kdf.key(passphrase))
        ciphertext = aead.encrypt(bytes.fromhex(header.nonce), plain, header.associated())
        return cls(header=header, ciphertext=base64.b64encode(ciphertext).decode())

    def dump(self) -> str:
        """The backup as its file holds it."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    def decrypt(self, passphrase: SecretBytes) -> list[KeyPair]:
        """Open the backup.

        Raises:
            BackupLocked: the passphrase is another one, or the file was changed.
        """
        header = self.header
        try:
            aead = AESGCM(header.kdf.key(passphrase))
            plain = aead.decrypt(bytes.fromhex(header.nonce), base64.b64decode(self.ciphertext), header.associated())
            keys = [KeyPair.load(line) for line in plain.split(b"\n")]
            if tuple(key.public.id for key in keys) != header.keys:
                raise InvalidKey("other keys than the file says")  # noqa: TRY301 - as any other damage
        except (InvalidTag, InvalidKey):
            raise BackupLocked(
                "the backup doesn't open: the passphrase is another one, or the file was damaged"
            ) from None
        return keys


def passphrase_from(text: str) -> SecretBytes:
    """Make one passphrase of every way in which a keyboard may write it (Unicode's NFC, UTF-8).

    Raises:
        InvalidPassphrase: it isn't text.
    """
    try:
        return SecretBytes(unicodedata.normalize("NFC", text).encode())
    except UnicodeEncodeError:
        # From None: the exception in hand carries it.
        raise InvalidPassphrase("the passphrase isn't UTF-8 text") from None


def check_new(passphrase: SecretBytes) -> None:
    """Refuse a new passphrase that is soon found by trying.

    Raises:
        InvalidPassphrase: it's too short.
    """
    if len(passphrase.get_secret_value().decode()) < PASSPHRASE_MIN_LENGTH:
        raise InvalidPassphrase(
            f"the passphrase has under {PASSPHRASE_MIN_LENGTH} characters: who has the file could find it by trying;"
            " five or six words chosen by chance do well"
        )
