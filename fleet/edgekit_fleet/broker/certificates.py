"""The broker's own certificate authority and server certificate, for `broker.tls = true`.

Made once (EC P-256) below ``broker/tls/``; the CA lasts ten years and is what devices are given when
they enrol, the server certificate a year: it is made anew at a start in its last month, or when the names
devices reach the broker at have changed. A broker with certificates of its own is an external one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgekit.errors import StorageError
from edgekit.files import atomic_write, read_bytes
from edgekit_fleet.errors import BrokerError

_CA_DAYS, _SERVER_DAYS, _RENEW_DAYS = 3650, 365, 30
_LIMIT = 65_536


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Paths in one folder."""

    folder: Path

    @property
    def ca(self) -> Path:
        """The CA certificate, which devices trust."""
        return self.folder / "ca.pem"

    @property
    def ca_key(self) -> Path:
        """The CA's private key."""
        return self.folder / "ca.key"

    @property
    def server(self) -> Path:
        """The server certificate."""
        return self.folder / "server.pem"

    @property
    def server_key(self) -> Path:
        """The server's private key."""
        return self.folder / "server.key"


def ensure_certificates(folder: Path, names: Collection[str], *, now: datetime | None = None) -> TlsFiles:
    """Make what is missing or due.

    Args:
        folder: for the files; private ones get mode 0600.
        names: host names and addresses the server certificate must be good for.
        now: for tests.

    Raises:
        StorageError: the folder cannot be written.
        BrokerError: what lies there is damaged.
    """
    files, at = TlsFiles(folder=folder), now or datetime.now(UTC)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(f"cannot make the folder: {error.strerror}", where=str(folder)) from error
    try:
        if not files.ca.exists():
            _make_ca(files, at)
        if not _good(files, frozenset(names), at):
            _make_server(files, sorted(names), at)
    except ValueError as error:
        raise BrokerError(
            f"damaged certificates: {error}",
            where=str(folder),
            remedy="restore the folder from a backup; without it devices must be given the new CA",
            code="bad_certificates",
        ) from error
    return files


def _make_ca(files: TlsFiles, at: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgekit broker CA")])
    certificate = (
        _builder(name, name, key.public_key(), at, _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_key(files.ca_key, key)
    atomic_write(files.ca, certificate.public_bytes(Encoding.PEM))


def _make_server(files: TlsFiles, names: Collection[str], at: datetime) -> None:
    ca = x509.load_pem_x509_certificate(read_bytes(files.ca, limit=_LIMIT))
    ca_key = load_pem_private_key(read_bytes(files.ca_key, limit=_LIMIT), password=None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey) or ca_key.public_key() != ca.public_key():
        raise ValueError("the CA's key is not the one of its certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgekit broker")])
    certificate = (
        _builder(subject, ca.subject, key.public_key(), at, _SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    _write_key(files.server_key, key)
    atomic_write(files.server, certificate.public_bytes(Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, at: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(days=1))
        .not_valid_after(at + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _good(files: TlsFiles, names: frozenset[str], at: datetime) -> bool:
    """Whether the server certificate exists, names exactly these and lasts for another month."""
    if not (files.server.exists() and files.server_key.exists()):
        return False
    certificate = x509.load_pem_x509_certificate(read_bytes(files.server, limit=_LIMIT))
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    told = {*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))}
    return told == names and certificate.not_valid_after_utc - at > timedelta(days=_RENEW_DAYS)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    atomic_write(path, pem, mode=0o600)


__all__ = ["TlsFiles", "ensure_certificates"]
