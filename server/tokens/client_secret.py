"""Client secrets: 256 random bits, shown once, stored as an Argon2id hash."""

import secrets
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_PREFIX = "sk_live_"
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
"""OWASP's smallest Argon2id setting: the secrets are random, the hash only has to survive a stolen backup."""


def generate() -> str:
    """A new secret: `sk_live_` and 64 hexadecimal digits."""
    return _PREFIX + secrets.token_hex(32)


def fingerprint(secret: str) -> str:
    """The hash to store, with its salt and parameters."""
    return _HASHER.hash(secret)


def matches(stored_hash: str, unverified_secret: str) -> bool:
    """Whether the secret is the one that was hashed; takes the same time for a wrong one."""
    try:
        return _HASHER.verify(stored_hash, unverified_secret)
    except (VerificationError, InvalidHashError):
        return False


@cache
def decoy() -> str:
    """A hash that no secret matches: checked where there is no client, so that its absence takes no less time (B21)."""
    return fingerprint(generate())
