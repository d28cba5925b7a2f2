"""What must go in time: used and revoked token ids that can never come back, and old audit records."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from server.errors import DatabaseUnavailable
from server.ports import Clock, Store

log = structlog.get_logger()

_BATCH = 500
"""Rows in one delete: small, so that no exchange waits for it (federation-security B31)."""

INTERVAL_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """Deletes expired rows in small batches; `audit_retention_days` of `None` keeps the audit for ever."""

    store: Store
    clock: Clock
    audit_retention_days: int | None

    def run(self) -> int:
        """Delete all that is due; returns how many rows went. Raises `DatabaseUnavailable`."""
        deleted, went = 0, [_BATCH]
        while max(went) >= _BATCH:
            went = self._batch()
            deleted += sum(went)
        return deleted

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
    tasks: Sequence[Callable[[], object]], wait: Callable[[float], bool], *, every: float = INTERVAL_SECONDS
) -> threading.Thread:
    """Run the tasks in the background, once in `every` seconds, until `wait` returns true (an `Event.wait`)."""

    def loop() -> None:
        while not wait(every):
            for task in tasks:
                _run(task)

    thread = threading.Thread(target=loop, name="housekeeping", daemon=True)
    thread.start()
    return thread


def _run(task: Callable[[], object]) -> None:
    try:
        task()
    except DatabaseUnavailable as error:
        log.debug("background task put off", reason=error.message)
    except Exception:  # a thread that ended would leave its work undone for ever, and nobody would see it
        log.exception("background task failed")
