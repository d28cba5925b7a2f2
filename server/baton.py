"""Threads that compute one after the other instead of in each other's way."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PATIENCE_SECONDS = 0.02


class Baton:
    """Held by the one thread of a process that computes (`server.ports.Baton`).

    Python runs one thread at a time anyway, but lets another one in wherever a call leaves the interpreter: a
    signature, a random number, each step of the database. With sixteen threads an exchange was interrupted twenty
    times, at a third of its cost. Who waits for long hands the baton over; who keeps it all the same is overtaken
    after a moment, so that nothing ever depends on it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = 0.0
        self._mine = threading.local()

    def around(self, application: "WSGIApplication") -> "WSGIApplication":
        """The application, each request of which holds the baton."""

        def held(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            with self.hold():
                return application(environ, start_response)

        return held

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Compute in the block, as soon as nobody else does, or has done for too long."""
        self._take()
        try:
            yield
        finally:
            self.hand_over()

    def hand_over(self) -> None:
        """Let others compute; without the baton nothing happens."""
        if getattr(self._mine, "is_held", False):
            self._mine.is_held = False
            self._lock.release()

    def _take(self) -> None:
        patience = max(0.0, self._since + _PATIENCE_SECONDS - time.monotonic())
        self._mine.is_held = self._lock.acquire(blocking=False) or self._lock.acquire(timeout=patience)
        if self._mine.is_held:
            self._since = time.monotonic()
