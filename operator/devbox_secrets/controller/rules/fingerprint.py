"""Represents a value where only its size and its equality with other values matter."""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from pydantic import SecretBytes

#: Known to this process only, so nobody else can guess a value from its digest.
_KEY = secrets.token_bytes(32)
_DIGEST_SIZE = 16


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A value's size in bytes and its digest, which differs for every other value."""

    size: int
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, value: SecretBytes) -> "Fingerprint":
        """Return a value's fingerprint."""
        raw = value.get_secret_value()
        return cls(len(raw), digest(raw, _DIGEST_SIZE))


def digest(raw: bytes, size: int) -> bytes:
    """Return a digest of this many bytes, which only this process can compute (BLAKE2b with a key, RFC 7693)."""
    return hashlib.blake2b(raw, digest_size=size, key=_KEY).digest()


def shared(fingerprints: Iterable[tuple[str, Fingerprint]]) -> Mapping[str, Fingerprint]:
    """Return the same object for equal mappings, since every namespace of an account has the same one."""
    return _shared(tuple(sorted(fingerprints, key=lambda item: item[0])))


@lru_cache(maxsize=1024)
def _shared(fingerprints: tuple[tuple[str, Fingerprint], ...]) -> Mapping[str, Fingerprint]:
    return dict(fingerprints)
