"""Certificates and CA bundles in files, reloaded when the files change."""

import logging
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

LOG = logging.getLogger(__name__)


class _Watched(ABC):
    """Files, and what was loaded from them."""

    _messages: tuple[str, str]
    """The log messages for files that can't be used, and for new ones."""

    def __init__(self, *files: Path) -> None:
        self._files = files
        self._state = self._fingerprint()  # before loading, so that `refresh` sees what changes meanwhile
        self._load()

    def refresh(self) -> bool:
        """Reload changed files; return whether that succeeded. If they can't be used, the old content stays."""
        try:
            if (state := self._fingerprint()) == self._state:
                return False
            self._load()
            self._state = state
        except (OSError, ValueError) as error:
            LOG.warning("%s: %s", self._messages[0], error)
            return False
        LOG.info("%s", self._messages[1])
        return True

    @abstractmethod
    def _load(self) -> None:
        """Load the files."""

    def _fingerprint(self) -> object:
        """Return what changes with the files; no key is kept in memory for it."""
        return [(it.st_ino, it.st_mtime_ns, it.st_size) for it in (file.stat() for file in self._files)]


class Certificate(_Watched):
    """A certificate and its key in a directory, as in a mounted Secret; each new connection gets the current one.

    `on_expiration` is called with the expiration time, in seconds since 1970.

    Raises:
        OSError, ValueError: the files can't be read, or don't match.
    """

    _messages = (
        "cannot use the new certificate; keeping the old one",
        "new connections get the new certificate",
    )

    def __init__(self, folder: Path, *, on_expiration: Callable[[float], object] = lambda _: None) -> None:
        self._on_expiration = on_expiration
        self.file, self.key = folder / "tls.crt", folder / "tls.key"
        super().__init__(self.file, self.key)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        # Called for each handshake, even if the client names no server.
        connection.context = self._current

    def _load(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.file, self.key)
        ends = x509.load_pem_x509_certificate(self.file.read_bytes()).not_valid_after_utc
        self._current = context
        self._on_expiration(ends.timestamp())


class Authority(_Watched):
    """The certificates of a CA, and a TLS context that trusts them.

    Raises:
        OSError: the certificates can't be read.
    """

    _messages = (
        "cannot use the API server's new CA certificates; keeping the old ones",
        "new connections to the API server trust the new CA certificates",
    )

    def __init__(self, file: Path) -> None:
        super().__init__(file)

    def _load(self) -> None:
        self.context = ssl.create_default_context(cafile=str(self._files[0]))
