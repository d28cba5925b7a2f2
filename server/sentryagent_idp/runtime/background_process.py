"""One process next to the workers for what needs nothing of their memory.

In a worker its threads would hold the interpreter's lock, and requests would wait for it.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Process
from pathlib import Path

import structlog

from sentryagent_idp.runtime import granian_workarounds

log = structlog.get_logger()

NAME = "sentryagent-bg"
"""As `ps -o comm` and `top` show it; Linux takes 15 characters."""
_PAUSE_SECONDS = 1
"""Before it is started again, and between two looks at whether the supervisor is still there."""
_LONGEST_PAUSE_SECONDS = 60
"""Before the next start of a process that dies early each time: each leaves files of metrics, which lie in memory."""
_SETTLED_SECONDS = 60


@contextmanager
def running(start: Callable[[], object]) -> Iterator[None]:
    """Keep a process for background tasks, whose threads `start` starts; end it with the block.

    If it dies, it is started again after a second, or later if it died early several times. It is killed at the end: a transaction under way is rolled back.
    """
    background = _Background(start)
    try:
        background.begin()
        yield
    finally:
        background.end()


class _Background:
    """The process that runs at the moment, and a thread that waits for its death."""

    def __init__(self, start: Callable[[], object]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._process: Process | None = None

    def begin(self) -> None:
        """Start the process, and from now on again whenever it dies."""
        process = self._renew()
        threading.Thread(target=self._keep, args=[process], name="background", daemon=True).start()

    def end(self) -> None:
        """Kill the process."""
        # A signal must not interrupt this: the interpreter waits for its children before it exits.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        with self._lock:
            self._is_over.set()
            if self._process:
                self._process.kill()
                self._process.join()

    def _keep(self, process: Process | None) -> None:
        pause = _PAUSE_SECONDS
        while process:
            began = time.monotonic()
            process.join()
            if time.monotonic() - began > _SETTLED_SECONDS:
                pause = _PAUSE_SECONDS
            if not self._is_over.is_set():
                log.error("the background process died; starting it again", exitCode=process.exitcode)
            self._is_over.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            try:
                process = self._renew()
            except Exception:  # no memory for a fork: the next round tries again
                log.exception("the background process cannot be started")

    def _renew(self) -> Process | None:
        """A new process; none if the block has ended."""
        with self._lock:
            if self._is_over.is_set():
                return None
            process = Process(target=_run, args=[self._start], name="background")
            process.start()
            self._process = process
            return process


def _run(start: Callable[[], object]) -> None:
    """Run the tasks until the supervisor kills this process, or is gone itself."""
    # A terminal's Ctrl-C and `KillMode=control-group` reach the whole group, and workers still drain then.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        with suppress(OSError):  # the name is for people only
            Path("/proc/self/comm").write_text(NAME)
    start()
    while not granian_workarounds.is_supervisor_gone():
        time.sleep(_PAUSE_SECONDS)
