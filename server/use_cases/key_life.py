"""The life of our signing keys inside one transaction: next, active, retired, gone.

The next key is published from the beginning, so that verifiers hold it before it signs (federation-security B30).
Every function here needs `SigningKeys.lock`, or replicas that start together would each make a key.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from server.ports import KeyStatus, SigningKeys, StoredKey
from server.tokens import signing_keys


def ensure(keys: SigningKeys, alg: str, passphrase: str | None, now: datetime) -> None:
    """Let a key of `alg` sign and another stand ready; an active one of another algorithm retires.

    Keys that lie in clear are encrypted where there is a passphrase. Raises `UnreadableKey`.
    """
    _encrypt(keys, passphrase)
    for key in of(keys, KeyStatus.ACTIVE):
        if key.alg != alg:
            keys.set_status(key.kid, KeyStatus.RETIRED, retired_at=now)
    for key in of(keys, KeyStatus.NEXT):
        if key.alg != alg:
            keys.remove(key.kid)  # it never signed, so nobody misses it
    complete(keys, alg, passphrase, now)


def complete(keys: SigningKeys, alg: str, passphrase: str | None, now: datetime) -> None:
    """Promote the next key where none is active, and make the ones that are missing."""
    if not of(keys, KeyStatus.ACTIVE):
        ready = of(keys, KeyStatus.NEXT)
        if ready:
            keys.set_status(ready[0].kid, KeyStatus.ACTIVE, retired_at=None)
        else:
            keys.add(_fresh(alg, passphrase, KeyStatus.ACTIVE, now))
    if not of(keys, KeyStatus.NEXT):
        keys.add(_fresh(alg, passphrase, KeyStatus.NEXT, now))


def of(keys: SigningKeys, status: KeyStatus) -> Sequence[StoredKey]:
    """The keys that are in one stage of their life, oldest first."""
    return [key for key in keys.all() if key.status is status]


def stages(keys: SigningKeys) -> dict[str, Any]:
    """Which key is in which stage, for the audit."""
    return {f"{status.value}Kids": [key.kid for key in of(keys, status)] for status in KeyStatus}


def is_encrypted(key: StoredKey) -> bool:
    """Whether the private key is stored under a passphrase."""
    return signing_keys.is_encrypted(key.private_pem)


def _encrypt(keys: SigningKeys, passphrase: str | None) -> None:
    """Read every key, so that a wrong passphrase shows now; what lies in clear is stored anew under a passphrase."""
    for stored in keys.all():
        key = signing_keys.from_pem(stored.private_pem, passphrase)
        if passphrase and not is_encrypted(stored):
            keys.set_pem(stored.kid, signing_keys.to_pem(key, passphrase))


def _fresh(alg: str, passphrase: str | None, status: KeyStatus, now: datetime) -> StoredKey:
    key = signing_keys.generate(alg)
    return StoredKey(key.kid, alg, signing_keys.to_pem(key, passphrase), status, created_at=now)
