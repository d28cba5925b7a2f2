"""Argon2 hashes of client secrets: two at a time, since each takes 19 MiB and strangers can ask for them."""

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
"""More would take the threads that other requests need (`sentryagent_idp.serve` has 16)."""
_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class SecretHashing:
    """Makes and checks the hashes of client secrets, for one process.

    Both methods raise `RateLimited` where too many wait already, or the hash was not there in time.
    """

    # Threads of their own: the C library keeps the memory of a hash for each thread that ever made one.
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="secret-hash")
    )
    _line: Semaphore = field(default_factory=lambda: Semaphore(_AT_A_TIME + _WAITING))

    def fingerprint(self, secret: str) -> str:
        """The hash to store."""
        return self._run(lambda: client_secret.fingerprint(secret))

    def matches_any(self, stored_hashes: Sequence[str], unverified_secret: str) -> bool:
        """Whether the secret is that of one of the hashes."""
        return self._run(
            lambda: any(client_secret.matches(stored, unverified_secret) for stored in stored_hashes)
        )

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
