"""Counting requests in this process: so many a minute for one address or one repository."""

import math
import time
from collections.abc import Callable
from threading import Lock

from server.errors import RateLimited

_WINDOW_SECONDS = 60
_MAX_KEYS = 100_000
_OVERFLOW = "overflow"


class PerMinute:
    """A `RateLimit` of so many requests a minute for each key; 0 switches it off.

    A sliding window of two counters: what came in the minute before counts as far as the last sixty seconds reach into
    it, so there is no burst at the turn of a minute. Older counts are dropped all at once: whoever comes with ever new
    keys costs a bounded memory, and no look at each of them in time. `clock` is in seconds, from any beginning.
    """

    def __init__(self, requests: int, *, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._requests = requests
        self._what = what
        self._clock = clock
        self._lock = Lock()
        self._window = 0
        self._current: dict[str, int] = {}
        self._previous: dict[str, int] = {}

    def check(self, key: str) -> None:
        """Count one request; raises `RateLimited` with the seconds until the next is taken."""
        if not self._requests:
            return
        with self._lock:
            wait = self._count(key)
        if wait is not None:
            raise RateLimited(
                f"Too many requests from this {self._what}; wait as Retry-After says, then try again.",
                retry_after=max(1, math.ceil(wait)),
            )

    def _count(self, key: str) -> float | None:
        """Count one request, or say after how many seconds there is room for it."""
        window, elapsed = divmod(self._clock(), _WINDOW_SECONDS)
        self._turn_to(int(window))
        # Beyond the bound new keys share one allowance.
        if key not in self._current and len(self._current) >= _MAX_KEYS:
            key = _OVERFLOW
        before, now = self._previous.get(key, 0), self._current.get(key, 0)
        if before * (1 - elapsed / _WINDOW_SECONDS) + now < self._requests:
            self._current[key] = now + 1
            return None
        if now >= self._requests:
            return _WINDOW_SECONDS - elapsed
        return _WINDOW_SECONDS * (1 - (self._requests - now) / before) - elapsed

    def _turn_to(self, window: int) -> None:
        if window != self._window:
            self._previous = self._current if window == self._window + 1 else {}
            self._current = {}
            self._window = window
