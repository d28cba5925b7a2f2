"""Tokens that were refused before anybody was known: counted, so that a flood of them cannot fill the disk."""

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock

from server.auditing import Auditor
from server.domain.audit import Action, RequestContext
from server.ports import NewId, Store

_MAX_KINDS = 1000
_OTHERS = "others"
_NOBODY = "unverified"


@dataclass(slots=True)
class RejectionCounter:
    """How often each address was refused for each reason since the last `drain`; bounded, for one process."""

    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    def note(self, address: str | None, reason: str) -> None:
        """Count one refusal; beyond a thousand addresses and reasons, all further ones are counted together."""
        kind = (address or "unknown", reason)
        with self._lock:
            is_new = kind not in self._counts and len(self._counts) >= _MAX_KINDS
            self._counts[(_OTHERS, _OTHERS) if is_new else kind] += 1

    def drain(self) -> dict[tuple[str, str], int]:
        """The counts by address and reason, which start again from zero."""
        with self._lock:
            counts, self._counts = dict(self._counts), Counter()
        return counts


@dataclass(frozen=True, slots=True)
class RejectionAudit:
    """Writes the counts into the audit: one record for each address and reason, and no more."""

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
            for (address, reason), count in counts.items():
                context = RequestContext(request_id=str(self.new_id()), address=address)
                self.auditor.failure(
                    tx,
                    context,
                    Action.TOKEN_REJECTED,
                    _NOBODY,
                    details={"code": "INVALID_OIDC_TOKEN", "reason": reason, "count": count},
                )
        return len(counts)
