"""Threads that compute one after the other instead of in each other's way."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock, local
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PATIENCE_SECONDS = 0.02
"""How long one thread may hold the baton before others go on without it."""
_NAP_SECONDS = 0.005
"""How often a thread that sleeps at least looks."""


class Baton:
    """Held by the one thread of a process that computes.

    Python runs one thread at a time anyway, but lets another one in wherever a call leaves the interpreter: a
    signature, a random number, each step of the database. With sixteen threads an exchange was interrupted twenty
    times, at a third of its cost. Here the others sleep, and whoever is done wakes the one that is next.
    Who keeps the baton while it waits for something else is overtaken after a moment: nothing ever depends on it.
    """

    def __init__(self) -> None:
        self._guard = Lock()
        self._is_taken = False
        self._taken_at = 0.0
        self._line: deque[Lock] = deque()
        self._mine = local()

    def around(self, application: "WSGIApplication") -> "WSGIApplication":
        """The application, each request of which holds the baton until its answer is whole."""

        def held(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            with self.hold():
                return _whole(application(environ, start_response))

        return held

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Compute in the block, as soon as nobody else does, or has done for too long."""
        self.step_back()
        try:
            yield
        finally:
            self._hand_over()

    def step_back(self) -> None:
        """Let all who wait at this moment compute first."""
        turn = self.turn()
        with self._guard:
            self._line.append(turn)
            self._pass_on_if_free()
        self.wait(turn)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let others compute during the block, which waits for something else or needs no interpreter."""
        was_mine = self._is_mine()
        self._hand_over()
        try:
            yield
        finally:
            if was_mine:
                self.step_back()

    def turn(self) -> Lock:
        """A turn of one thread, which comes after it was called."""
        turn = Lock()
        turn.acquire()
        return turn

    def call(self, turn: Lock) -> None:
        """Make a turn the next one."""
        with self._guard:
            self._line.appendleft(turn)
            self._pass_on_if_free()

    def wait(self, turn: Lock) -> None:
        """Let others compute until the turn has come, or is overdue."""
        self._hand_over()
        while not turn.acquire(timeout=max(_NAP_SECONDS, self._remaining())):
            if self._may_overtake(turn):
                return
        self._mine.is_held = True

    def _hand_over(self) -> None:
        if self._is_mine():
            self._mine.is_held = False
            with self._guard:
                self._is_taken = False
                self._pass_on_if_free()

    def _is_mine(self) -> bool:
        return getattr(self._mine, "is_held", False)

    def _pass_on_if_free(self) -> None:
        if self._line and not self._is_taken:
            self._is_taken = True
            self._taken_at = time.monotonic()
            self._line.popleft().release()

    def _remaining(self) -> float:
        """The seconds until the one that computes is overdue."""
        return self._taken_at + _PATIENCE_SECONDS - time.monotonic()

    def _may_overtake(self, turn: Lock) -> bool:
        """Whether the turn, taken out of the line, need not come: it was called, and the one that computes is overdue."""
        with self._guard:
            if turn not in self._line or self._remaining() > 0:
                return False
            self._line.remove(turn)
            return True


def _whole(answer: Iterable[bytes]) -> list[bytes]:
    """All parts of an answer, which is closed (PEP 3333): of a list, a server need not fetch one after the other."""
    try:
        return list(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
