"""The issuer's RSA keys: creation, publication, rotation and storage."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

_CERTIFICATE_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "actions.self-signed.github")])
_CERTIFICATE_YEARS: Final = timedelta(days=3652)
_KEY_BITS: Final = 2048
# Text between PEM blocks is a comment (RFC 7468, section 2).
_WITHOUT_CERTIFICATE: Final = b"published without a certificate\n"
_PEM: Final = rb"(?:%s)?-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----\n" % _WITHOUT_CERTIFICATE


def base64url(data: bytes) -> str:
    """Encode as base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact_json(value: object) -> str:
    """Serialise as GitHub does for headers and payloads: fields in alphabetical order, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _modulus(numbers: rsa.RSAPublicNumbers) -> bytes:
    return numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")


def _self_signed(private: rsa.RSAPrivateKey) -> bytes:
    # A fixed date: a certificate must not depend on the machine's clock, and relying parties ignore its dates.
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 (one spelling for every supported Python)
    builder = x509.CertificateBuilder(_CERTIFICATE_NAME, _CERTIFICATE_NAME, private.public_key())
    builder = builder.serial_number(1).not_valid_before(start).not_valid_after(start + _CERTIFICATE_YEARS)
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True)
class SigningKey:
    """An RSA key (2048 bits, RS256). The kid is derived from the key, so that two issuers never share one.

    `certificate` is the self-signed X.509 certificate in DER, or empty: GitHub also publishes a key without one.
    """

    private: rsa.RSAPrivateKey = field(repr=False)
    kid: str
    certificate: bytes = field(default=b"", repr=False)

    @property
    def x5t(self) -> str:
        """The SHA-1 thumbprint of the certificate (RFC 7515, section 4.1.7), or an empty string."""
        return (
            base64url(hashlib.sha1(self.certificate, usedforsecurity=False).digest())
            if self.certificate
            else ""
        )

    def jwk(self) -> dict[str, Any]:
        """Return the public key as a JWK of the key set (RFC 7517)."""
        numbers = self.private.public_key().public_numbers()
        key: dict[str, Any] = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": self.kid}
        key |= {"n": base64url(_modulus(numbers)), "e": "AQAB"}
        if self.certificate:
            key |= {"x5c": [base64.b64encode(self.certificate).decode()], "x5t": self.x5t}
        return key

    def header(self) -> dict[str, Any]:
        """Return the JOSE header of a token signed with this key: GitHub's four fields."""
        header = {"alg": "RS256", "kid": self.kid, "typ": "JWT"}
        return header | {"x5t": self.x5t} if self.certificate else header

    def public_pem(self) -> bytes:
        """Return the public key as PEM, which a verifier prone to algorithm confusion would use as an HMAC secret."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, signing_input: bytes) -> bytes:
        """Sign with RSASSA-PKCS1-v1_5 and SHA-256 (RFC 7518, section 3.3)."""
        return self.private.sign(signing_input, padding.PKCS1v15(), hashes.SHA256())


def make_key(*, with_certificate: bool = True) -> SigningKey:
    """Create a key whose kid has GitHub's form (a UUID of version 5)."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    return _signing_key(private, with_certificate=with_certificate)


def _signing_key(private: rsa.RSAPrivateKey, *, with_certificate: bool) -> SigningKey:
    """Derive kid and certificate from the private key, so that a stored key gets the same ones again."""
    kid = str(uuid.uuid5(uuid.NAMESPACE_OID, _modulus(private.public_key().public_numbers()).hex()))
    return SigningKey(private, kid, _self_signed(private) if with_certificate else b"")


@dataclass(frozen=True)
class KeyRing:
    """The key that signs, and the published keys: those in the key set."""

    signing: SigningKey
    published: tuple[SigningKey, ...]

    def key_set(self) -> dict[str, Any]:
        """Return the JWK set (RFC 7517, section 5)."""
        return {"keys": [key.jwk() for key in self.published]}

    def rotated(self, new: SigningKey, *, publish: bool, keep_old: bool) -> KeyRing:
        """Return the ring that signs with `new`, published if `publish`; without `keep_old` no other key stays published."""
        old = self.published if keep_old else ()
        return replace(self, signing=new, published=(new, *old) if publish else old)

    def showing_signing_key(self) -> KeyRing:
        """Return the ring with its signing key in the key set."""
        shown = self.signing in self.published
        return self if shown else replace(self, published=(self.signing, *self.published))

    def without_old_keys(self) -> KeyRing:
        """Return the ring without published keys other than the signing key."""
        return replace(self, published=tuple(key for key in self.published if key == self.signing))


def make_ring() -> KeyRing:
    """Create a ring of two published keys, as GitHub has several: one signs; the other has no certificate and is idle."""
    signing = make_key()
    return KeyRing(signing, (signing, make_key(with_certificate=False)))


def save_ring(file: Path, ring: KeyRing) -> None:
    """Write the private keys of a ring as PEM (PKCS #8), the signing key first, readable for this user only (mode 0600).

    Raises OSError if the file cannot be written.
    """
    keys = (ring.signing, *(key for key in ring.published if key != ring.signing))
    written = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.writelines(_private_pem(key) for key in keys)
    # Replace the file atomically: a mock killed during the write must not lose the keys that verifiers know.
    written.replace(file)


def _private_pem(key: SigningKey) -> bytes:
    pem = key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem if key.certificate else _WITHOUT_CERTIFICATE + pem


def load_or_make_ring(file: Path) -> KeyRing:
    """Return the ring in a file of `save_ring`, or create one and store it there; every key is published.

    Raises OSError if the file cannot be used, ValueError if it does not contain keys.
    """
    if not file.exists():
        ring = make_ring()
        save_ring(file, ring)
        return ring
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        file.chmod(0o600)
    return _read_ring(file.read_bytes())


def _read_ring(text: bytes) -> KeyRing:
    keys = tuple(_read_key(pem) for pem in re.findall(_PEM, text, re.DOTALL))
    if not keys:
        raise ValueError("it has no private key")
    return KeyRing(keys[0], keys)


def _read_key(pem: bytes) -> SigningKey:
    private = serialization.load_pem_private_key(pem[pem.index(b"-----BEGIN") :], None)
    if not isinstance(private, rsa.RSAPrivateKey) or private.key_size < _KEY_BITS:
        raise ValueError("it has a key that is not RSA of 2048 bits or more")
    return _signing_key(private, with_certificate=not pem.startswith(_WITHOUT_CERTIFICATE))
