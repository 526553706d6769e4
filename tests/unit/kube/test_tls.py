"""Certificates: which ones the client trusts, how it loads its own, and that nobody else can read its key."""

import ssl
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from devbox_secrets.errors import ConfigError
from devbox_secrets.kube.kubeconfig_file import Cluster, User
from devbox_secrets.kube.tls import read_authority, read_certificate, tls_context
from harness.pki import Authority

AUTHORITY = Authority.create("test")
PAIR = AUTHORITY.client("jane")
CLUSTER = Cluster(server="https://one.example", certificate_authority_data=AUTHORITY.pem)


def test_only_the_cluster_s_authority_is_trusted() -> None:
    (trusted,) = tls_context(CLUSTER, b"", b"").get_ca_certs()
    assert dict(each[0] for each in trusted["subject"])["organizationalUnitName"] == "test"  # type: ignore[misc]


def test_without_an_authority_those_of_the_machine_are_trusted() -> None:
    ours, theirs = tls_context(Cluster(server="https://x"), b"", b""), ssl.create_default_context()
    assert ours.cert_store_stats() == theirs.cert_store_stats()
    assert ours.check_hostname


def test_text_around_a_certificate_does_not_matter() -> None:
    text = "of the clüster\n".encode() + AUTHORITY.pem + b"\n# end\n"
    assert tls_context(CLUSTER.model_copy(update={"certificate_authority_data": text}), b"", b"").get_ca_certs()


def test_nothing_is_verified_if_the_kubeconfig_says_so() -> None:
    context = tls_context(Cluster(server="https://x", insecure_skip_tls_verify=True), b"", b"")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize(
    "authority", [b"x", b"-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n", b"\xff"]
)
def test_an_authority_without_a_certificate_is_an_error(authority: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        tls_context(CLUSTER.model_copy(update={"certificate_authority_data": authority}), b"", b"")
    assert str(caught.value) == "the certificate authority of the cluster https://one.example has no certificate"


def test_an_authority_in_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (file := tmp_path / "ca").touch()
    with pytest.raises(ConfigError, match="has no certificate"):
        tls_context(Cluster(server="https://x", certificate_authority=str(file)), b"", b"")


def test_a_key_is_loaded_from_a_private_file_that_is_then_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    modes: list[int] = []
    load = ssl.SSLContext.load_cert_chain

    def watch(it: ssl.SSLContext, file: str, **options: object) -> None:
        modes.append(stat.S_IMODE(Path(file).stat().st_mode))
        load(it, file, **options)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watch)
    tls_context(CLUSTER, PAIR.certificate, PAIR.key)
    with pytest.raises(ConfigError):
        tls_context(CLUSTER, PAIR.certificate, b"x")
    assert modes == [0o600, 0o600]
    assert list(tmp_path.iterdir()) == []


def encrypted(key: bytes) -> bytes:
    loaded = load_pem_private_key(key, None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))


@pytest.mark.parametrize(
    ("certificate", "key", "reason"),
    [
        (PAIR.certificate, AUTHORITY.client("joe").key, "not PEM, or they don't match"),
        (PAIR.certificate, b"x", "not PEM, or they don't match"),
        (b"x", PAIR.key, "not PEM, or they don't match"),
        (PAIR.certificate, encrypted(PAIR.key), "the key is encrypted"),
    ],
)
def test_a_pair_that_cannot_be_used_is_an_error(certificate: bytes, key: bytes, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tls_context(CLUSTER, certificate, key)
    assert str(caught.value) == f"cannot use the client certificate and its key: {reason}"
    assert caught.value.__suppress_context__


def test_files_are_read_if_there_is_no_data(tmp_path: Path) -> None:
    (file := tmp_path / "file").write_bytes(b"of a file")
    name = str(file)
    assert read_authority(Cluster(certificate_authority=name)) == b"of a file"
    assert read_certificate(User(client_certificate=name, client_key_data=b"data")) == (b"of a file", b"data")
    assert read_certificate(User(client_key=name)) == (b"", b"")
    with pytest.raises(ConfigError) as caught:
        read_authority(Cluster(certificate_authority=str(tmp_path / "gone")))
    assert str(caught.value) == f"cannot read {tmp_path}/gone, which the kubeconfig names: No such file or directory"
