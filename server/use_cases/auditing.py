"""Writing and reading the audit: the one place that makes records."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from server.domain import audit_chain
from server.domain.audit import Action, AuditRecord, Outcome, RequestContext
from server.domain.audit_chain import GENESIS
from server.ports import AuditFilter, Clock, NewId, Page, Store, Transaction

SEAL_BATCH = 100
"""Records sealed in one transaction: few, since SQLite lets nobody else write meanwhile."""

_GAPS_STAY = timedelta(minutes=10)
"""Far longer than the database lets a transaction of ours stay open (30 s without a statement, 3.5 s for each)."""


@dataclass(frozen=True, slots=True)
class Auditor:
    """Appends records to the transaction of what they record: no change without its record, and none without its change."""

    clock: Clock
    new_id: NewId

    def success(
        self, tx: Transaction, context: RequestContext, action: Action, actor: str, **about: Any
    ) -> None:
        """Record that `actor` did `action`; `about` holds the other members of `AuditRecord`."""
        tx.audit.append(self.record(context, action, Outcome.SUCCESS, actor, **about))

    def failure(
        self, tx: Transaction, context: RequestContext, action: Action, actor: str, **about: Any
    ) -> None:
        """Record that `actor` was refused `action`."""
        tx.audit.append(self.record(context, action, Outcome.FAILURE, actor, **about))

    def record(
        self, context: RequestContext, action: Action, outcome: Outcome, actor: str, **about: Any
    ) -> AuditRecord:
        """A record of this moment, not yet written."""
        return AuditRecord(
            event_id=self.new_id(),
            timestamp=self.clock(),
            action=action,
            outcome=outcome,
            actor=actor,
            request_id=context.request_id,
            address=context.address,
            **about,
        )


@dataclass(frozen=True, slots=True)
class AuditReader:
    """The audit as its readers see it."""

    store: Store

    def page(self, wanted: AuditFilter, *, page: int, limit: int) -> Page[AuditRecord]:
        """One page, newest first; raises `DatabaseUnavailable`."""
        with self.store.read() as tx:
            return tx.audit.page(wanted, page=page, limit=limit)


def seal(tx: Transaction, now: datetime) -> int:
    """Chain the next records, at most `SEAL_BATCH`, for the one who seals in this transaction; returns how many."""
    records = tx.seals.unsealed(limit=SEAL_BATCH)
    if records:
        head = tx.seals.head()
        seals = audit_chain.chain(head or GENESIS, records)
        tx.seals.append(seals if head else [GENESIS, *seals], now)
        tx.seals.close_gaps(now - _GAPS_STAY)
    return len(records)
