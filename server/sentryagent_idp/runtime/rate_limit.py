"""Rate limits of this process: requests per minute for each address or repository."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from sentryagent_idp.errors import InvalidClient, RateLimited

_WINDOW_SECONDS = 60
_MAX_KEYS = 100_000
_OVERFLOW = "overflow"
_WRONG_OF_CLIENT = 10
_WRONG_OF_ADDRESS = 20
_LONGEST_CLIENT_ID = 64
"""Longer than any real client id: arbitrary text in its place must not fill the memory."""


class PerMinute:
    """Allows a number of requests per minute for each key; 0 means no limit.

    A sliding window of two counters: requests of the previous minute count in proportion to how far the last 60 seconds
    reach into it, so there is no burst at the turn of a minute. Older counts are dropped all at once: a client that
    always sends new keys costs bounded memory, and no scan over the keys. `clock` is in seconds, from any origin.
    """

    def __init__(
        self,
        requests: int,
        *,
        what: str,
        counted: str = "requests",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = requests
        self._what = what
        self._counted = counted
        self._clock = clock
        self._lock = Lock()
        self._window = 0
        self._current: dict[str, int] = {}
        self._previous: dict[str, int] = {}

    def check(self, key: str) -> None:
        """Count one request; raises `RateLimited` with the seconds until the next one is allowed."""
        self._refuse(self.count(key))

    def check_room(self, key: str) -> None:
        """Raise `RateLimited` as `check` does, but count nothing."""
        self._refuse(self.count(key, 0))

    def _refuse(self, wait: float | None) -> None:
        if wait is not None:
            raise RateLimited(
                f"Too many {self._counted} from this {self._what}; wait as Retry-After says, then try again.",
                retry_after=max(1, math.ceil(wait)),
            )

    def count(self, key: str, requests: int = 1) -> float | None:
        """Count the requests if there is room for one; otherwise return the seconds until there is."""
        if not self._requests:
            return None
        with self._lock:
            return self._count(key, requests)

    def _count(self, key: str, requests: int) -> float | None:
        window, elapsed = divmod(self._clock(), _WINDOW_SECONDS)
        self._turn_to(int(window))
        # Beyond the bound, new keys share one counter.
        if key not in self._current and len(self._current) >= _MAX_KEYS:
            key = _OVERFLOW
        before, now = self._previous.get(key, 0), self._current.get(key, 0)
        if before * (1 - elapsed / _WINDOW_SECONDS) + now < self._requests:
            if requests:
                self._current[key] = now + requests
            return None
        if now >= self._requests:
            return _WINDOW_SECONDS - elapsed
        return _WINDOW_SECONDS * (1 - (self._requests - now) / before) - elapsed

    def _turn_to(self, window: int) -> None:
        if window != self._window:
            self._previous = self._current if window == self._window + 1 else {}
            self._current = {}
            self._window = window


class WrongSecretsPerMinute:
    """Allows, in one process, 10 wrong secrets per minute for a client from one address, and 20 from that address.

    Nothing is counted for a client alone: strangers who guess its secret from other addresses could lock it out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._of_address = PerMinute(
            _WRONG_OF_ADDRESS, what="address", counted="wrong client secrets", clock=clock
        )
        self._of_client = PerMinute(
            _WRONG_OF_CLIENT, what="address", counted="wrong secrets of this client", clock=clock
        )

    @contextmanager
    def watch(self, address: str, unverified_client_id: str) -> Iterator[None]:
        """Guard a block that checks a secret: raise `RateLimited` before it, and count its `InvalidClient`."""
        client = f"{address} {unverified_client_id[:_LONGEST_CLIENT_ID].lower()}"
        self._of_address.check_room(address)
        self._of_client.check_room(client)
        try:
            yield
        except InvalidClient:
            self._of_address.count(address)
            self._of_client.count(client)
            raise
