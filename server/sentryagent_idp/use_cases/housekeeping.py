"""Delete expired rows: the ids of used and revoked tokens that have expired since, and old audit records."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sentryagent_idp.ports import Clock, Store

_BATCH = 100
"""Rows per delete: few, so that no exchange has to wait for it (B31)."""
_REST_SECONDS = 0.025
"""The pause between two deletes, so that exchanges get their turn: a busy minute leaves a hundred thousand rows."""


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """Deletes expired rows in small batches; if `audit_retention_days` is `None`, the audit is kept forever."""

    store: Store
    clock: Clock
    audit_retention_days: int | None
    rest: Callable[[float], object] = time.sleep

    def run(self) -> int:
        """Delete all expired rows; returns how many. Raises `DatabaseUnavailable`."""
        total = 0
        while True:
            deleted = self._batch()
            total += sum(deleted)
            if max(deleted) < _BATCH:
                return total
            self.rest(_REST_SECONDS)

    def _batch(self) -> list[int]:
        """Delete at most `_BATCH` rows of each table; returns the number deleted from each."""
        now = self.clock()
        # Not durable: exchanges must wait for this commit, and rows that a power failure restores are deleted again.
        with self.store.write(durable=False) as tx:
            deleted = [tx.used_tokens.purge(now, limit=_BATCH), tx.revoked_tokens.purge(now, limit=_BATCH)]
            if self.audit_retention_days is not None:
                oldest = now - timedelta(days=self.audit_retention_days)
                deleted.append(tx.seals.purge(oldest, limit=_BATCH))
        return deleted
