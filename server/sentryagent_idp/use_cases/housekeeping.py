"""What must go in time: used and revoked token ids that can never come back, and old audit records."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sentryagent_idp.ports import Clock, Store

_BATCH = 100
"""Rows in one delete: small, so that no exchange waits for it (federation-security B31)."""
_REST_SECONDS = 0.025
"""Between two of them, so that exchanges come to their turn: after a busy minute there are a hundred thousand rows."""


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
        # No exchange can be kept until it is committed, and what a power failure brings back is deleted again.
        with self.store.write(durable=False) as tx:
            went = [tx.used_tokens.purge(now, limit=_BATCH), tx.revoked_tokens.purge(now, limit=_BATCH)]
            if self.audit_retention_days is not None:
                oldest = now - timedelta(days=self.audit_retention_days)
                went.append(tx.seals.purge(oldest, limit=_BATCH))
        return went
