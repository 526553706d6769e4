"""TLS to the API server: the trusted certificates and the client's own."""

import ssl
import tempfile
from pathlib import Path

from devbox_secrets.errors import ConfigError
from devbox_secrets.kube.kubeconfig_file import Cluster, User


def tls_context(cluster: Cluster, certificate: bytes, key: bytes) -> ssl.SSLContext:
    """Return the TLS settings for connections to the cluster; the client's certificate is optional.

    Raises:
        ConfigError: the certificates or the key can't be used.
    """
    authority = read_authority(cluster).decode("ascii", "ignore")
    if not authority and (cluster.certificate_authority or cluster.certificate_authority_data):
        authority = "nothing"  # otherwise the system's certificates would be trusted
    try:
        context = ssl.create_default_context(cadata=authority or None)
    except ssl.SSLError:
        raise ConfigError(f"the certificate authority of the cluster {cluster.server} has no certificate") from None
    # Like Go, and as clusters' certificates need: trust any given certificate, with or without a key identifier.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.insecure_skip_tls_verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        _load_certificate(context, certificate, key)
    return context


def read_authority(cluster: Cluster) -> bytes:
    """Return the CA certificates for the API server in PEM; empty if the cluster has none.

    Raises:
        ConfigError: their file can't be read.
    """
    return cluster.certificate_authority_data or _read(cluster.certificate_authority)


def read_certificate(user: User) -> tuple[bytes, bytes]:
    """Return the user's certificate and key in PEM; empty if there is none.

    Raises:
        ConfigError: their files can't be read.
    """
    certificate = user.client_certificate_data or _read(user.client_certificate)
    return certificate, (user.client_key_data or _read(user.client_key)) if certificate else b""


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes() if file else b""
    except OSError as error:
        raise ConfigError(f"cannot read {file}, which the kubeconfig names: {error.strerror}") from None


def _load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # OpenSSL reads them only from a file; this one is readable only by its owner and deleted at once.
    with tempfile.NamedTemporaryFile(prefix="devbox-secrets-") as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        try:
            context.load_cert_chain(file.name, password=_refuse_password)
        except (ssl.SSLError, ConfigError) as error:
            reason = "the key is encrypted" if isinstance(error, ConfigError) else "not PEM, or they don't match"
            raise ConfigError(f"cannot use the client certificate and its key: {reason}") from None


def _refuse_password() -> str:
    raise ConfigError("the key is encrypted")
