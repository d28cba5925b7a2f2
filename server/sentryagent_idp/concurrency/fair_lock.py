"""Whose turn it is: a lock that threads get in the order in which they came."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from sqlalchemy.exc import TimeoutError as WaitTimeout


class Turns:
    """A first come, first served lock with a bound on waiting.

    `threading.Lock` lets a busy thread overtake: under load the unlucky one would wait until its bound.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._mutex = Lock()
        self._waiting: deque[Lock] = deque()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for this thread's turn and keep it for the block.

        Raises SQLAlchemy's `TimeoutError`, as a pool does, where the turn does not come within the bound.
        """
        mine = self._enter()
        try:
            if not mine.acquire(timeout=self._seconds):
                raise WaitTimeout(f"no turn to write within {self._seconds} s")
            yield
        finally:
            self._leave(mine)

    def _enter(self) -> Lock:
        """Queue up; the lock that is returned opens when the turn comes."""
        mine = Lock()
        mine.acquire()
        with self._mutex:
            self._waiting.append(mine)
            if len(self._waiting) == 1:
                mine.release()
        return mine

    def _leave(self, mine: Lock) -> None:
        """Give the turn on, also where it came too late; who gave up while others were first just goes."""
        with self._mutex:
            was_first = self._waiting[0] is mine
            self._waiting.remove(mine)
            if was_first and self._waiting:
                self._waiting[0].release()
