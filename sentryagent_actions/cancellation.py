"""The wish of the runner that a step ends, which SIGINT and SIGTERM bring: it ends a wait, and nothing else.

As an exception, a signal could strike between the arrival of a token and the note that it has to be revoked. So the
handler only leaves a mark, and whoever waits looks for it: before a call, during a call, during a pause.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, Final

_MARK: Final = object()  # what a cancelled wait finds in its queue


class Cancellation:
    """Whether the step was cancelled. The first wait after it raises KeyboardInterrupt; later ones, which revoke, go on."""

    def __init__(self) -> None:
        self._requested = self._told = False
        self._queue: SimpleQueue[Any] = SimpleQueue()

    def on_signals(self) -> None:
        """Take over the process's signals. Without a handler, the first process of a container never sees SIGTERM."""
        for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # the last is what Windows has for SIGTERM
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self.request)

    def request(self, *_: object) -> None:
        """Cancel; may interrupt any other code of the process."""
        self._requested = True
        self._queue.put(_MARK)

    def receive(self, queue: SimpleQueue[Any], seconds: float) -> Any:
        """Return what comes into `queue`. Raises Empty after `seconds`, KeyboardInterrupt where the step is cancelled."""
        self._queue = queue
        self.check()
        found = queue.get(timeout=seconds)
        if found is not _MARK:
            return found
        self.check()
        return self.receive(queue, seconds)

    def check(self) -> None:
        """Raise KeyboardInterrupt where the step is cancelled and nobody was told yet."""
        if self._requested and not self._told:
            self._told = True
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing end what must be done however the step ends; the first wait after it raises instead."""
        told, self._told = self._told, True
        try:
            yield
        finally:
            self._told = told

    def sleep(self, seconds: float) -> None:
        """Let time pass. Raises KeyboardInterrupt where the step is cancelled."""
        try:
            self.receive(SimpleQueue(), seconds)
        except Empty:
            return
