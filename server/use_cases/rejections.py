"""Refusals that anybody can cause for ever: counted, so that a flood of them cannot fill the disk."""

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock

from server.domain.audit import Action, RequestContext
from server.errors import InvalidOidcToken
from server.ports import NewId, Store
from server.use_cases.auditing import Auditor

NOBODY = "unverified"
"""The actor where nobody has proven an identity."""

_MAX_KINDS = 1000


@dataclass(frozen=True, slots=True)
class Rejection:
    """A kind of refusal: its code and reason, and whom it met."""

    code: str
    reason: str
    address: str
    actor: str


@dataclass(slots=True)
class RejectionCounter:
    """How often each kind of refusal happened since the last `drain`; bounded, for one process."""

    _counts: Counter[Rejection] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    def note(self, code: str, reason: str, address: str | None, actor: str = NOBODY) -> None:
        """Count one refusal; beyond a thousand kinds, all further ones of a code are counted together."""
        kind = Rejection(code, reason, address or "unknown", actor)
        with self._lock:
            is_new = kind not in self._counts and len(self._counts) >= _MAX_KINDS
            self._counts[Rejection(code, "others", "others", NOBODY) if is_new else kind] += 1

    def drain(self) -> dict[Rejection, int]:
        """The counts by kind, which start again from zero."""
        with self._lock:
            counts, self._counts = dict(self._counts), Counter()
        return counts


@dataclass(frozen=True, slots=True)
class RejectionAudit:
    """Writes the counts into the audit: one record for each kind, and no more."""

    store: Store
    auditor: Auditor
    counter: RejectionCounter
    new_id: NewId

    def run(self) -> int:
        """Record what was counted since the last run; returns the number of records. Raises `DatabaseUnavailable`."""
        counts = self.counter.drain()
        if not counts:
            return 0
        with self.store.write() as tx:
            for kind, count in counts.items():
                context = RequestContext(request_id=str(self.new_id()), address=kind.address)
                details = {"code": kind.code, "reason": kind.reason, "count": count}
                self.auditor.failure(tx, context, _action(kind), kind.actor, details=details)
        return len(counts)


def _action(kind: Rejection) -> Action:
    return Action.TOKEN_REJECTED if kind.code == InvalidOidcToken.code else Action.AUTH_FAILED
