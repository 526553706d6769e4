"""The certificates of a short-lived control plane."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from trustme import CA

_LIFETIME = timedelta(days=1)


@dataclass(frozen=True)
class KeyPair:
    """A private key and its certificate, both in PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Authority:
    """A certificate authority that signs for servers on the loopback address and for clients."""

    _ca: CA

    @classmethod
    def create(cls, name: str) -> Self:
        """Create a self-signed authority."""
        return cls(CA(organization_unit_name=name))

    @property
    def pem(self) -> bytes:
        """The certificate that clients and servers trust."""
        return self._ca.cert_pem.bytes()

    def server(self, *dns_names: str, addresses: Sequence[str]) -> KeyPair:
        """Sign a certificate for a server with these names and addresses."""
        return self._sign(*dns_names, *addresses)

    def client(self, user: str, group: str | None = None) -> KeyPair:
        """Sign a certificate for a user; CN is the name and O the group, which has no permissions by default."""
        return self._sign("client", user=user, group=group)  # Go requires a SAN

    def _sign(self, *names: str, user: str | None = None, group: str | None = None) -> KeyPair:
        end = datetime.now(UTC) + _LIFETIME
        signed = self._ca.issue_cert(*names, common_name=user, organization_name=group, not_after=end)
        return KeyPair(signed.cert_chain_pems[0].bytes(), signed.private_key_pem.bytes())
