"""What granian 2.8.7 needs from outside; look at each piece again with a new version.

- Its supervisor ends when one worker dies twice within 5.5 s: `keep_serving` starts it again.
- A signal that finds the supervisor between two of its waits, such as the second of two, stops it for ever: `_Wakeup`.
- A worker inherits the supervisor's handler of SIGTERM and lives on while it loads: `_hear_sigterm`.
- A worker does not notice that the supervisor was killed, and keeps the port: `end_without_supervisor`.
- A worker that is told to end closes each connection on which no request has arrived: `concurrency/loop.py` answers for
  a moment first.
- Workers are started by `multiprocessing`, by default without what is loaded: `share_what_is_loaded`.
"""

import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import structlog
from granian.server.common import AbstractServer

log = structlog.get_logger()

_PAUSE_SECONDS = 1
_SETTLED_SECONDS = 60
_STARTS = 5
"""Starts in a row that may end before they have settled: workers that cannot start at all must not hide it for ever."""


class _Wakeup:
    """The supervisor's `threading.Event`, which its signal handlers set: they run in the thread that waits.

    An `Event` has a lock that this thread may hold at that moment, and would then wait for itself. `SimpleQueue.put` may
    be called there (https://docs.python.org/3/library/queue.html#queue.SimpleQueue.put).
    """

    def __init__(self) -> None:
        self._calls = SimpleQueue[None]()

    def set(self) -> None:
        """Wake the supervisor once; it then looks at everything that may have happened."""
        self._calls.put(None)

    def wait(self) -> None:
        """Wait for a call, also one that came before."""
        self._calls.get()

    def clear(self) -> None:
        """Do nothing: a call more makes the supervisor look once more."""


def share_what_is_loaded() -> None:
    """Let workers be copies of this process, and its objects stay shared with them.

    Python 3.14 by default starts a process that loads everything again. And a full garbage collection writes to every
    object: a worker would have 20 MB of copies after a while.
    """
    if sys.platform == "linux":
        multiprocessing.set_start_method("fork", force=True)
        os.register_at_fork(
            before=_hold_sigterm, after_in_parent=_release_sigterm, after_in_child=_hear_sigterm
        )
    gc.collect()
    gc.freeze()


def keep_serving(new_server: Callable[[], AbstractServer[Any]], app: Callable[[], object]) -> None:
    """Serve until SIGTERM or SIGINT, also where granian ends by itself: when one worker dies twice within 5.5 s.

    Raises `SystemExit` with code 1 where `_STARTS` starts in a row ended before they had settled.
    """
    early = 0
    while True:
        began = time.monotonic()
        if _ended_by_signal(new_server(), app):
            return
        early = early + 1 if time.monotonic() - began < _SETTLED_SECONDS else 0
        if early == _STARTS:
            log.error(
                "workers keep dying, giving up; the kernel's log says whether memory ran out", starts=early
            )
            sys.exit(1)
        log.error("a worker died twice within seconds; starting all of them again")
        time.sleep(_PAUSE_SECONDS)


def _ended_by_signal(server: AbstractServer[Any], app: Callable[[], object]) -> bool:
    """Serve once, and say whether a signal ended it and not the death of its workers."""
    server.main_loop_interrupt = _Wakeup()  # type: ignore[assignment]  # it has all that granian calls
    try:
        server.serve(target_loader=app, wrap_loader=False)  # type: ignore[arg-type]  # a callable of an object, as RSGI has it
    except SystemExit as end:
        # Until the next start nothing is in flight, and the server that ended would keep a signal to itself.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        return server.interrupt_signal or not end.code
    return True


def _hold_sigterm() -> None:
    """Let SIGTERM wait during a fork: with the supervisor's handler, a new worker would ignore it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _hear_sigterm() -> None:
    """Let SIGTERM end this worker while it loads; the loop hears it later."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _release_sigterm()


def end_without_supervisor() -> None:
    """End this worker as SIGTERM does if its supervisor is gone, such as killed when memory ran out.

    Workers that stay would keep the port: the replica could not start again, and nothing could stop or restart them.
    """
    if is_supervisor_gone():
        signal.raise_signal(signal.SIGTERM)


def is_supervisor_gone() -> bool:
    """Whether the process that started this one has ended. Its pipe would not tell: later children have it open too."""
    supervisor = multiprocessing.parent_process()
    return supervisor is not None and os.getppid() != supervisor.pid
