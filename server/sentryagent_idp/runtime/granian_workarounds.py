"""What granian 2.8.7 needs from outside; look at each piece again with a new version.

- Its supervisor ends when one worker dies twice within 5.5 s: `keep_serving` starts it again.
- A worker inherits the supervisor's handler of SIGTERM and lives on while it loads: `hear_sigterm`.
- A worker that is told to end closes each connection on which no request has arrived: `concurrency/loop.py` answers for
  a moment first.
- Workers are started by `multiprocessing`, by default without what is loaded: `share_what_is_loaded`.
"""

import gc
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog
from granian.server.common import AbstractServer

log = structlog.get_logger()

_PAUSE_SECONDS = 1
_SETTLED_SECONDS = 60
_STARTS = 5
"""Starts in a row that may end before they have settled: workers that cannot start at all must not hide it for ever."""


def share_what_is_loaded() -> None:
    """Let workers be copies of this process, and its objects stay shared with them.

    Python 3.14 by default starts a process that loads everything again. And a full garbage collection writes to every
    object: a worker would have 20 MB of copies after a while.
    """
    if sys.platform == "linux":
        multiprocessing.set_start_method("fork", force=True)
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
    try:
        server.serve(target_loader=app, wrap_loader=False)  # type: ignore[arg-type]  # a callable of an object, as RSGI has it
    except SystemExit as end:
        # Until the next start nothing is in flight, and the server that ended would keep a signal to itself.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        return server.interrupt_signal or not end.code
    return True


def hear_sigterm() -> None:
    """Let SIGTERM end this worker while it loads; the loop hears it later."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
