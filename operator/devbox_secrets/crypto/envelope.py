"""Sealing and opening values: the envelope `dbs1.<key id>.<base64url>` around HPKE.

HPKE (RFC 9180) in base mode: KEM X-Wing (MLKEM768-X25519, draft-connolly-cfrg-xwing-kem), KDF
HKDF-SHA256, AEAD AES-256-GCM. `info` binds the version, the account and the variable's name, so a
sealed value that is copied to another account or name doesn't open.

tests/vectors is the format's specification.
"""

import base64
import binascii
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
_ONE_LINE = "has white space or a line break in it; write it as one line without white space"


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
        """The key as `cryptography` takes it."""
        mlkem, x25519 = self.raw[:_MLKEM_PUBLIC_BYTES], self.raw[_MLKEM_PUBLIC_BYTES:]
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(mlkem), X25519PublicKey.from_public_bytes(x25519)
        )

    def __str__(self) -> str:
        """The key as text: `dbs1-public.<key id>.<base64url>`."""
        return f"{VERSION}-public.{self.id}.{_encode(self.raw)}"

    @classmethod
    def parse(cls, text: str) -> "PublicKey":
        """Read a public key from its text; white space around it is ignored.

        Raises:
            InvalidKey: nothing can be sealed with it.
        """
        text = text.strip()
        match = _PUBLIC.fullmatch(text)
        if match is None and _has_white_space(text, f"{VERSION}-public."):
            raise InvalidKey(f"the public sealing key {_ONE_LINE}")
        if match is None:
            raise InvalidKey(f"not a public sealing key: it starts with {VERSION}-public.")
        try:
            key = cls(_decode(match[2]))
        except ValueError:
            raise InvalidKey("the public sealing key is damaged: not base64url") from None
        if key.id != match[1]:
            raise InvalidKey("the public sealing key is damaged: its id isn't that of its bytes")
        try:
            # Some X25519 keys, those of small order, fail only when something is sealed.
            _SUITE.encrypt(b"", key.hpke, b"")
        except ValueError:
            raise InvalidKey("the public sealing key is invalid: its ML-KEM-768 or X25519 half can't be used") from None
        return key

    def seal(self, value: SecretBytes, *, account: str, name: str) -> str:
        """Seal a value for one account's variable; two calls never give the same text.

        Raises:
            InvalidName, InvalidValue, ValueTooLarge: no environment variable can be that.
        """
        check_variable(name)
        check_value(name, value)
        sealed = _SUITE.encrypt(value.get_secret_value(), self.hpke, _info(account, name))
        return f"{VERSION}.{self.id}.{_encode(sealed)}"


@dataclass(frozen=True)
class KeyPair:
    """A sealing key with its private half: X-Wing's 32-byte seed, and when it was made (UTC)."""

    seed: SecretBytes
    created: datetime

    def __post_init__(self) -> None:
        if len(self.seed) != _SEED_BYTES:
            raise InvalidKey(f"a sealing key's seed has {_SEED_BYTES} bytes, not {len(self.seed)}")

    @classmethod
    def generate(cls, created: datetime) -> "KeyPair":
        """Make a new key from the system's random numbers."""
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
        """Undo HPKE alone; `Keyring.open` is what knows the envelope.

        Raises:
            InvalidTag, ValueError: it was encrypted to another key or info, or was changed.
        """
        return SecretBytes(_SUITE.decrypt(payload, MLKEM768X25519PrivateKey(*self._halves), info))

    def dump(self) -> bytes:
        """The key as its Secret holds it: JSON, for the eyes of the key Secret alone."""
        seed = _encode(self.seed.get_secret_value())
        return json.dumps({"created": self.created.isoformat(), "seed": seed}).encode()

    @classmethod
    def load(cls, raw: bytes) -> "KeyPair":
        """Read what `dump` wrote.

        Raises:
            InvalidKey: it wrote no such thing.
        """
        try:
            fields = json.loads(raw)
            created = datetime.fromisoformat(fields["created"])
            if created.tzinfo is None:
                raise ValueError("a time without its zone")  # noqa: TRY301 - as any other damage
            return cls(SecretBytes(_decode(fields["seed"])), created)
        except (ValueError, TypeError, KeyError, RecursionError):
            # From None: the exception in hand may carry the seed.
            raise InvalidKey("the text isn't a sealing key that devbox-secrets wrote") from None


class Keyring(Mapping[str, KeyPair]):
    """Every sealing key at hand, by its id."""

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
        """The key to seal with: the one made last."""
        return self.newest_first()[0]

    def newest_first(self) -> list[KeyPair]:
        """Give the keys in the order in which they were made, the last one first."""
        order = sorted(((key.created, key_id) for key_id, key in self._keys.items()), reverse=True)
        return [self._keys[key_id] for _, key_id in order]

    def open(self, sealed: str, *, account: str, name: str) -> SecretBytes:
        """Open what `PublicKey.seal` gave, with the key that it names: no other is tried.

        Raises:
            NotSealed: the text isn't an envelope of this version.
            UnknownKey: its key isn't here.
            CannotOpen: it was sealed for another account or name, or was changed.
            InvalidValue, ValueTooLarge: it opens, to what no environment variable can be.
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
                f"the sealed value doesn't open for the account {account} and the name {name}: it"
                " was sealed for another account or name, or was changed on its way; seal it"
                f" again: devbox-secrets seal {name} --account {account}"
            ) from None
        check_value(name, value)
        return value


def key_id_of(sealed: str) -> str:
    """The id of the key that a sealed value needs.

    Raises:
        NotSealed: the text isn't an envelope of this version.
    """
    return _parse(sealed)[0]


def _parse(sealed: str) -> tuple[str, bytes]:
    match = _ENVELOPE.fullmatch(sealed)
    if match is None and _has_white_space(sealed, f"{VERSION}."):
        raise NotSealed(f"the sealed value {_ONE_LINE}")
    if match is None:
        raise NotSealed(f"not a sealed value: it starts with {VERSION}. and its key's id")
    try:
        return match[1], _decode(match[2])
    except ValueError:
        raise NotSealed("the sealed value is damaged: not base64url") from None


def _has_white_space(text: str, prefix: str) -> bool:
    return text.strip().startswith(prefix) and any(map(str.isspace, text))


def _info(account: str, name: str) -> bytes:
    # Neither a namespace nor a variable can hold a NUL, so no two pairs give the same bytes.
    return b"\0".join([VERSION.encode(), account.encode(), name.encode()])


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Base64url without padding (RFC 4648, section 5); one text alone for each byte string."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64url") from None
    if _encode(raw) != text:
        raise ValueError("not canonical base64url")
    return raw
