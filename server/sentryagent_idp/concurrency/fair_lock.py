"""A fair lock: threads get it in the order in which they asked for it."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from sqlalchemy.exc import TimeoutError as WaitTimeout


class FairLock:
    """A first-come, first-served lock with a timeout.

    `threading.Lock` lets a busy thread overtake others: under load, an unlucky thread would wait until its timeout.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._mutex = Lock()
        self._waiting: deque[Lock] = deque()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for this thread's turn, and hold the lock for the block.

        Raises SQLAlchemy's `TimeoutError`, as a connection pool does, if the turn does not come in time.
        """
        mine = self._join()
        try:
            if not mine.acquire(timeout=self._seconds):
                raise WaitTimeout(f"other writers held the lock for {self._seconds} s")
            yield
        finally:
            self._leave(mine)

    def _join(self) -> Lock:
        """Join the queue; the returned lock is released when this thread's turn comes."""
        mine = Lock()
        mine.acquire()
        with self._mutex:
            self._waiting.append(mine)
            if len(self._waiting) == 1:
                mine.release()
        return mine

    def _leave(self, mine: Lock) -> None:
        """Leave the queue; pass the turn on if this thread had it, even if it came after the timeout."""
        with self._mutex:
            was_first = self._waiting[0] is mine
            self._waiting.remove(mine)
            if was_first and self._waiting:
                self._waiting[0].release()
