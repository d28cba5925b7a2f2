"""Writing and reading the audit: the one place that makes records."""

from dataclasses import dataclass
from typing import Any

from sentryagent_idp.domain.audit import Action, AuditFilter, AuditRecord, Outcome, RequestContext
from sentryagent_idp.domain.records import Page
from sentryagent_idp.ports import Clock, NewId, Store, Transaction


@dataclass(frozen=True, slots=True)
class Auditor:
    """Appends records to the transaction of what they record: no change without its record, and none without its change."""

    clock: Clock
    new_id: NewId

    def success(
        self, tx: Transaction, context: RequestContext, action: Action, actor: str, **about: Any
    ) -> None:
        """Record that `actor` did `action`; `about` holds the other fields of `AuditRecord`."""
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
