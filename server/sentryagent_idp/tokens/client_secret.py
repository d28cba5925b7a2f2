"""Client secrets: 256 random bits, shown once, stored as an Argon2id hash.

The salt of a stored hash begins with a digest of its secret. Therefore, among several stored hashes, the one that a
secret can match is known before any hash is computed.
"""

import hashlib
import secrets
from base64 import b64decode, b64encode
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_PREFIX = "sk_live_"
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
"""OWASP's smallest Argon2id setting: the secrets are random, so the hash only has to withstand a stolen backup."""
_DIGEST_BYTES = 8
"""Of a secret with 256 random bits, so that the digest does not help an attacker who has the stored hash."""
_RANDOM_SALT_BYTES = 16
"""Older hashes, without a digest, have only this part as their salt."""


def generate() -> str:
    """Return a new secret: `sk_live_` and 64 hexadecimal digits."""
    return f"{_PREFIX}{secrets.token_hex(32)}"


def hash_secret(secret: str) -> str:
    """Return the hash to store, with its salt and parameters."""
    return _HASHER.hash(secret, salt=_digest(secret) + secrets.token_bytes(_RANDOM_SALT_BYTES))


def has_digest_of(stored_hash: str, unverified_secret: str) -> bool:
    """Return whether the digest in the stored hash's salt is that of the secret; does not compute Argon2."""
    salt = _salt(stored_hash)
    return len(salt) > _RANDOM_SALT_BYTES and salt.startswith(_digest(unverified_secret))


def has_digest(stored_hash: str) -> bool:
    """Return whether the salt of the stored hash contains a digest."""
    return len(_salt(stored_hash)) > _RANDOM_SALT_BYTES


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()[:_DIGEST_BYTES]


def _salt(stored_hash: str) -> bytes:
    """Return the salt from the hash's text form, `$argon2id$v=…$m=…,t=…,p=…$SALT$HASH`."""
    try:
        salt = stored_hash.split("$")[4]
        return b64decode(salt + "=" * (-len(salt) % 4), validate=True)
    except (IndexError, ValueError):
        return b""


def matches(stored_hash: str, unverified_secret: str) -> bool:
    """Return whether the secret is the one that was hashed; takes the same time for a wrong secret."""
    try:
        return _HASHER.verify(stored_hash, unverified_secret)
    except (VerificationError, InvalidHashError):
        return False


@cache
def decoy() -> str:
    """Return a hash that no secret matches, to check when there is no stored hash, so that this takes as long (B21).

    It is random instead of computed: otherwise the first request to need it would wait for two hashes.
    """
    salt, digest = (
        b64encode(secrets.token_bytes(n)).decode().rstrip("=")
        for n in (_DIGEST_BYTES + _RANDOM_SALT_BYTES, 32)
    )
    return f"$argon2id$v=19$m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}${salt}${digest}"
