"""What must go in time: used and revoked token ids that can never come back, and old audit records."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import util

import structlog

from server.errors import DatabaseUnavailable
from server.ports import Clock, Store

log = structlog.get_logger()

_BATCH = 100
"""Rows in one delete: small, so that no exchange waits for it (federation-security B31)."""
_REST_SECONDS = 0.05
"""Between two of them, so that exchanges come to their turn: after a busy minute there are a hundred thousand rows."""

INTERVAL_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """Deletes expired rows in small batches; `audit_retention_days` of `None` keeps the audit for ever."""

    store: Store
    clock: Clock
    audit_retention_days: int | None
    rest: Callable[[float], object] = time.sleep

    def run(self) -> int:
        """Delete all that is due; returns how many rows went. Raises `DatabaseUnavailable`."""
        deleted = 0
        while True:
            went = self._batch()
            deleted += sum(went)
            if max(went) < _BATCH:
                return deleted
            self.rest(_REST_SECONDS)

    def _batch(self) -> list[int]:
        """Delete at most so many rows of each table; returns how many went of each."""
        now = self.clock()
        with self.store.write() as tx:
            went = [tx.used_tokens.purge(now, limit=_BATCH), tx.revoked_tokens.purge(now, limit=_BATCH)]
            if self.audit_retention_days is not None:
                oldest = now - timedelta(days=self.audit_retention_days)
                went.append(tx.seals.purge(oldest, limit=_BATCH))
        return went


def start(
    tasks: Sequence[Callable[[], object]],
    wait: Callable[[float], bool],
    *,
    every: float = INTERVAL_SECONDS,
    after_work: float | None = None,
) -> threading.Thread:
    """Run the tasks in the background, once in `every` seconds, until `wait` returns true (an `Event.wait`).

    Where a task says that it had something to do, the next time comes in `after_work` seconds, if that is given.
    """

    def loop() -> None:
        pause = every
        while not wait(pause):
            had_work = [_run(task) for task in tasks]
            pause = after_work if after_work is not None and any(had_work) else every

    thread = threading.Thread(target=loop, name="housekeeping", daemon=True)
    thread.start()
    return thread


def at_the_end(task: Callable[[], object]) -> None:
    """Run the task once more when this worker process ends in order, after its last request.

    Workers are children of `multiprocessing`, which leave by `os._exit`: `atexit` is not heard there.
    """
    util.Finalize(None, _finish, [task], exitpriority=0)


def _finish(task: Callable[[], object]) -> None:
    try:
        task()
    except DatabaseUnavailable as error:
        log.error("what was still to be written is lost", reason=error.message)  # noqa: TRY400 - the cause is known
    except Exception:
        log.exception("what was still to be written is lost")


def _run(task: Callable[[], object]) -> bool:
    """Whether the task had something to do, and could do it."""
    try:
        return bool(task())
    except DatabaseUnavailable as error:
        log.debug("background task put off", reason=error.message)
    except Exception:  # a thread that ended would leave its work undone for ever, and nobody would see it
        log.exception("background task failed")
    return False
