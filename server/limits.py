"""Counting requests in this process: so many a minute for one address or one repository."""

import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from server.errors import RateLimited

_MAX_KEYS = 100_000
_OVERFLOW = "overflow"


class PerMinute:
    """A `RateLimit` of so many requests a minute for each key; 0 switches it off.

    A sliding window of two counters: no burst at the turn of a minute, and two numbers of memory for each key.
    """

    def __init__(self, requests: int, *, what: str) -> None:
        self._item = RateLimitItemPerMinute(requests) if requests else None
        self._storage = MemoryStorage()
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)
        self._what = what

    def check(self, key: str) -> None:
        """Count one request; raises `RateLimited` with the seconds until the next is taken."""
        if self._item is None:
            return
        # Whoever comes with ever new keys must not fill our memory: beyond the bound they share one allowance.
        key = key if len(self._storage.storage) < _MAX_KEYS else _OVERFLOW
        if self._limiter.hit(self._item, key):
            return
        reset_at = self._limiter.get_window_stats(self._item, key).reset_time
        raise RateLimited(
            f"Too many requests from this {self._what}; wait as Retry-After says, then try again.",
            retry_after=max(1, math.ceil(reset_at - time.time())),
        )
