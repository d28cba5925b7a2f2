"""Writing and reading the audit: the one place that makes records."""

from dataclasses import dataclass
from typing import Any

from sentryagent_idp.domain.audit import (
    Action,
    Audited,
    AuditFilter,
    AuditPage,
    AuditRecord,
    Outcome,
    RequestContext,
)
from sentryagent_idp.domain.caller import Caller
from sentryagent_idp.errors import ValidationFailed
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

    def change(
        self,
        tx: Transaction,
        context: RequestContext,
        action: Action,
        caller: Caller,
        target: Audited,
        **details: Any,
    ) -> None:
        """Record that `caller` did `action` to `target`, with the `jti` of its token among the details."""
        about = {"repository": caller.provenance.get("repository"), **target.in_audit}
        about["details"] = {"tokenJti": caller.jti, **details, **about.get("details", {})}
        self.success(tx, context, action, caller.subject, **about)

    def record(
        self, context: RequestContext, action: Action, outcome: Outcome, actor: str, **about: Any
    ) -> AuditRecord:
        """A record of this moment, not yet written; its details name the person, if one is known."""
        if context.person is not None:
            about["details"] = {**about.get("details", {}), "person": context.person}
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

    def page(self, wanted: AuditFilter, *, page: int, limit: int, is_counted: bool) -> AuditPage:
        """One page; raises `ValidationFailed` for an event `after` that the audit does not have, `DatabaseUnavailable`."""
        with self.store.read() as tx:
            found = tx.audit.page(wanted, page=page, limit=limit, is_counted=is_counted)
        if found is None:
            raise ValidationFailed(
                "after",
                "the audit has no such event; begin without it, and see whether retention removed the event",
            )
        return found
