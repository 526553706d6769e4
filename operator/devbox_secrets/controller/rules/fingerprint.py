"""Stands for a value where only its size matters, and whether it is the same as another."""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from pydantic import SecretBytes

#: Of this process alone: from a digest nobody else can guess a value.
_KEY = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A value's size in bytes and its digest, which tells it from any other."""

    size: int
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, value: SecretBytes) -> "Fingerprint":
        """Give a value's fingerprint."""
        raw = value.get_secret_value()
        return cls(len(raw), hashlib.blake2b(raw, digest_size=16, key=_KEY).digest())


def shared(fingerprints: Iterable[tuple[str, Fingerprint]]) -> Mapping[str, Fingerprint]:
    """Give the same object for the same fingerprints by name: every namespace of an account has them."""
    return _shared(tuple(sorted(fingerprints, key=lambda item: item[0])))


@lru_cache(maxsize=1024)
def _shared(fingerprints: tuple[tuple[str, Fingerprint], ...]) -> Mapping[str, Fingerprint]:
    return dict(fingerprints)
