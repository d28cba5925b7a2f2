"""Write and read the audit; all audit records are created here."""

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
    """Appends each record in the transaction of its change, so that neither is committed without the other."""

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
        """Record that `caller` did `action` to `target`, with the `jti` of the caller's token in the details."""
        about = {"repository": caller.provenance.get("repository"), **target.in_audit}
        about["details"] = {"tokenJti": caller.jti, **details, **about.get("details", {})}
        self.success(tx, context, action, caller.subject, **about)

    def record(
        self, context: RequestContext, action: Action, outcome: Outcome, actor: str, **about: Any
    ) -> AuditRecord:
        """Build a record with the current time, without writing it; its details name the person, if known."""
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
    """Reads the audit, page by page."""

    store: Store

    def page(self, wanted: AuditFilter, *, page: int, limit: int, is_counted: bool) -> AuditPage:
        """Return one page. Raises `ValidationFailed` if the event `after` does not exist, and `DatabaseUnavailable`."""
        with self.store.read() as tx:
            found = tx.audit.page(wanted, page=page, limit=limit, is_counted=is_counted)
        if found is None:
            raise ValidationFailed(
                "after",
                "there is no event with this id (retention may have removed it); start again without `after`",
            )
        return found
