"""Cancellation of a step by SIGINT or SIGTERM: it interrupts waits and nothing else.

An exception raised by a signal could strike between receiving a token and saving it for revocation. So the handler
only sets a flag, which is checked before a call, during a call and during a pause.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, Final

_MARK: Final = object()  # put into the queue of a wait to end it


class Cancellation:
    """The step's cancellation: the first wait after it raises KeyboardInterrupt; later waits, for revocation, go on."""

    def __init__(self) -> None:
        self._requested = self._raised = False
        self._queue: SimpleQueue[Any] = SimpleQueue()

    def on_signals(self) -> None:
        """Handle the process's signals. Without a handler, the first process of a container never receives SIGTERM."""
        for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # SIGBREAK is the Windows counterpart of SIGTERM
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self.request)

    def request(self, *_: object) -> None:
        """Cancel the step; as a signal handler, this can run between any two instructions."""
        self._requested = True
        self._queue.put(_MARK)

    def receive(self, queue: SimpleQueue[Any], seconds: float) -> Any:
        """Return the next item of `queue`. Raises Empty after `seconds`, KeyboardInterrupt if the step is cancelled."""
        self._queue = queue
        self.check()
        found = queue.get(timeout=seconds)
        if found is not _MARK:
            return found
        self.check()
        return self.receive(queue, seconds)

    def check(self) -> None:
        """Raise KeyboardInterrupt if the step is cancelled and this has not been raised before."""
        if self._requested and not self._raised:
            self._raised = True
            raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer the cancellation during work that must be completed; the first wait afterwards raises it."""
        was_raised, self._raised = self._raised, True
        try:
            yield
        finally:
            self._raised = was_raised

    def sleep(self, seconds: float) -> None:
        """Sleep. Raises KeyboardInterrupt if the step is cancelled."""
        try:
            self.receive(SimpleQueue(), seconds)
        except Empty:
            return
