"""Sealing and opening values: the envelope `dbs1.<key id>.<base64url>` around HPKE.

HPKE (RFC 9180) in base mode: KEM X-Wing (MLKEM768-X25519, draft-connolly-cfrg-xwing-kem), KDF
HKDF-SHA256, AEAD AES-256-GCM. `info` binds the version, the account and the variable's name, so a
sealed value that is copied to another account or name can't be opened.

tests/vectors is the specification of the format.
"""

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from pydantic import SecretBytes

from devbox_secrets.api.validation import check_value, check_variable
from devbox_secrets.errors import CannotOpen, InvalidKey, NotSealed, UnknownKey

VERSION = "dbs1"
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MLKEM_PUBLIC_BYTES = 1184
_PUBLIC_BYTES = _MLKEM_PUBLIC_BYTES + 32
_SEED_BYTES = 32
_ENVELOPE = re.compile(rf"{VERSION}\.([0-9a-f]{{16}})\.([A-Za-z0-9_-]+)", re.ASCII)
_PUBLIC = re.compile(rf"{VERSION}-public\.([0-9a-f]{{16}})\.([A-Za-z0-9_-]+)", re.ASCII)
_ONE_LINE = "contains whitespace or a line break; write it on one line without whitespace"


@dataclass(frozen=True)
class PublicKey:
    """A sealing key's public half: X-Wing's encapsulation key, 1,216 bytes."""

    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.raw) != _PUBLIC_BYTES:
            raise InvalidKey(f"a public sealing key has {_PUBLIC_BYTES} bytes, not {len(self.raw)}")

    @cached_property
    def id(self) -> str:
        """The key's id: the first 8 bytes of its SHA-256, in hexadecimal."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    @cached_property
    def hpke(self) -> MLKEM768X25519PublicKey:
        """The key in `cryptography`'s type."""
        mlkem, x25519 = self.raw[:_MLKEM_PUBLIC_BYTES], self.raw[_MLKEM_PUBLIC_BYTES:]
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(mlkem), X25519PublicKey.from_public_bytes(x25519)
        )

    def __str__(self) -> str:
        """The key as text: `dbs1-public.<key id>.<base64url>`."""
        return f"{VERSION}-public.{self.id}.{_encode(self.raw)}"

    @classmethod
    def parse(cls, text: str) -> "PublicKey":
        """Parse a public key; surrounding whitespace is ignored.

        Raises:
            InvalidKey: the key is invalid.
        """
        text = text.strip()
        match = _PUBLIC.fullmatch(text)
        if match is None and _has_white_space(text, f"{VERSION}-public."):
            raise InvalidKey(f"the public sealing key {_ONE_LINE}")
        if match is None and text.startswith(f"{VERSION}-public."):
            raise InvalidKey("the public sealing key is damaged or incomplete")
        if match is None:
            raise InvalidKey(f"not a public sealing key: it doesn't start with {VERSION}-public.")
        try:
            key = cls(_decode(match[2]))
        except ValueError:
            raise InvalidKey("the public sealing key is damaged: not base64url") from None
        if key.id != match[1]:
            raise InvalidKey("the public sealing key is damaged: its id doesn't match its bytes")
        try:
            # X25519 keys of small order fail only when something is sealed.
            _SUITE.encrypt(b"", key.hpke)
        except ValueError:
            raise InvalidKey("the public sealing key is invalid: its ML-KEM-768 or X25519 half can't be used") from None
        return key

    def seal(self, value: SecretBytes, *, account: str, name: str) -> str:
        """Seal a value for an account and a variable; two calls never return the same text.

        Raises:
            InvalidName, InvalidValue, ValueTooLarge: the name or the value is invalid for an environment variable.
        """
        check_variable(name)
        check_value(name, value)
        sealed = _SUITE.encrypt(value.get_secret_value(), self.hpke, _info(account, name))
        return f"{VERSION}.{self.id}.{_encode(sealed)}"


