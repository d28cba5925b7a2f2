"""Client secrets: 256 random bits, shown once, stored as an Argon2id hash.

The salt of a stored hash begins with a digest of its secret. So of several stored hashes the one that a secret can
match is known before any of them is computed.
"""

import hashlib
import secrets
from base64 import b64decode, b64encode
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_PREFIX = "sk_live_"
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
"""OWASP's smallest Argon2id setting: the secrets are random, the hash only has to survive a stolen backup."""
_DIGEST_BYTES = 8
"""Of 256 random bits; who has the stored hash learns nothing from them that they could not guess faster."""
_RANDOM_SALT_BYTES = 16
"""The whole salt of hashes that were stored before salts had a digest."""


def generate() -> str:
    """A new secret: `sk_live_` and 64 hexadecimal digits."""
    return f"{_PREFIX}{secrets.token_hex(32)}"


def fingerprint(secret: str) -> str:
    """The hash to store, with its salt and parameters."""
    return _HASHER.hash(secret, salt=_digest(secret) + secrets.token_bytes(_RANDOM_SALT_BYTES))


def is_of(stored_hash: str, unverified_secret: str) -> bool:
    """Whether the stored hash can be that of the secret, by the digest in its salt; computes no hash."""
    salt = _salt(stored_hash)
    return len(salt) > _RANDOM_SALT_BYTES and salt.startswith(_digest(unverified_secret))


def has_digest(stored_hash: str) -> bool:
    """Whether the hash was stored with a digest in its salt."""
    return len(_salt(stored_hash)) > _RANDOM_SALT_BYTES


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()[:_DIGEST_BYTES]


def _salt(stored_hash: str) -> bytes:
    """The salt in the hash's text form, `$argon2id$v=…$m=…,t=…,p=…$SALT$HASH`."""
    try:
        salt = stored_hash.split("$")[4]
        return b64decode(salt + "=" * (-len(salt) % 4), validate=True)
    except (IndexError, ValueError):
        return b""


def matches(stored_hash: str, unverified_secret: str) -> bool:
    """Whether the secret is the one that was hashed; takes the same time for a wrong one."""
    try:
        return _HASHER.verify(stored_hash, unverified_secret)
    except (VerificationError, InvalidHashError):
        return False


@cache
def decoy() -> str:
    """A hash that no secret matches: checked where there is none to check, so that this takes no less time (B21).

    It is random instead of computed: the first to meet it would else wait for two hashes.
    """
    salt, digest = (
        b64encode(secrets.token_bytes(n)).decode().rstrip("=")
        for n in (_DIGEST_BYTES + _RANDOM_SALT_BYTES, 32)
    )
    return f"$argon2id$v=19$m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}${salt}${digest}"
