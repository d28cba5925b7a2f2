"""Client secrets: 256 random bits, shown once, stored as an Argon2id hash.

The secret of an agent's credential carries the credential's id, so that one stored hash is enough to check it. An
admin client has one hash, and its secret needs no id.
"""

import re
import secrets
from base64 import b64encode
from functools import cache, partial
from uuid import UUID

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

_PREFIX = "sk_live_"
_NAMING = re.compile(rf"{_PREFIX}([0-9a-f]{{32}})[0-9a-f]{{64}}", re.ASCII)

_hasher = partial(PasswordHasher, time_cost=2, memory_cost=19_456, parallelism=1)
"""OWASP's smallest Argon2id setting: the secrets are random, the hash only has to survive a stolen backup."""
_SALT_BYTES, _NAMING_SALT_BYTES = 16, 24
"""The length of the salt tells the hash of a secret that carries an id from the others; every version verifies both."""
_HASHER = _hasher(salt_len=_SALT_BYTES)
_NAMING_HASHER = _hasher(salt_len=_NAMING_SALT_BYTES)


def generate(credential_id: UUID | None = None) -> str:
    """A new secret: `sk_live_`, the credential's id if there is one (32 digits), 64 random digits; all hexadecimal."""
    return f"{_PREFIX}{credential_id.hex if credential_id else ''}{secrets.token_hex(32)}"


def credential_id(unverified_secret: str) -> UUID | None:
    """The id of the credential that the secret says it belongs to, or `None`."""
    found = _NAMING.fullmatch(unverified_secret)
    return UUID(found[1]) if found else None


def fingerprint(secret: str) -> str:
    """The hash to store, with its salt and parameters."""
    hasher = _HASHER if credential_id(secret) is None else _NAMING_HASHER
    return hasher.hash(secret)


def is_nameless(stored_hash: str) -> bool:
    """Whether the hash is that of a secret without a credential's id."""
    try:
        return extract_parameters(stored_hash).salt_len == _SALT_BYTES
    except InvalidHashError:
        return False


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
    salt, digest = (b64encode(secrets.token_bytes(n)).decode().rstrip("=") for n in (_SALT_BYTES, 32))
    return f"$argon2id$v=19$m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}${salt}${digest}"