@dataclass(frozen=True)
class KeyPair:
    """A sealing key with its private half: X-Wing's 32-byte seed, and its creation time (UTC)."""

    seed: SecretBytes
    created: datetime

    def __post_init__(self) -> None:
        if len(self.seed) != _SEED_BYTES:
            raise InvalidKey(f"a sealing key's seed has {_SEED_BYTES} bytes, not {len(self.seed)}")
        if self.created.tzinfo is None:
            raise InvalidKey("a sealing key's creation time has no time zone")

    @classmethod
    def generate(cls, created: datetime) -> "KeyPair":
        """Generate a new key with the system's random numbers."""
        return cls(SecretBytes(secrets.token_bytes(_SEED_BYTES)), created)

    @cached_property
    def _halves(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        # expandDecapsulationKey: draft-connolly-cfrg-xwing-kem, section 5.2
        expanded = hashlib.shake_256(self.seed.get_secret_value()).digest(96)
        return (
            MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
            X25519PrivateKey.from_private_bytes(expanded[64:]),
        )

    @cached_property
    def public(self) -> PublicKey:
        """The public half."""
        mlkem, x25519 = self._halves
        return PublicKey(mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw())

    def decrypt(self, payload: bytes, info: bytes) -> SecretBytes:
        """Decrypt an HPKE payload; `Keyring.open` handles the envelope.

        Raises:
            InvalidTag, ValueError: it was encrypted with another key or info, or was changed.
        """
        return SecretBytes(_SUITE.decrypt(payload, MLKEM768X25519PrivateKey(*self._halves), info))

    def dump(self) -> bytes:
        """Return the key as JSON, to be stored only in the keys' Secret."""
        seed = _encode(self.seed.get_secret_value())
        return json.dumps({"created": self.created.isoformat(), "seed": seed}).encode()

    @classmethod
    def load(cls, raw: bytes) -> "KeyPair":
        """Parse the output of `dump`.

        Raises:
            InvalidKey: it isn't the output of `dump`.
        """
        try:
            fields = json.loads(raw)
            return cls(SecretBytes(_decode(fields["seed"])), datetime.fromisoformat(fields["created"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            # From None: the original exception may contain the seed.
            raise InvalidKey("not a sealing key written by devbox-secrets") from None


class Keyring(Mapping[str, KeyPair]):
    """The available sealing keys by id."""

    def __init__(self, keys: Iterable[KeyPair]) -> None:
        self._keys = {key.public.id: key for key in keys}

    def __getitem__(self, key_id: str) -> KeyPair:
        return self._keys[key_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def newest(self) -> KeyPair:
        """The newest key, which is used to seal."""
        return self.newest_first()[0]

    def newest_first(self) -> list[KeyPair]:
        """Return the keys, newest first."""
        order = sorted(((key.created, key_id) for key_id, key in self._keys.items()), reverse=True)
        return [self._keys[key_id] for _, key_id in order]

    def open(self, sealed: str, *, account: str, name: str) -> SecretBytes:
        """Open a sealed value with the key that it names; no other key is tried.

        Raises:
            NotSealed: the text isn't an envelope of this version.
            UnknownKey: its key isn't available.
            CannotOpen: it was sealed for another account or name, or was changed.
            InvalidValue, ValueTooLarge: it can be opened, but the value is invalid for an environment variable.
        """
        key_id, payload = _parse(sealed)
        if key_id not in self._keys:
            raise UnknownKey(
                f"the value is sealed with the key {key_id}, which this cluster doesn't have;"
                f" seal it again: devbox-secrets seal {name}"
            )
        try:
            value = self._keys[key_id].decrypt(payload, _info(account, name))
        except (InvalidTag, ValueError):
            raise CannotOpen(
                f"cannot decrypt the sealed value for the account {account} and the name {name}: it was sealed for"
                " another account or name, or it is damaged; seal it again:"
                f" devbox-secrets seal {name} --account {account}"
            ) from None
        check_value(name, value)
        return value


def key_id_of(sealed: str) -> str:
    """Return the id of the key that a sealed value needs.

    Raises:
        NotSealed: the text isn't an envelope of this version.
    """
    return _parse(sealed)[0]


def _parse(sealed: str) -> tuple[str, bytes]:
    match = _ENVELOPE.fullmatch(sealed)
    if match is None and _has_white_space(sealed, f"{VERSION}."):
        raise NotSealed(f"the sealed value {_ONE_LINE}")
    if match is None and sealed.startswith(f"{VERSION}."):
        raise NotSealed("the sealed value is damaged or incomplete")
    if match is None:
        raise NotSealed(f"not a sealed value: it doesn't start with {VERSION}. and a key id")
    try:
        return match[1], _decode(match[2])
    except ValueError:
        raise NotSealed("the sealed value is damaged: not base64url") from None


def _has_white_space(text: str, prefix: str) -> bool:
    return text.strip().startswith(prefix) and any(map(str.isspace, text))


def _info(account: str, name: str) -> bytes:
    # Neither a namespace nor a variable can contain a NUL, so no two pairs result in the same bytes.
    return b"\0".join([VERSION.encode(), account.encode(), name.encode()])


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Decode base64url without padding (RFC 4648, section 5); only the canonical text is accepted.

    Raises:
        ValueError: it's another text; the caller says what was damaged.
    """
    raw = base64.urlsafe_b64decode(text + "==")  # more padding than needed is ignored
    if _encode(raw) != text:
        raise ValueError
    return raw
