"""Workarounds for granian 2.8.7; review each one on an upgrade.

- Its supervisor ends when one worker dies twice within 5.5 s: `keep_serving` starts it again.
- A signal that arrives between two waits of the supervisor, for example the second of two, deadlocks it: `_Wakeup`.
- A worker inherits the supervisor's SIGTERM handler, and ignores the signal while it loads: `_hear_sigterm`.
- A worker does not notice that the supervisor was killed, and keeps the port: `end_without_supervisor`.
- A worker that is told to end closes each connection on which no request has arrived: `concurrency/loop.py` keeps
  answering for a moment first.
- Workers are started by `multiprocessing`, by default without the loaded modules: `share_what_is_loaded`.
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
"""Starts in a row that may end early before the provider gives up: a permanent failure must become visible."""


class _Wakeup:
    """Replaces the supervisor's `threading.Event`, which signal handlers set in the very thread that waits for it.

    If that thread holds the lock of the `Event` when the signal arrives, it would wait for itself. `SimpleQueue.put` is
    reentrant (https://docs.python.org/3/library/queue.html#queue.SimpleQueue.put).
    """

    def __init__(self) -> None:
        self._calls = SimpleQueue[None]()

    def set(self) -> None:
        """Wake the supervisor once; it then checks everything that may have happened."""
        self._calls.put(None)

    def wait(self) -> None:
        """Wait for a call of `set`; an earlier call counts, too."""
        self._calls.get()

    def clear(self) -> None:
        """Do nothing: an extra call only makes the supervisor check once more."""


def share_what_is_loaded() -> None:
    """Have workers forked from this process, and its objects stay shared with them.

    By default, Python 3.14 starts a process that loads everything again. And a full garbage collection writes to every
    object: over time, each worker would have copied 20 MB.
    """
    if sys.platform == "linux":
        multiprocessing.set_start_method("fork", force=True)
        os.register_at_fork(
            before=_hold_sigterm, after_in_parent=_release_sigterm, after_in_child=_hear_sigterm
        )
    gc.collect()
    gc.freeze()


def keep_serving(new_server: Callable[[], AbstractServer[Any]], app: Callable[[], object]) -> None:
    """Serve until SIGTERM or SIGINT; restart granian if it ends because one worker died twice within 5.5 s.

    Raises `SystemExit` with code 1 if `_STARTS` starts in a row ended within `_SETTLED_SECONDS`.
    """
    early = 0
    while True:
        began = time.monotonic()
        if _ended_by_signal(new_server(), app):
            return
        early = early + 1 if time.monotonic() - began < _SETTLED_SECONDS else 0
        if early == _STARTS:
            log.error(
                "workers keep dying; giving up: check the kernel's log for a lack of memory", starts=early
            )
            sys.exit(1)
        log.error("a worker died twice within seconds; restarting all workers")
        time.sleep(_PAUSE_SECONDS)


def _ended_by_signal(server: AbstractServer[Any], app: Callable[[], object]) -> bool:
    """Serve once; return whether a signal ended it, and not the death of its workers."""
    server.main_loop_interrupt = _Wakeup()  # type: ignore[assignment]  # it has every method that granian calls
    try:
        server.serve(target_loader=app, wrap_loader=False)  # type: ignore[arg-type]  # RSGI takes an object, too
    except SystemExit as end:
        # Nothing is in flight until the next start, and the handlers of the ended server would only swallow a signal.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        return server.interrupt_signal or not end.code
    return True


def _hold_sigterm() -> None:
    """Block SIGTERM during a fork: with the supervisor's handler, a new worker would ignore it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _hear_sigterm() -> None:
    """Let SIGTERM end this worker while it loads; later, the loop handles it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _release_sigterm()


def end_without_supervisor() -> None:
    """End this worker as SIGTERM does if its supervisor is gone, for example killed when memory ran out.

    Orphaned workers would keep the port: the replica could not start again, and nothing could stop or restart them.
    """
    if is_supervisor_gone():
        signal.raise_signal(signal.SIGTERM)


def is_supervisor_gone() -> bool:
    """Whether the process that started this one has ended; its pipe does not tell, because later children hold it open."""
    supervisor = multiprocessing.parent_process()
    return supervisor is not None and os.getppid() != supervisor.pid
