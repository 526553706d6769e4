"""Fingerprints: equal for equal values, and nobody else can compute them."""

import hashlib

from pydantic import SecretBytes

from devbox_secrets.controller.rules.fingerprint import Fingerprint


def test_equal_values_have_equal_fingerprints_of_16_bytes() -> None:
    one, same, other = (Fingerprint.of(SecretBytes(value)) for value in (b"one", b"one", b"two"))
    assert one == same
    assert one != other
    assert (one.size, len(one.digest)) == (3, 16)


def test_a_value_cannot_be_guessed_from_its_fingerprint_without_this_process_s_key() -> None:
    guess = hashlib.blake2b(b"one", digest_size=16).digest()
    assert Fingerprint.of(SecretBytes(b"one")).digest != guess
