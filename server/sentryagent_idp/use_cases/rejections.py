"""Refusals that anybody can cause for ever: counted, so that a flood of them cannot fill the disk.

Of a refusal before the signature was verified only the number is audited. Of a run that GitHub vouches for, the first
refusal of its kind in a minute is audited at once and in full, the others of that minute by their number.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any
from uuid import UUID

from sentryagent_idp.domain.audit import Action, Outcome, RequestContext, cut_to_size
from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.errors import ExchangeRefused, InvalidOidcToken
from sentryagent_idp.ports import NewId, Store
from sentryagent_idp.runtime.addresses import allowance
from sentryagent_idp.use_cases.audit import Auditor

NOBODY = "unverified"
"""The actor of a request without an authenticated identity."""

_OTHERS = "others"
_MAX_KINDS = 100
"""What a stranger can add to the audit in a minute, in each process."""
_MAX_OF_REPOSITORY = 5


@dataclass(frozen=True, slots=True)
class Rejection:
    """A kind of refusal before the signature: its code, reason and actor, and the address or /64 that sent the request."""

    code: str
    reason: str
    address: str | None
    actor: str

    def bounds(self) -> Sequence["Bound"]:
        """One for all of these."""
        return [(None, _MAX_KINDS, Rejection(self.code, self.reason, _OTHERS, NOBODY))]

    def record(self) -> dict[str, Any]:
        """What a record of it says, as fields of `AuditRecord`."""
        action = Action.TOKEN_REJECTED if self.code == InvalidOidcToken.code else Action.AUTH_FAILED
        return {"action": action, "actor": self.actor, "details": {"code": self.code, "reason": self.reason}}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A kind of refusal of a verified run: `reason` is in words of ours, the repository is known by its id.

    `repository` and `actor` are those of the first run of the kind.
    """

    code: str
    reason: str
    issuer: str
    repository_id: str
    agent_id: UUID | None
    repository: str | None = field(compare=False)
    actor: str = field(compare=False)
    address: None = None
    """Runs of one repository come from many addresses."""

    def bounds(self) -> Sequence["Bound"]:
        """One for each code and reason, and one for each repository within it.

        So strangers, who all fail for the same few reasons, crowd out no other reason, and a repository that asks for
        ever new agents hides no other repository.
        """
        rest = replace(self, agent_id=None, actor=_OTHERS)
        others = replace(rest, issuer=_OTHERS, repository_id=_OTHERS, repository=None)
        cause = (self.code, self.reason)
        return [
            (cause, _MAX_KINDS, others),
            ((*cause, self.issuer, self.repository_id), _MAX_OF_REPOSITORY, rest),
        ]

    def record(self) -> dict[str, Any]:
        """What a record of it says, as fields of `AuditRecord`."""
        details = {"code": self.code, "reason": self.reason, "repository_id": self.repository_id}
        about = {"agent_id": self.agent_id, "repository": self.repository}
        return {"action": Action.TOKEN_REFUSED, "actor": self.actor, **about, "details": details}


Kind = Rejection | Refusal

Bound = tuple[Hashable, int, Kind]
"""What shares a bound, how many kinds of it are kept apart, and the kind that stands for the others."""


@dataclass(slots=True)
class RejectionCounter:
    """How often each kind of refusal happened since the last `drain`; bounded, for one process."""

    _counts: Counter[Kind] = field(default_factory=Counter)
    _sizes: Counter[Hashable] = field(default_factory=Counter)
    _due: set[Kind] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def note(self, code: str, reason: str, address: str | None, actor: str = NOBODY) -> None:
        """Count one refusal before the signature; beyond a hundred kinds, new ones are counted by code and reason."""
        kind = Rejection(code, reason, allowance(address), actor)
        with self._lock:
            self._counts[self._held(kind)] += 1

    def is_first(self, kind: Refusal) -> bool:
        """Whether a refusal is the first of its kind, to be audited in full; it is counted where it is not.

        Beyond a hundred kinds with the same code and reason, new ones are counted together.
        """
        with self._lock:
            held = self._held(kind)
            if held is kind and kind in self._due:
                self._due.remove(kind)
                return True
            self._counts[held] += 1
            return False

    def is_not_written(self, kind: Refusal) -> None:
        """Let the next refusal of the kind count as the first: the record of this one failed."""
        with self._lock:
            self._due.add(kind)

    def drain(self) -> dict[Kind, int]:
        """The counts by kind; from here on everything is counted from zero, and first of its kind again."""
        with self._lock:
            counts = {kind: count for kind, count in self._counts.items() if count}
            self._counts, self._sizes, self._due = Counter(), Counter(), set()
        return counts

    def put_back(self, counts: Mapping[Kind, int]) -> None:
        """Add what was drained and could not be written; what was counted meanwhile stays."""
        with self._lock:
            for kind, count in counts.items():
                self._counts[self._held(kind)] += count

    def _held(self, kind: Kind) -> Kind:
        """The kind under which it is counted: its own, or beyond the bound that of all others."""
        if kind in self._counts:
            return kind
        bounds = kind.bounds()
        for shared, most, rest in bounds:
            if self._sizes[shared] >= most:
                return rest
        self._sizes.update(shared for shared, _, _ in bounds)
        self._counts[kind] = 0
        self._due.add(kind)
        return kind


@dataclass(frozen=True, slots=True)
class RefusalAudit:
    """Audits refusals of verified runs: the first of a kind in full, in a transaction of its own."""

    store: Store
    auditor: Auditor
    counter: RejectionCounter

    def note(
        self,
        identity: WorkflowIdentity,
        agent_id: UUID | None,
        refusal: InvalidOidcToken | ExchangeRefused,
        context: RequestContext,
        details: Mapping[str, Any],
    ) -> None:
        """Record the refusal with these details, or count it; raises `DatabaseUnavailable`, and the next is the first."""
        kind = Refusal(
            refusal.code,
            refusal.reason,
            identity.issuer,
            identity.repository_id,
            agent_id,
            identity.repository,
            identity.subject,
        )
        if not self.counter.is_first(kind):
            return
        record = kind.record()
        record["details"] = cut_to_size(record["details"] | details)
        try:
            with self.store.write() as tx:
                tx.audit.append(self.auditor.record(context, outcome=Outcome.FAILURE, **record))
        except Exception:
            self.counter.is_not_written(kind)
            raise


@dataclass(frozen=True, slots=True)
class RejectionAudit:
    """Writes the counts into the audit: one record for each kind, and no more."""

    store: Store
    auditor: Auditor
    counter: RejectionCounter
    new_id: NewId

    def run(self) -> int:
        """Record what was counted since the last run; returns the number of records.

        Raises `DatabaseUnavailable`, and then the counts are kept for the next run. Where it is lost whether the
        database kept them, they are written twice rather than not at all.
        """
        counts = self.counter.drain()
        if not counts:
            return 0
        try:
            with self.store.write() as tx:
                for kind, count in counts.items():
                    context = RequestContext(request_id=str(self.new_id()), address=kind.address)
                    record = kind.record()
                    record["details"]["count"] = count
                    tx.audit.append(self.auditor.record(context, outcome=Outcome.FAILURE, **record))
        except Exception:
            self.counter.put_back(counts)
            raise
        return len(counts)
