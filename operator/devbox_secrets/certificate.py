"""A server's certificate, followed while it changes. Imports nothing of ours."""

import logging
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509

LOG = logging.getLogger(__name__)


class Certificate:
    """A certificate and its key in a folder, as a Secret is mounted: each new connection gets the present one.

    `alpn` are the protocols to choose from; `tell_end` hears when it ends, in seconds since 1970.

    Raises:
        OSError, ValueError: the files can't be read, or don't belong together.
    """

    def __init__(
        self, folder: Path, *, alpn: Sequence[str] = (), tell_end: Callable[[float], object] = lambda _: None
    ) -> None:
        self._alpn = alpn
        self._tell_end = tell_end
        self.file, self.key = folder / "tls.crt", folder / "tls.key"
        self._state, self._present = self._load()
        self.context = self._new_context()
        self.context.sni_callback = self._choose

    def refresh(self) -> None:
        """Take what is in the folder now; what can't be used doesn't replace what can."""
        try:
            if self._look() == self._state:
                return
            self._state, self._present = self._load()
        except (OSError, ValueError) as error:
            LOG.warning("the new certificate can't be used, so the former one stays: %s", error)
        else:
            LOG.info("new connections get the new certificate")

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        # Called for each handshake, also for one that names no server.
        connection.context = self._present

    def _load(self) -> tuple[object, ssl.SSLContext]:
        state = self._look()
        context = self._new_context()
        context.load_cert_chain(self.file, self.key)
        ends = x509.load_pem_x509_certificate(self.file.read_bytes()).not_valid_after_utc
        self._tell_end(ends.timestamp())
        return state, context

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        if self._alpn:
            context.set_alpn_protocols(self._alpn)
        return context

    def _look(self) -> object:
        """Say what differs when the files do; no key is kept in memory for it."""
        return [(it.st_ino, it.st_mtime_ns, it.st_size) for it in (self.file.stat(), self.key.stat())]
