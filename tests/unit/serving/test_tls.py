"""Certificates in files: they are reloaded if they change, and broken ones are ignored."""

import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from devbox_secrets.serving.tls import Authority, Certificate
from harness import pki

CA = pki.Authority.create("ours")


def renew(folder: Path, authority: pki.Authority = CA) -> pki.KeyPair:
    """Write another certificate into a folder."""
    pair = authority.server("localhost", addresses=["127.0.0.1"])
    write(folder / "tls.crt", pair.certificate)
    write(folder / "tls.key", pair.key)
    return pair


def write(file: Path, content: bytes) -> None:
    """Replace a file with another one, as Kubernetes does in a mounted Secret."""
    (new := file.with_suffix(".new")).write_bytes(content)
    new.replace(file)


def serial(pair: pki.KeyPair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate).serial_number


def connect(server: ssl.SSLContext, authority: pki.Authority = CA) -> ssl.SSLObject:
    """Connect to a server without a network; return the client's side of the connection."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname="localhost")
    other = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, other]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    return client


def served(certificate: Certificate) -> int:
    """Connect; return the serial number of the server's certificate."""
    found = connect(certificate.context).getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


def test_a_connection_gets_the_certificate_in_the_folder(tmp_path: Path) -> None:
    pair = renew(tmp_path)
    assert served(Certificate(tmp_path)) == serial(pair)


def test_new_connections_get_the_renewed_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    old = renew(tmp_path)
    certificate = Certificate(tmp_path)
    new = renew(tmp_path)
    assert served(certificate) == serial(old)
    assert certificate.refresh()
    assert served(certificate) == serial(new)
    assert not certificate.refresh()
    assert caplog.messages == ["new connections get the new certificate"]


def test_a_certificate_that_did_not_change_is_not_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    pair = renew(tmp_path)
    expirations: list[float] = []
    certificate = Certificate(tmp_path, on_expiration=expirations.append)
    certificate.refresh()
    assert served(certificate) == serial(pair)
    assert len(expirations) == 1
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("tls.crt", b"", id="an empty certificate"),
        pytest.param("tls.crt", b"canary", id="not a certificate"),
        pytest.param("tls.key", b"canary", id="not a key"),
        pytest.param("tls.key", CA.server("other", addresses=[]).key, id="the key of another certificate"),
        pytest.param("tls.crt", CA.server("other", addresses=[]).certificate, id="the certificate of another key"),
    ],
)
def test_a_broken_certificate_does_not_replace_the_old_one(
    name: str, content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = renew(tmp_path)
    certificate = Certificate(tmp_path)
    write(tmp_path / name, content)
    assert not certificate.refresh()
    assert served(certificate) == serial(pair)
    (line,) = caplog.messages
    assert line.startswith("cannot use the new certificate; keeping the old one: ")
    assert "canary" not in line


def test_a_missing_certificate_does_not_replace_the_old_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = renew(tmp_path)
    certificate = Certificate(tmp_path)
    (tmp_path / "tls.key").unlink()
    certificate.refresh()
    assert served(certificate) == serial(pair)
    assert len(caplog.messages) == 1


def test_a_certificate_that_was_fixed_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    renew(tmp_path)
    certificate = Certificate(tmp_path)
    write(tmp_path / "tls.crt", b"half of")
    certificate.refresh()
    pair = renew(tmp_path)
    certificate.refresh()
    assert served(certificate) == serial(pair)


def test_a_broken_certificate_is_read_again_although_nothing_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    renew(tmp_path)
    certificate = Certificate(tmp_path)
    write(tmp_path / "tls.crt", b"half of")
    certificate.refresh()
    certificate.refresh()
    assert len(caplog.messages) == 2


def test_a_server_does_not_start_with_a_broken_certificate(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Certificate(tmp_path)
    renew(tmp_path)
    write(tmp_path / "tls.key", b"canary")
    with pytest.raises(ssl.SSLError) as caught:
        Certificate(tmp_path)
    assert "canary" not in str(caught.value)


def test_the_expiration_of_each_certificate_is_reported(tmp_path: Path) -> None:
    expirations: list[float] = []
    pairs = [renew(tmp_path)]
    certificate = Certificate(tmp_path, on_expiration=expirations.append)
    pairs.append(renew(tmp_path))
    certificate.refresh()
    write(tmp_path / "tls.key", b"broken")
    certificate.refresh()
    ends = [x509.load_pem_x509_certificate(pair.certificate).not_valid_after_utc for pair in pairs]
    assert expirations == [end.timestamp() for end in ends]


def connects(authority: Authority, server: Path) -> bool:
    """Return whether a client that trusts an authority can connect to a server."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.context.wrap_bio(to_client, to_server, server_hostname="localhost")
    other = Certificate(server).context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, other, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError:
            return False
    return True


def test_a_client_trusts_the_authority_in_the_file_and_no_other(tmp_path: Path) -> None:
    other = pki.Authority.create("other")
    (ca := tmp_path / "ca.crt").write_bytes(CA.pem)
    (ours := tmp_path / "ours").mkdir()
    (theirs := tmp_path / "theirs").mkdir()
    renew(ours)
    renew(theirs, other)
    authority = Authority(ca)
    assert (connects(authority, ours), connects(authority, theirs)) == (True, False)
    write(ca, other.pem)
    authority.refresh()
    assert (connects(authority, ours), connects(authority, theirs)) == (False, True)


def test_broken_certificates_of_an_authority_do_not_replace_the_old_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (ca := tmp_path / "ca.crt").write_bytes(CA.pem)
    authority = Authority(ca)
    write(ca, b"broken")
    authority.refresh()
    renew(tmp_path)
    assert connects(authority, tmp_path)
    assert [line.partition(":")[0] for line in caplog.messages] == [
        "cannot use the API server's new CA certificates; keeping the old ones"
    ]


def test_an_authority_with_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Authority(tmp_path / "ca.crt")


def test_a_change_of_only_the_file_s_time_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    renew(tmp_path)
    certificate = Certificate(tmp_path)
    os.utime(tmp_path / "tls.crt", (1, 1))
    certificate.refresh()
    assert caplog.messages == ["new connections get the new certificate"]
