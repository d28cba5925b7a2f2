"""The life of our signing keys inside one transaction: next, active, retired, gone.

The next key is published from the beginning, so that verifiers hold it before it signs (federation-security B30).
Every function here needs `SigningKeys.lock`, or replicas that start together would each make a key.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sentryagent_idp.domain.signing_key import KeyStatus, StoredKey
from sentryagent_idp.ports import SigningKeys
from sentryagent_idp.tokens import signing_key
from sentryagent_idp.tokens.signing_key import Passphrases, SigningKey, UnreadableKey


def ensure(keys: SigningKeys, alg: str, passphrases: Passphrases, now: datetime) -> None:
    """Let a key of `alg` sign and another stand ready; an active one of another algorithm retires.

    Raises `UnreadableKey` before anything changes.
    """
    check(keys.all(), passphrases)
    for key in of(keys, KeyStatus.ACTIVE):
        if key.alg != alg:
            keys.set_status(key.kid, KeyStatus.RETIRED, retired_at=now)
    for key in of(keys, KeyStatus.NEXT):
        if key.alg != alg:
            keys.remove(key.kid)  # it never signed, so nobody misses it
    complete(keys, alg, passphrases, now)


def complete(keys: SigningKeys, alg: str, passphrases: Passphrases, now: datetime) -> None:
    """Promote the next key where none is active, and make the ones that are missing."""
    if not of(keys, KeyStatus.ACTIVE):
        ready = of(keys, KeyStatus.NEXT)
        if ready:
            keys.set_status(ready[0].kid, KeyStatus.ACTIVE, retired_at=None)
        else:
            keys.add(_fresh(alg, passphrases, KeyStatus.ACTIVE, now))
    if not of(keys, KeyStatus.NEXT):
        keys.add(_fresh(alg, passphrases, KeyStatus.NEXT, now))


def of(keys: SigningKeys, status: KeyStatus) -> Sequence[StoredKey]:
    """The keys that are in one stage of their life, oldest first."""
    return [key for key in keys.all() if key.status is status]


def stages(keys: SigningKeys) -> dict[str, Any]:
    """Which key is in which stage, for the audit."""
    return {f"{status.value}Kids": [key.kid for key in of(keys, status)] for status in KeyStatus}


def opened(stored: StoredKey, passphrases: Passphrases) -> SigningKey:
    """The key of a row. Raises `UnreadableKey`, also if the row has the id or the algorithm of another key."""
    try:
        key = signing_key.from_pem(stored.private_pem, passphrases)
    except UnreadableKey as error:
        raise UnreadableKey(f"Signing key {stored.kid}: {error}") from error
    if (key.kid, key.alg) != (stored.kid, stored.alg):
        raise UnreadableKey(
            f"Signing key {stored.kid}: its row holds another key; remove it with `sentryagent-idp keys revoke`."
        )
    return key


def check(stored: Sequence[StoredKey], passphrases: Passphrases) -> None:
    """Raise `UnreadableKey` for the first key that cannot be read or trusted."""
    for key in stored:
        opened(key, passphrases)


def is_readable(stored: StoredKey, passphrases: Passphrases) -> bool:
    """Whether the key can be read and trusted."""
    try:
        opened(stored, passphrases)
    except UnreadableKey:
        return False
    return True


def rewrap(keys: SigningKeys, passphrases: Passphrases) -> Sequence[StoredKey]:
    """Store each key again that is not under the first passphrase; returns those, as they were.

    A key in clear is trusted here, and nowhere else. Raises `UnreadableKey`.
    """
    before = [key for key in keys.all() if not is_readable(key, passphrases[:1])]
    for stored in before:
        key = opened(stored, passphrases if is_encrypted(stored) else ())
        keys.set_pem(stored.kid, signing_key.to_pem(key, passphrases))
    return before


def is_encrypted(key: StoredKey) -> bool:
    """Whether the private key is stored under a passphrase."""
    return signing_key.is_encrypted(key.private_pem)


def _fresh(alg: str, passphrases: Passphrases, status: KeyStatus, now: datetime) -> StoredKey:
    key = signing_key.generate(alg)
    return StoredKey(key.kid, alg, signing_key.to_pem(key, passphrases), status, created_at=now)
