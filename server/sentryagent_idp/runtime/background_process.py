"""A process next to the workers, for background tasks that do not need a worker's memory.

In a worker, the threads of these tasks would hold the interpreter's lock, and requests would wait for it.
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
"""The name that `ps -o comm` and `top` show; Linux allows 15 characters."""
_PAUSE_SECONDS = 1
"""The pause before a restart, and between two checks that the supervisor still runs."""
_LONGEST_PAUSE_SECONDS = 60
"""The longest pause before a restart, if the process keeps dying early: each start leaves metrics files in memory."""
_SETTLED_SECONDS = 60


@contextmanager
def running(start: Callable[[], object]) -> Iterator[None]:
    """Run a background process during the block; `start` starts the threads of its tasks.

    If the process dies, it is restarted after a second, or later if it keeps dying early. At the end it is killed, and
    a transaction under way is rolled back.
    """
    background = _Background(start)
    try:
        background.begin()
        yield
    finally:
        background.end()


class _Background:
    """The current background process, and a thread that restarts it when it dies."""

    def __init__(self, start: Callable[[], object]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._process: Process | None = None

    def begin(self) -> None:
        """Start the process, and restart it whenever it dies."""
        process = self._renew()
        threading.Thread(target=self._supervise, args=[process], name="background", daemon=True).start()

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

    def _supervise(self, process: Process | None) -> None:
        pause = _PAUSE_SECONDS
        while process:
            began = time.monotonic()
            process.join()
            if time.monotonic() - began > _SETTLED_SECONDS:
                pause = _PAUSE_SECONDS
            if not self._is_over.is_set():
                log.error("the background process died; restarting it", exitCode=process.exitcode)
            self._is_over.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            try:
                process = self._renew()
            except Exception:  # for example no memory for a fork; the next round tries again
                log.exception("the background process cannot be started")

    def _renew(self) -> Process | None:
        """Start a new process; return `None` if the block has ended."""
        with self._lock:
            if self._is_over.is_set():
                return None
            process = Process(target=_run, args=[self._start], name="background")
            process.start()
            self._process = process
            return process


def _run(start: Callable[[], object]) -> None:
    """Run the tasks until the supervisor kills this process or is itself gone."""
    # Ctrl-C in a terminal and `KillMode=control-group` signal all processes, while the workers still drain.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        with suppress(OSError):  # only people read the name
            Path("/proc/self/comm").write_text(NAME)
    start()
    while not granian_workarounds.is_supervisor_gone():
        time.sleep(_PAUSE_SECONDS)
