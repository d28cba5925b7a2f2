"""A throw-away certificate authority: TLS for the mock, also under names that clients have hard-coded."""

from __future__ import annotations

import ipaddress
import re
import ssl
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable

CA_FILE_NAME: Final = "mock-idp-ca.pem"
LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_HOST_NAME: Final = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_LIFETIME: Final = timedelta(days=7)
# Clocks of containers and virtual machines are sometimes behind.
_BACKDATED: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Certificate:
    """What a server needs, the file that clients have to trust, and the names that they may use."""

    context: ssl.SSLContext
    ca_file: Path
    names: tuple[str, ...]


def make_certificate(names: Iterable[str], folder: Path) -> Certificate:
    """A certificate for these host names and addresses, by an authority that is forgotten at once.

    Only the authority's certificate is written, to `folder`; no private key stays on disk, so trusting the file for a
    week cannot be turned against anybody. Raises OSError where it cannot be written, ValueError for what is no host name.
    """
    unique = tuple(dict.fromkeys((*LOCAL_NAMES, *names)))
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key)
    leaf = _leaf(key, authority, authority_key, unique)
    folder.mkdir(parents=True, exist_ok=True)
    ca_file = folder / CA_FILE_NAME
    ca_file.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    return Certificate(_context(leaf, key), ca_file.resolve(), unique)


def _builder(subject: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)  # noqa: UP017 (one spelling for every supported Python)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = "mock-idp throw-away authority"
    builder = _builder(name, _name(name), key)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(_usage(signs_certificates=True), critical=True).sign(key, hashes.SHA256())


def _leaf(
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
) -> x509.Certificate:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = (
        _builder("mock-idp", authority.subject, key)
        .add_extension(identifier, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
    )
    return builder.sign(authority_key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        if not _HOST_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no host name") from None
        return x509.DNSName(name)


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


def _context(leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    """The standard library reads keys from files only: one that this user alone can read, for this moment."""
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory(prefix="mock-idp-") as folder:
        file = Path(folder) / "key.pem"
        file.write_bytes(pem + leaf.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(file)
    return context


def recipe(certificate: Certificate, issuer_host: str, port: int) -> str:
    """How clients trust the mock, and how they reach it under a name that is not theirs to choose."""
    trust = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE")
    variables = " ".join(f"{name}={certificate.ca_file}" for name in trust)
    lines = ["Clients trust it with the authority's certificate:", f"  export {variables}"]
    if issuer_host not in LOCAL_NAMES:
        lines += [
            f"They reach {issuer_host} here with a line in /etc/hosts (or docker run --add-host {issuer_host}:ADDRESS):",
            f"  127.0.0.1 {issuer_host}",
        ]
        lines += [] if port == 443 else [f"{issuer_host} is asked on port 443; this mock listens on {port}."]
    return "\n".join(lines)
