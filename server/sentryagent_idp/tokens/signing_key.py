"""The keys that sign our tokens: creation, storage as PEM, publication as JWK."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from typing_extensions import TypedDict

from sentryagent_idp.jose import base64url

ALGORITHMS = ("ES256", "RS256", "EdDSA")

_RSA_BITS = 2048

JWKS_MAX_AGE_SECONDS = 300
"""How long verifiers may cache our JWKS: a key must be published for this long before it signs."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

Passphrases = tuple[str, ...]
"""Passphrases of private keys: the first encrypts, all can decrypt; without any, keys are stored unencrypted."""

_THUMBPRINT_FIELDS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
"""The required JWK fields of each key type, in the order of RFC 7638, 3.2 (RFC 8037, 2 for OKP); all are public."""


class KeySet(TypedDict):
    """A JWK Set (RFC 7517, section 5)."""

    keys: list[dict[str, str]]


class UnreadableKey(ValueError):
    """A stored key cannot be loaded or must not be trusted; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One of our signing keys; `kid` is its RFC 7638 thumbprint, so no two keys share one."""

    kid: str
    alg: str
    private_key: PrivateKey = field(repr=False)
    public_key: PublicKey = field(repr=False)

    @classmethod
    def of(cls, private_key: PrivateKey) -> Self:
        """Return the signing key of a private key, with its thumbprint and algorithm; raises `UnreadableKey`."""
        public_key = private_key.public_key()
        alg = _algorithm_of(private_key)
        return cls(
            kid=_thumbprint(_public_fields(alg, public_key)),
            alg=alg,
            private_key=private_key,
            public_key=public_key,
        )


def generate(alg: str) -> SigningKey:
    """Create a key for ES256, RS256 or EdDSA (Ed25519); raises `ValueError` for another algorithm."""
    match alg:
        case "ES256":
            return SigningKey.of(ec.generate_private_key(ec.SECP256R1()))
        case "RS256":
            return SigningKey.of(rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS))
        case "EdDSA":
            return SigningKey.of(ed25519.Ed25519PrivateKey.generate())
    raise ValueError(f"Unsupported signing algorithm {alg}; choose one of {', '.join(ALGORITHMS)}.")


def to_pem(key: SigningKey, passphrases: Passphrases) -> bytes:
    """Return the key as PKCS #8 in PEM, encrypted under the current passphrase if there is one."""
    return key.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrases[0].encode())
        if passphrases
        else serialization.NoEncryption(),
    )


def is_encrypted(pem: bytes) -> bool:
    """Return whether a PEM text needs a passphrase (RFC 7468, 11)."""
    return b"BEGIN ENCRYPTED PRIVATE KEY" in pem


def from_pem(pem: bytes, passphrases: Passphrases) -> SigningKey:
    """Load the key in a PEM text: encrypted under one of the passphrases or, without passphrases, unencrypted.

    With passphrases, an unencrypted key is refused: anyone who can write to the database could have put it there.
    Raises `UnreadableKey`.
    """
    if is_encrypted(pem) and not passphrases:
        raise UnreadableKey("it is encrypted; set SENTRYAGENT_KEY_ENCRYPTION_KEY to its encryption key.")
    if passphrases and not is_encrypted(pem):
        raise UnreadableKey(
            "it is stored unencrypted, but SENTRYAGENT_KEY_ENCRYPTION_KEY is set; if the key is yours, encrypt it with "
            "`sentryagent-idp keys rewrap`, otherwise remove it with `sentryagent-idp keys revoke`."
        )
    key = _load(pem, passphrases or (None,))
    if not isinstance(key, PrivateKey):
        raise UnreadableKey(f"its algorithm is not one of {', '.join(ALGORITHMS)}.")
    return SigningKey.of(key)


def _load(pem: bytes, passphrases: Sequence[str | None]) -> object:
    """Load the key with the first passphrase that fits; only `None` fits an unencrypted key."""
    cause: Exception | None = None
    for passphrase in passphrases:
        try:
            return serialization.load_pem_private_key(pem, passphrase.encode() if passphrase else None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            cause = error
    raise UnreadableKey(
        "it cannot be read; check that SENTRYAGENT_KEY_ENCRYPTION_KEY is the one it was encrypted with."
    ) from cause


def public_jwk(key: SigningKey) -> dict[str, str]:
    """Return the key for verifiers (RFC 7517, 4), with its public fields only."""
    return {"kid": key.kid, "alg": key.alg, "use": "sig", **_public_fields(key.alg, key.public_key)}


def jwks(keys: Iterable[SigningKey]) -> KeySet:
    """Return the JWK Set of the keys (RFC 7517, 5)."""
    return {"keys": [public_jwk(key) for key in keys]}


def _algorithm_of(key: PrivateKey) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if not isinstance(key.curve, ec.SECP256R1):
            raise UnreadableKey("it is not on P-256, the curve of ES256.")
        return "ES256"
    return "RS256" if isinstance(key, rsa.RSAPrivateKey) else "EdDSA"


def _public_fields(alg: str, key: PublicKey) -> dict[str, str]:
    fields: Mapping[str, Any] = jwt.get_algorithm_by_name(alg).to_jwk(key, as_dict=True)
    return {name: fields[name] for name in _THUMBPRINT_FIELDS[fields["kty"]]}


def _thumbprint(fields: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()).digest()
    return base64url.encode(digest)
