"""Argon2 hashing of client secrets: two at a time, because each takes 19 MiB and strangers can trigger them.

A secret that matched once is recognised without hashing, because a service sends its secret with every introspection.
"""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Semaphore
from typing import TypeVar

from sentryagent_idp.errors import RateLimited
from sentryagent_idp.tokens import client_secret

Result = TypeVar("Result")

_AT_A_TIME = 2
_WAITING = 8
"""More waiting requests would take the threads that other requests need (`sentryagent_idp.serve` has 16)."""
_PATIENCE_SECONDS = 2.0
_MOST_KNOWN = 1000


@dataclass(frozen=True, slots=True)
class SecretHashing:
    """Computes and checks hashes of client secrets, for one process.

    Both methods raise `RateLimited` if too many requests are already waiting, or the hash takes too long.
    """

    # Separate threads: the C library keeps the memory of a hash for each thread that ever computed one.
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="secret-hash")
    )
    _line: Semaphore = field(default_factory=lambda: Semaphore(_AT_A_TIME + _WAITING))
    # The digests of secrets by stored hash. A secret has 256 random bits, so nobody can find it from its digest. A wrong
    # secret still costs a hash, and a rotated secret has another stored hash.
    _known: dict[str, bytes] = field(default_factory=dict, repr=False)

    def hash_secret(self, secret: str) -> str:
        """Hash a secret for storage."""
        return self._run(lambda: client_secret.hash_secret(secret))

    def matches_any(self, stored_hashes: Sequence[str], unverified_secret: str) -> bool:
        """Whether the secret matches one of the hashes."""
        digest = hashlib.sha256(unverified_secret.encode()).digest()
        if any(hmac.compare_digest(self._known.get(stored, b""), digest) for stored in stored_hashes):
            return True
        right = self._run(
            lambda: next((it for it in stored_hashes if client_secret.matches(it, unverified_secret)), None)
        )
        if right is None:
            return False
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[right] = digest
        return True

    def _run(self, work: Callable[[], Result]) -> Result:
        if not self._line.acquire(blocking=False):
            raise _busy()
        try:
            future = self._pool.submit(work)
            return future.result(timeout=_PATIENCE_SECONDS)
        except TimeoutError as error:
            future.cancel()
            raise _busy() from error
        finally:
            self._line.release()


def _busy() -> RateLimited:
    return RateLimited("Too many client secrets are being checked; wait, then try again.", retry_after=2)
